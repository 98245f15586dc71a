package client

import (
	"time"

	"gateway/mqtt"
	"gateway/mqtt/packet"
)

// State tells what became of a connection.
type State struct {
	Connected bool
	URL       string // without user, password and query
	Since     time.Time
	Attempt   int // failures in a row so far; 0 while all is well

	// When connected.
	Version        mqtt.Version
	SessionPresent bool
	ClientID       string // the assigned one where the server assigned it
	KeepAlive      time.Duration
	ReceiveMaximum uint16 // how many QoS 1 and 2 messages the server takes at once
	MaxPacket      uint32 // bytes that the server takes; 0: no limit said
	Server         packet.Properties

	// When not connected.
	Err     error
	Reason  mqtt.ReasonCode // what the server said in CONNACK or DISCONNECT; Success: nothing
	RetryIn time.Duration
	// Evicted counts how often in a row the session was taken over by another client with our identifier.
	Evicted int
}

// Stats counts what the client did since New.
type Stats struct {
	Connects   uint64
	Published  uint64 // sent for the first time
	Resent     uint64 // in the same session or a new one
	Acked      uint64 // QoS 0: written
	Refused    uint64
	Received   uint64
	Duplicates uint64 // QoS 2 messages received again and not handed on
	Dropped    uint64 // QoS 0 messages received and dropped because handlers were too slow
	Unacked    int    // now
	Inflight   int    // of these, on the wire now
}
