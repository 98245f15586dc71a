"""python3-paho-mqtt as a client of the broker: QoS 0 to 2, retained, will, session resumption, in
3.1.1 and 5.0. Prints ok at the end."""
import queue
import sys

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

PORT = int(sys.argv[1])


class Client:
    def __init__(self, version, name, clean=True, will=None):
        self.version, self.got, self.up, self.subscribed = version, queue.Queue(), queue.Queue(), queue.Queue()
        if version == mqtt.MQTTv5:
            self.c = mqtt.Client(name, protocol=version)
            self.c.on_connect = lambda c, u, flags, rc, props: self.up.put((rc.value, flags["session present"]))
            self.c.on_subscribe = lambda c, u, mid, codes, props: self.subscribed.put([r.value for r in codes])
        else:
            self.c = mqtt.Client(name, clean_session=clean, protocol=version)
            self.c.on_connect = lambda c, u, flags, rc: self.up.put((rc, flags["session present"]))
            self.c.on_subscribe = lambda c, u, mid, codes: self.subscribed.put(list(codes))
        self.c.on_message = lambda c, u, m: self.got.put(m)
        if will:
            self.c.will_set(*will)
        if version == mqtt.MQTTv5:
            props = Properties(PacketTypes.CONNECT)
            if not clean:
                props.SessionExpiryInterval = 3600
            self.c.connect("127.0.0.1", PORT, 10, clean_start=clean, properties=props)
        else:
            self.c.connect("127.0.0.1", PORT, 10)
        self.c.loop_start()
        rc, self.present = self.up.get(timeout=120)
        assert rc == 0, rc

    def subscribe(self, topic, qos):
        self.c.subscribe(topic, qos)
        assert self.subscribed.get(timeout=120) == [qos]

    def publish(self, topic, payload, qos, retain=False):
        self.c.publish(topic, payload, qos, retain).wait_for_publish(120)

    def expect(self, topic, payload, qos, retain=False):
        m = self.got.get(timeout=120)
        assert (m.topic, m.payload, m.qos, bool(m.retain)) == (topic, payload, qos, retain), (m.topic, m.payload, m.qos, m.retain)
        return m

    def leave(self):
        self.c.disconnect()
        self.c.loop_stop()

    def die(self):
        self.c.loop_stop()
        self.c._sock.close()
        self.c._sock = None


for version in (mqtt.MQTTv311, mqtt.MQTTv5):
    name = "v%d" % version
    sub, pub = Client(version, name + "-sub"), Client(version, name + "-pub")
    for qos in (0, 1, 2):
        sub.subscribe("%s/%d/+" % (name, qos), qos)
        for i in range(100):
            pub.publish("%s/%d/x" % (name, qos), b"%d" % i, 2)
        for i in range(100):
            sub.expect("%s/%d/x" % (name, qos), b"%d" % i, qos)
    big = b"x" * 1_000_000
    pub.publish(name + "/2/big", big, 2)
    sub.expect(name + "/2/big", big, 2)

    pub.publish(name + "/kept", b"1", 1, True)
    sub.subscribe(name + "/kept", 1)
    sub.expect(name + "/kept", b"1", 1, True)

    sub.subscribe(name + "/will", 1)
    Client(version, name + "-mortal", will=(name + "/will", b"gone", 1, False)).die()
    sub.expect(name + "/will", b"gone", 1)

    keeper = Client(version, name + "-keeper", clean=False)
    assert not keeper.present
    keeper.subscribe(name + "/keep", 2)
    keeper.leave()
    for i in range(50):
        pub.publish(name + "/keep", b"%d" % i, 2)
    keeper = Client(version, name + "-keeper", clean=False)
    assert keeper.present
    for i in range(50):
        keeper.expect(name + "/keep", b"%d" % i, 2)

    if version == mqtt.MQTTv5:
        props = Properties(PacketTypes.PUBLISH)
        props.UserProperty = [("a", "1"), ("a", "2")]
        props.ContentType = "text/plain"
        props.CorrelationData = b"\x00\x01"
        props.ResponseTopic = "answer"
        props.MessageExpiryInterval = 100
        pub.c.publish(name + "/1/props", b"p", 1, properties=props).wait_for_publish(120)
        got = sub.expect(name + "/1/props", b"p", 1).properties
        assert got.UserProperty == [("a", "1"), ("a", "2")] and got.ContentType == "text/plain"
        assert got.CorrelationData == b"\x00\x01" and got.ResponseTopic == "answer" and got.MessageExpiryInterval == 100
    for c in (sub, pub, keeper):
        c.leave()
print("ok")
