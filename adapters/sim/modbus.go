package sim

import (
	"encoding/binary"
	"errors"
	"slices"
	"sync"
	"time"

	"gateway/adapters"
	"gateway/adapters/decode"
)

// A Modbus is the devices behind one port or address, with their unit ids. It answers functions 1 to
// 6, 15, 16, 22, 23 and 43/14, whatever transport brings them: see ServeTCP, ServeRTU, ServeASCII. It
// is safe for concurrent use.
type Modbus struct {
	mu    sync.Mutex
	units map[byte]*ModbusUnit
	start time.Time
}

// NewModbus returns a line without devices.
func NewModbus() *Modbus {
	return &Modbus{units: map[byte]*ModbusUnit{}, start: time.Now()}
}

// Table is one of the four tables of a Modbus device.
type Table uint8

// The tables.
const (
	Coils Table = iota
	DiscreteInputs
	InputRegisters
	HoldingRegisters
)

// A ModbusUnit is one device. An address that was never set does not exist: reading it gives
// exception 2.
type ModbusUnit struct {
	line   *Modbus
	tables [4]map[uint16]uint16
	moving []moving
	faults []ModbusFault
	always *ModbusFault

	maxRegisters int
	mute         map[[2]uint16]bool
	objects      map[byte]string
	requests     []ModbusRequest
	count        int
}

// A moving value is computed anew whenever the unit is asked for something.
type moving struct {
	table   Table
	address uint16
	field   *decode.Field
	value   func(t time.Duration) float64
}

// A ModbusRequest is what a unit was asked: the PDU, and when.
type ModbusRequest struct {
	Time time.Time
	PDU  []byte
}

// A ModbusFault is how a unit misbehaves at one request. The zero ModbusFault is no fault.
type ModbusFault struct {
	Silent     bool          // no answer
	Delay      time.Duration // before the answer
	Exception  byte          // this exception instead of an answer
	Before     []byte        // garbage ahead of the answer
	After      []byte        // garbage behind it
	Corrupt    bool          // one bit of the answer is flipped (RTU and ASCII: the checksum tells)
	Cut        int           // only so many bytes of the frame are sent
	Split      int           // the frame comes in two parts, the first of so many bytes
	Trickle    time.Duration // pause before each byte of the answer
	WrongUnit  byte          // the answer says that it comes from this unit
	WrongTx    uint16        // TCP: added to the transaction id
	WrongFunc  byte          // the answer is of this function
	Short      int           // so many bytes are missing from the data, the frame is in order otherwise
	Disconnect bool          // the connection is closed instead, or after what Cut lets through
}

// Unit returns the unit with an id, which comes to life by that.
func (m *Modbus) Unit(id byte) *ModbusUnit {
	m.mu.Lock()
	defer m.mu.Unlock()
	u := m.units[id]
	if u == nil {
		u = &ModbusUnit{line: m, maxRegisters: 125, mute: map[[2]uint16]bool{}, objects: map[byte]string{}}
		for i := range u.tables {
			u.tables[i] = map[uint16]uint16{}
		}
		m.units[id] = u
	}
	return u
}

// Remove takes a unit off the line: it does not answer any more.
func (m *Modbus) Remove(id byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.units, id)
}

// Set gives elements of a table their values, from an address on; for bits 0 and 1.
func (u *ModbusUnit) Set(t Table, address uint16, values ...uint16) *ModbusUnit {
	u.line.mu.Lock()
	defer u.line.mu.Unlock()
	for i, v := range values {
		u.tables[t][address+uint16(i)] = v
	}
	return u
}

// Clear takes elements away: reading them gives exception 2.
func (u *ModbusUnit) Clear(t Table, addresses ...uint16) {
	u.line.mu.Lock()
	defer u.line.mu.Unlock()
	for _, a := range addresses {
		delete(u.tables[t], a)
	}
}

// Mute lets the unit give no answer at all to requests that read an element, as some devices do for
// addresses that they do not have.
func (u *ModbusUnit) Mute(t Table, address uint16) {
	u.line.mu.Lock()
	defer u.line.mu.Unlock()
	u.mute[[2]uint16{uint16(t), address}] = true
}

