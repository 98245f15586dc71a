package sim

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"time"
)

// ServeTCP answers Modbus TCP on a listener until it is closed, and returns when all connections have
// ended.
func (m *Modbus) ServeTCP(l net.Listener) error {
	var mu sync.Mutex
	var wg sync.WaitGroup
	open := map[net.Conn]bool{}
	defer wg.Wait()
	defer func() {
		mu.Lock()
		defer mu.Unlock()
		for c := range open {
			c.Close()
		}
	}()
	for {
		conn, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		} else if err != nil {
			return fmt.Errorf("sim: accept: %w", err)
		}
		mu.Lock()
		open[conn] = true
		mu.Unlock()
		wg.Go(func() {
			m.ServeConn(conn) // a client that leaves is nothing to report
			conn.Close()
			mu.Lock()
			delete(open, conn)
			mu.Unlock()
		})
	}
}

// ServeConn answers Modbus TCP frames on one connection until it ends.
func (m *Modbus) ServeConn(conn io.ReadWriter) error {
	var buf [260]byte
	for {
		if _, err := io.ReadFull(conn, buf[:7]); err != nil {
			return err
		}
		n := int(binary.BigEndian.Uint16(buf[4:]))
		if n < 2 || n > 254 {
			return errPDU
		}
		if _, err := io.ReadFull(conn, buf[7:6+n]); err != nil {
			return err
		}
		frame, fault := m.answerMBAP(buf[:6+n])
		if err := send(conn, frame, fault); err != nil {
			return err
		}
	}
}

// ServeUDP answers Modbus frames in datagrams until the socket is closed.
func (m *Modbus) ServeUDP(conn net.PacketConn) error {
	var buf [512]byte
	for {
		n, from, err := conn.ReadFrom(buf[:])
		if errors.Is(err, net.ErrClosed) {
			return nil
		} else if err != nil {
			return fmt.Errorf("sim: udp: %w", err)
		}
		if n < 9 || 6+int(binary.BigEndian.Uint16(buf[4:])) != n {
			continue
		}
		frame, fault := m.answerMBAP(buf[:n])
		if len(frame) > 0 {
			time.Sleep(fault.Delay)
			conn.WriteTo(frame, from) // datagrams may be lost
		}
	}
}

func (m *Modbus) answerMBAP(req []byte) ([]byte, ModbusFault) {
	if !wellFormed(req[7:]) {
		return mbap(req, req[6], []byte{req[7] | 0x80, 3}), ModbusFault{}
	}
	pdu, fault := m.handle(req[6], req[7:])
	if pdu == nil {
		return nil, fault
	}
	frame := mbap(req, fault.unit(req[6]), pdu)
	binary.BigEndian.PutUint16(frame, binary.BigEndian.Uint16(frame)+fault.WrongTx)
	return frame, fault
}

// unit returns from which unit the answer says it is.
func (f *ModbusFault) unit(asked byte) byte {
	if f.WrongUnit != 0 {
		return f.WrongUnit
	}
	return asked
}

func mbap(req []byte, unit byte, pdu []byte) []byte {
	frame := append(slices.Clone(req[:4]), 0, 0, unit)
	binary.BigEndian.PutUint16(frame[4:], uint16(len(pdu)+1))
	return append(frame, pdu...)
}

// ServeRTU answers RTU frames that come over a serial line until it ends.
func (m *Modbus) ServeRTU(line io.ReadWriter) error {
	var buf []byte
	var in [256]byte
	for {
		n, err := line.Read(in[:])
		if err != nil {
			return err
		}
		buf = append(buf, in[:n]...)
		for {
			size := requestLen(buf)
			if size == 0 || len(buf) < size+3 {
				break
			}
			frame := buf[:size+3]
			if size < 0 || crc(frame) != 0 {
				buf = buf[1:] // not where a frame begins
				continue
			}
			if pdu, fault := m.handle(frame[0], frame[1:size+1]); pdu != nil && frame[0] != 0 || fault.Disconnect {
				if err := send(line, rtu(frame[0], pdu, fault), fault); err != nil {
					return err
				}
			}
			buf = buf[size+3:]
		}
		if len(buf) > 512 {
			buf = nil
		}
	}
}

