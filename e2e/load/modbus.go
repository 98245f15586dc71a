// Package load is what the gateway's delivery is measured with: a Modbus TCP device whose registers
// count its polls, a subscriber that counts what arrives, and a TCP proxy that delays, stalls and
// breaks connections.
package load

import (
	"encoding/binary"
	"io"
	"net"
	"sync"
	"time"
)

// A Meter is a Modbus TCP server with any number of units. Every read of a unit counts: registers 0
// and 1 hold the count (most significant word first), register k the count plus k. So a count that
// never arrives at a subscriber is a poll that was lost, exactly.
type Meter struct {
	l     net.Listener
	conns sync.WaitGroup

	mu    sync.Mutex
	polls map[byte][]time.Time // when each was answered, by unit
	open  map[net.Conn]bool
	mute  map[byte]bool // units that do not answer
}

// NewMeter serves on a loopback port until Close.
func NewMeter() (*Meter, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	m := &Meter{l: l, polls: map[byte][]time.Time{}, open: map[net.Conn]bool{}, mute: map[byte]bool{}}
	m.conns.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			m.mu.Lock()
			m.open[c] = true
			m.mu.Unlock()
			m.conns.Go(func() { m.serve(c) })
		}
	})
	return m, nil
}

// Addr returns host:port.
func (m *Meter) Addr() string { return m.l.Addr().String() }

// Close ends the server and all its connections.
func (m *Meter) Close() {
	m.l.Close()
	m.mu.Lock()
	for c := range m.open {
		c.Close()
	}
	m.mu.Unlock()
	m.conns.Wait()
}

// Mute makes a unit silent, as a device that has no power: the requests for it are read and not answered.
func (m *Meter) Mute(unit byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mute[unit] = true
}

func (m *Meter) muted(unit byte) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mute[unit]
}

// Polls returns how often the unit was read.
func (m *Meter) Polls(unit byte) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.polls[unit])
}

// Answered returns when the unit's poll with the given count, from 1, was answered.
func (m *Meter) Answered(unit byte, count int) (time.Time, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if count < 1 || count > len(m.polls[unit]) {
		return time.Time{}, false
	}
	return m.polls[unit][count-1], true
}

// serve answers requests: the MBAP header of 7 bytes (Modbus Messaging on TCP/IP 1.0b, 3.1.3), then
// function 3 or 4, address, quantity.
func (m *Meter) serve(c net.Conn) {
	defer func() {
		c.Close()
		m.mu.Lock()
		delete(m.open, c)
		m.mu.Unlock()
	}()
	var req [12]byte
	var resp []byte
	for {
		if _, err := io.ReadFull(c, req[:]); err != nil {
			return
		}
		unit, function := req[6], req[7]
		if m.muted(unit) {
			continue
		}
		address, quantity := binary.BigEndian.Uint16(req[8:]), binary.BigEndian.Uint16(req[10:])
		resp = append(resp[:0], req[:4]...)
		if (function != 3 && function != 4) || quantity == 0 || quantity > 125 {
			resp = binary.BigEndian.AppendUint16(resp, 3)
			resp = append(resp, unit, function|0x80, 1)
		} else {
			m.mu.Lock()
			count := len(m.polls[unit]) + 1
			m.polls[unit] = append(m.polls[unit], time.Now())
			m.mu.Unlock()
			resp = binary.BigEndian.AppendUint16(resp, 3+2*quantity)
			resp = append(resp, unit, function, byte(2*quantity))
			for i := range quantity {
				switch r := address + i; r {
				case 0:
					resp = binary.BigEndian.AppendUint16(resp, uint16(count>>16))
				case 1:
					resp = binary.BigEndian.AppendUint16(resp, uint16(count))
				default:
					resp = binary.BigEndian.AppendUint16(resp, uint16(count)+r)
				}
			}
		}
		if _, err := c.Write(resp); err != nil {
			return
		}
	}
}