// muted tells whether a read request touches an element that the unit is mute about.
func (u *ModbusUnit) muted(pdu []byte) bool {
	if len(u.mute) == 0 || pdu[0] < 1 || pdu[0] > 4 {
		return false
	}
	table := [...]Table{1: Coils, 2: DiscreteInputs, 3: HoldingRegisters, 4: InputRegisters}[pdu[0]]
	from := binary.BigEndian.Uint16(pdu[1:])
	for m := range u.mute {
		if m[0] == uint16(table) && m[1]-from < binary.BigEndian.Uint16(pdu[3:]) {
			return true
		}
	}
	return false
}

// Get returns the value of an element.
func (u *ModbusUnit) Get(t Table, address uint16) uint16 {
	u.line.mu.Lock()
	defer u.line.mu.Unlock()
	return u.tables[t][address]
}

// Move lets registers follow a function of the time since the line was made. What the function gives
// and the field cannot hold leaves them as they are.
func (u *ModbusUnit) Move(t Table, address uint16, f *decode.Field, value func(t time.Duration) float64) *ModbusUnit {
	u.Set(t, address, make([]uint16, (f.Size()+1)/2)...)
	u.line.mu.Lock()
	defer u.line.mu.Unlock()
	u.moving = append(u.moving, moving{t, address, f, value})
	return u
}

// Identify gives the unit objects of its device identification (function 43/14): 0 is the vendor's
// name, 1 the product code, 2 the revision.
func (u *ModbusUnit) Identify(object byte, text string) *ModbusUnit {
	u.line.mu.Lock()
	defer u.line.mu.Unlock()
	u.objects[object] = text
	return u
}

// Limit lets the unit refuse, with exception 3, requests for more than n registers.
func (u *ModbusUnit) Limit(n int) *ModbusUnit {
	u.line.mu.Lock()
	defer u.line.mu.Unlock()
	u.maxRegisters = n
	return u
}

// Fault lets the unit misbehave at its next requests, one after the other.
func (u *ModbusUnit) Fault(f ...ModbusFault) {
	u.line.mu.Lock()
	defer u.line.mu.Unlock()
	u.faults = append(u.faults, f...)
}

// Always lets the unit misbehave at every request, nil: at none.
func (u *ModbusUnit) Always(f *ModbusFault) {
	u.line.mu.Lock()
	defer u.line.mu.Unlock()
	u.always = f
}

// Requests returns what the unit was asked since the last call of Requests.
func (u *ModbusUnit) Requests() []ModbusRequest {
	u.line.mu.Lock()
	defer u.line.mu.Unlock()
	r := u.requests
	u.requests = nil
	return r
}

// Count returns how many requests the unit has had.
func (u *ModbusUnit) Count() int {
	u.line.mu.Lock()
	defer u.line.mu.Unlock()
	return u.count
}

// maxRecorded bounds what Requests remembers.
const maxRecorded = 10000

// handle carries out a request. It returns no PDU where there is no answer to give.
func (m *Modbus) handle(unit byte, pdu []byte) ([]byte, ModbusFault) {
	m.mu.Lock()
	defer m.mu.Unlock()
	u := m.units[unit]
	if u == nil {
		return nil, ModbusFault{}
	}
	u.count++
	if len(u.requests) < maxRecorded {
		u.requests = append(u.requests, ModbusRequest{time.Now(), slices.Clone(pdu)})
	}
	var fault ModbusFault
	if u.always != nil {
		fault = *u.always
	}
	if len(u.faults) > 0 {
		fault, u.faults = u.faults[0], u.faults[1:]
	}
	switch {
	case fault.Silent, u.muted(pdu):
		return nil, fault
	case fault.Exception != 0:
		return []byte{pdu[0] | 0x80, fault.Exception}, fault
	}
	resp := u.answer(pdu, time.Since(m.start))
	if fault.WrongFunc != 0 {
		resp[0] = fault.WrongFunc
	}
	if n := min(fault.Short, len(resp)-2); n > 0 {
		resp = resp[:len(resp)-n]
		if resp[0] <= 4 {
			resp[1] -= byte(n)
		}
	}
	return resp, fault
}

var errPDU = errors.New("sim: malformed request")

// answer carries out one request on the unit's tables.
func (u *ModbusUnit) answer(pdu []byte, now time.Duration) []byte {
	for _, v := range u.moving {
		b := make([]byte, v.field.Size()+v.field.Size()%2)
		if v.field.Encode(b, adapters.FloatValue(v.value(now))) == nil {
			for i := 0; i < len(b); i += 2 {
				u.tables[v.table][v.address+uint16(i/2)] = binary.BigEndian.Uint16(b[i:])
			}
		}
	}
	resp, code := u.function(pdu)
	if code != 0 {
		return []byte{pdu[0] | 0x80, code}
	}
	return resp
}