func rtu(unit byte, pdu []byte, fault ModbusFault) []byte {
	if pdu == nil {
		return nil
	}
	frame := append([]byte{fault.unit(unit)}, pdu...)
	frame = binary.LittleEndian.AppendUint16(frame, crc(frame))
	if fault.Corrupt {
		frame[len(frame)/2] ^= 0x10
	}
	return frame
}

// ServeASCII answers ASCII frames that come over a serial line until it ends.
func (m *Modbus) ServeASCII(line io.ReadWriter) error {
	var buf []byte
	var in [512]byte
	for {
		n, err := line.Read(in[:])
		if err != nil {
			return err
		}
		buf = append(buf, in[:n]...)
		for {
			end := slices.Index(buf, '\n')
			if end < 0 {
				break
			}
			text := strings.TrimRight(string(buf[:end]), "\r")
			buf = buf[end+1:]
			start := strings.LastIndexByte(text, ':')
			req, err := hex.DecodeString(text[start+1:])
			if start < 0 || err != nil || len(req) < 3 || sum(req) != 0 || !wellFormed(req[1:len(req)-1]) {
				continue
			}
			pdu, fault := m.handle(req[0], req[1:len(req)-1])
			if pdu == nil && !fault.Disconnect || req[0] == 0 {
				continue
			}
			var frame []byte
			if pdu != nil {
				resp := append([]byte{fault.unit(req[0])}, pdu...)
				resp = append(resp, -sum(resp))
				if fault.Corrupt {
					resp[len(resp)/2] ^= 0x10
				}
				frame = fmt.Appendf(nil, ":%X\r\n", resp)
			}
			if err := send(line, frame, fault); err != nil {
				return err
			}
		}
	}
}

func sum(b []byte) (s byte) {
	for _, c := range b {
		s += c
	}
	return s
}

// crc is the checksum of RTU frames, bit by bit; over a frame with its checksum it is 0.
func crc(b []byte) uint16 {
	c := uint16(0xffff)
	for _, v := range b {
		c ^= uint16(v)
		for range 8 {
			odd := c & 1
			c >>= 1
			if odd != 0 {
				c ^= 0xa001
			}
		}
	}
	return c
}

// requestLen is how long the request PDU at the start of an RTU frame is: 0 where more of it must
// come to tell, -1 where no request begins there.
func requestLen(frame []byte) int {
	need := func(at, fixed int) int {
		if len(frame) <= at {
			return 0
		}
		return fixed + int(frame[at])
	}
	if len(frame) < 2 {
		return 0
	}
	switch frame[1] {
	case 1, 2, 3, 4, 5, 6:
		return 5
	case 15, 16:
		return need(6, 6)
	case 22:
		return 7
	case 23:
		return need(10, 10)
	case 43:
		return 4
	}
	return -1
}

// wellFormed tells whether a PDU has the length that its function calls for.
func wellFormed(pdu []byte) bool {
	n := requestLen(append([]byte{0}, pdu...))
	return n < 0 && len(pdu) > 0 || n > 0 && n == len(pdu)
}

// errDisconnect ends a conversation as a fault asks for.
var errDisconnect = errors.New("sim: disconnected by fault")

// send sends an answer with its fault.
func send(w io.Writer, frame []byte, f ModbusFault) error {
	time.Sleep(f.Delay)
	if f.Cut > 0 {
		frame = frame[:min(f.Cut, len(frame))]
	}
	var parts [][]byte
	switch {
	case len(frame) == 0:
	case f.Trickle > 0:
		for i := range frame {
			parts = append(parts, frame[i:i+1])
		}
	case f.Split > 0 && f.Split < len(frame):
		parts = [][]byte{frame[:f.Split], frame[f.Split:]}
	default:
		parts = [][]byte{slices.Concat(f.Before, frame, f.After)}
	}
	for i, p := range parts {
		if i > 0 && f.Split > 0 {
			time.Sleep(5 * time.Millisecond)
		}
		time.Sleep(f.Trickle)
		if _, err := w.Write(p); err != nil {
			return err
		}
	}
	if f.Disconnect {
		return errDisconnect
	}
	return nil
}
