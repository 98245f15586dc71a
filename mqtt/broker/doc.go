// Package broker is an MQTT broker: 5.0, 3.1.1 and, for old devices, 3.1; QoS 0, 1 and 2; sessions,
// retained messages, wills, shared subscriptions. It is embedded by calling New and Run; clients
// come in over TCP, TLS, WebSocket or Unix sockets, over any net.Conn, and from within the process
// through Publish. With a Store, persistent sessions and retained messages survive a restart, a crash and
// a power cut.
//
// # How a message flows
//
// Each connection has one goroutine, which reads and handles packets in batches: what one read brought
// is handled before anything is written. Its receivers come from a route, which the connection
// remembers for each topic until a subscription changes. For each receiver the PUBLISH is encoded
// into that connection's output (once for all of the same version and QoS), and at the end of the
// batch each output that has something is written with one write that does not wait. Where the
// socket is full a goroutine takes over until it is empty again. On Linux a client that sends
// without a break is left unread for some 70 µs between two batches (gatherer), so that a batch is worth
// its wake-up. An idle connection holds neither buffers nor a second goroutine.
//
// # What is bounded, and what happens at the bound
//
// Everything a client can make the broker hold has a limit (Limits, Options); the default is in
// brackets there.
//
//   - Connections beyond the limit, or beyond the limit of those that have not sent CONNECT, wait a quarter of
//     a second for room, one after the other, and are closed then and counted (Stats.TurnedAway).
//   - A CONNECT that is not whole within ConnectTimeout, or is larger than ConnectPacketSize, ends the
//     connection, however slowly its bytes trickle in. An announced length allocates nothing.
//   - Packets larger than 16 KiB take, while they arrive, at most as many bytes together as may wait for all
//     sessions. Beyond that the one that arrives most slowly makes room: DISCONNECT 0x97. Those of clients that have
//     not connected yet have a bound of their own (ConnectBytes), so that strangers take no room from clients: the
//     connection is closed.
//   - Sessions beyond the limit, or client identifiers and wills of more bytes together than may wait for all
//     sessions: CONNACK 0x97 quota exceeded (3.1.1: 3, server unavailable).
//   - A packet beyond the maximum packet size: DISCONNECT 0x95. A payload beyond the maximum payload:
//     PUBACK or PUBREC 0x97, dropped at QoS 0; 3.1.1 is acknowledged, for it has no refusal. A will beyond it:
//     CONNACK 0x97 (3.1.1: 3).
//   - Topic aliases whose topics are longer than 128 KiB together: DISCONNECT 0x97.
//   - More unacknowledged messages than the receive maximum: DISCONNECT 0x93. A 3.1.1 client, which
//     knows no such limit, is not read from until the store has caught up.
//   - Subscriptions beyond the limits: SUBACK 0x97; one that takes several KiB counts for as many. A filter or
//     topic with too many levels: SUBACK 0x8F, PUBACK 0x90.
//   - A slow subscriber: its socket's buffer, then the output (OutBuffer), then the session's queue fill
//     up. At the queue's bounds (messages and bytes of the session, bytes of all sessions) new
//     messages for this session are dropped, counted (Stats.Dropped) and logged with its name; nobody
//     else waits or loses anything. A session without connection has the same queue, QoS 1 and 2 only.
//     What a persistent session was sent and has not acknowledged is kept and has the same bounds in bytes; beyond
//     them the next message waits in the queue.
//   - A client that takes nothing of what is being written for WriteTimeout is disconnected. One that
//     does not read what it is owed is not read from either.
//   - Retained messages beyond the limits are forwarded but not retained.
//   - Refusals are logged a few a second at most; the log line says how many were left out.
//
// # What is durable
//
// With a Store, a session whose expiry is not 0 survives with its subscriptions, its queue, its
// messages in flight and their packet identifiers and the identifiers of QoS 2 messages received; so do
// retained messages. PUBACK and PUBREC of a message that such a session is owed, or that is retained, and
// SUBACK and UNSUBACK of such a session, are sent after the store has synced. A publisher that
// waits triggers the sync at once, at most one every 2 ms, and all that came meanwhile share it; so the throughput does not
// depend on SyncWindow. Messages of the process itself (Publish) do not trigger it. While the store
// fails, delivery goes on and those acknowledgements wait.
//
// So do the wills of all clients: a broker that was killed publishes them when it is back, for their connections
// have ended without a DISCONNECT; delays and sessions go on. A broker that stops publishes those whose
// connections it ends and that have no delay, or no store to wait in.
//
// Expiry intervals and will delays count the time that the broker runs, never the wall clock. With a Store they
// go on over a restart, where the time in which the broker was down counts if the machine was not booted
// meanwhile (Options.Uptime). A crash with a reboot takes up to ten minutes of an idle broker's time from them.
//
// Clauses in brackets are those of OASIS MQTT 5.0 unless 3.1.1 stands beside them.
package broker