// function returns the answer or an exception code.
func (u *ModbusUnit) function(pdu []byte) ([]byte, byte) {
	word := func(i int) uint16 { return binary.BigEndian.Uint16(pdu[i:]) }
	coils, holding := u.tables[Coils], u.tables[HoldingRegisters]
	switch pdu[0] {
	case 1, 2:
		return u.readBits(Table(pdu[0]-1), word(1), int(word(3)), pdu[0])
	case 3:
		return u.readRegisters(HoldingRegisters, word(1), int(word(3)), pdu[0])
	case 4:
		return u.readRegisters(InputRegisters, word(1), int(word(3)), pdu[0])
	case 5:
		if _, ok := coils[word(1)]; !ok {
			return nil, 2
		}
		coils[word(1)] = word(3) >> 15
		return slices.Clone(pdu), 0
	case 6:
		if _, ok := holding[word(1)]; !ok {
			return nil, 2
		}
		holding[word(1)] = word(3)
		return slices.Clone(pdu), 0
	case 15:
		for i := range word(3) {
			if _, ok := coils[word(1)+i]; !ok {
				return nil, 2
			}
			coils[word(1)+i] = uint16(pdu[6+i/8] >> (i % 8) & 1)
		}
		return slices.Clone(pdu[:5]), 0
	case 16:
		return slices.Clone(pdu[:5]), u.writeRegisters(word(1), pdu[6:])
	case 22:
		v, ok := holding[word(1)]
		if !ok {
			return nil, 2
		}
		holding[word(1)] = v&word(3) | word(5)&^word(3)
		return slices.Clone(pdu), 0
	case 23:
		if code := u.writeRegisters(word(5), pdu[10:]); code != 0 {
			return nil, code
		}
		return u.readRegisters(HoldingRegisters, word(1), int(word(3)), pdu[0])
	case 43:
		return u.identification(pdu)
	}
	return nil, 1
}

func (u *ModbusUnit) readBits(t Table, address uint16, n int, function byte) ([]byte, byte) {
	if n < 1 || n > 2000 || int(address)+n > 1<<16 {
		return nil, 3
	}
	resp := make([]byte, 2+(n+7)/8)
	resp[0], resp[1] = function, byte((n+7)/8)
	for i := range n {
		v, ok := u.tables[t][address+uint16(i)]
		if !ok {
			return nil, 2
		}
		resp[2+i/8] |= byte(v&1) << (i % 8)
	}
	return resp, 0
}

func (u *ModbusUnit) readRegisters(t Table, address uint16, n int, function byte) ([]byte, byte) {
	if n < 1 || n > u.maxRegisters || int(address)+n > 1<<16 {
		return nil, 3
	}
	resp := make([]byte, 2, 2+2*n)
	resp[0], resp[1] = function, byte(2*n)
	for i := range n {
		v, ok := u.tables[t][address+uint16(i)]
		if !ok {
			return nil, 2
		}
		resp = binary.BigEndian.AppendUint16(resp, v)
	}
	return resp, 0
}

func (u *ModbusUnit) writeRegisters(address uint16, data []byte) byte {
	for i := range uint16(len(data) / 2) {
		if _, ok := u.tables[HoldingRegisters][address+i]; !ok {
			return 2
		}
	}
	for i := range uint16(len(data) / 2) {
		u.tables[HoldingRegisters][address+i] = binary.BigEndian.Uint16(data[2*i:])
	}
	return 0
}

// identification answers Read Device Identification, each object in a frame of its own beyond the
// first two hundred bytes.
func (u *ModbusUnit) identification(pdu []byte) ([]byte, byte) {
	if pdu[1] != 14 || len(u.objects) == 0 {
		return nil, 1
	}
	resp := []byte{43, 14, pdu[2], 0x83, 0, 0, 0}
	ids := make([]byte, 0, len(u.objects))
	for id := range u.objects {
		if id >= pdu[3] && (pdu[2] > 1 || id < 3) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	for _, id := range ids {
		text := u.objects[id]
		if len(resp)+2+len(text) > 200 {
			resp[4], resp[5] = 0xff, id
			break
		}
		resp = append(append(resp, id, byte(len(text))), text...)
		resp[6]++
	}
	return resp, 0
}
