// npm's mqtt as a client of the broker: QoS 0 to 2, retained, will, session resumption, in 3.1.1 and
// 5.0. Prints ok at the end.
import assert from "node:assert/strict";
import mqtt from "mqtt";

const port = process.argv[2];
setTimeout(() => { console.error("timed out"); process.exit(1); }, 200_000).unref();

async function client(version, clientId, options = {}) {
  const c = mqtt.connect(`mqtt://127.0.0.1:${port}`, { protocolVersion: version, clientId, reconnectPeriod: 0, ...options });
  c.got = [];
  c.waiting = [];
  c.on("message", (topic, payload, packet) => {
    const take = c.waiting.shift();
    if (take) take(packet); else c.got.push(packet);
  });
  const ack = await new Promise((resolve, reject) => { c.on("connect", resolve); c.on("error", reject); });
  c.present = ack.sessionPresent;
  c.next = () => c.got.length ? Promise.resolve(c.got.shift()) : new Promise((resolve) => c.waiting.push(resolve));
  c.expect = async (topic, payload, qos, retain = false) => {
    const p = await c.next();
    assert.deepEqual([p.topic, p.payload.toString(), p.qos, p.retain], [topic, payload, qos, retain]);
    return p;
  };
  return c;
}

for (const version of [4, 5]) {
  const n = `js${version}`;
  const sub = await client(version, `${n}-sub`);
  const pub = await client(version, `${n}-pub`);
  for (const qos of [0, 1, 2]) {
    await sub.subscribeAsync(`${n}/${qos}/#`, { qos });
    for (let i = 0; i < 100; i++) pub.publish(`${n}/${qos}/x`, `${i}`, { qos: 2 });
    for (let i = 0; i < 100; i++) await sub.expect(`${n}/${qos}/x`, `${i}`, qos);
  }
  await pub.publishAsync(`${n}/kept`, "1", { qos: 1, retain: true });
  await sub.subscribeAsync(`${n}/kept`, { qos: 1 });
  await sub.expect(`${n}/kept`, "1", 1, true);

  await sub.subscribeAsync(`${n}/will`, { qos: 1 });
  const mortal = await client(version, `${n}-mortal`, { will: { topic: `${n}/will`, payload: Buffer.from("gone"), qos: 1 } });
  mortal.stream.destroy();
  await sub.expect(`${n}/will`, "gone", 1);

  const keep = { clean: false, properties: version === 5 ? { sessionExpiryInterval: 3600 } : undefined };
  let keeper = await client(version, `${n}-keeper`, keep);
  assert.equal(keeper.present, false);
  await keeper.subscribeAsync(`${n}/keep`, { qos: 2 });
  await keeper.endAsync();
  for (let i = 0; i < 50; i++) await pub.publishAsync(`${n}/keep`, `${i}`, { qos: 2 });
  keeper = await client(version, `${n}-keeper`, keep);
  assert.equal(keeper.present, true);
  for (let i = 0; i < 50; i++) await keeper.expect(`${n}/keep`, `${i}`, 2);

  if (version === 5) {
    await pub.publishAsync(`${n}/1/props`, "p", { qos: 1, properties: { userProperties: { a: ["1", "2"] }, contentType: "text/plain", responseTopic: "answer", messageExpiryInterval: 100 } });
    const p = (await sub.expect(`${n}/1/props`, "p", 1)).properties;
    assert.deepEqual([...p.userProperties.a], ["1", "2"]);
    assert.deepEqual([p.contentType, p.responseTopic, p.messageExpiryInterval], ["text/plain", "answer", 100]);
    // A message for a closed group of workers.
    const workers = [await client(5, `${n}-w1`), await client(5, `${n}-w2`)];
    for (const w of workers) await w.subscribeAsync(`$share/g/${n}/work`, { qos: 1 });
    for (let i = 0; i < 10; i++) await pub.publishAsync(`${n}/work`, `${i}`, { qos: 1 });
    await Promise.all(workers.map(async (w) => { for (let i = 0; i < 5; i++) await w.next(); }));
    for (const w of workers) await w.endAsync();
  }
  for (const c of [sub, pub, keeper]) await c.endAsync();
}
console.log("ok");
