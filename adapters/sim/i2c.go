package sim

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"sync"
	"time"

	periph "periph.io/x/conn/v3/i2c"
	"periph.io/x/conn/v3/physic"

	"gateway/adapters/i2c"
)

// An I2CChip models the registers of one chip: Tx is what the chip makes of one transaction, a
// write, then a read. A chip that does not acknowledge returns ErrNoAck.
type I2CChip interface {
	Tx(w, r []byte) error
}

// ErrNoAck is what a chip returns that does not acknowledge.
var ErrNoAck = errors.New("sim: no ack")

// An I2CBus is a bus with simulated chips, for periph's drivers and for ours. Its faults are those
// of the Linux bus. All methods may be called from any goroutine.
type I2CBus struct {
	name string

	mu    sync.Mutex
	chips map[uint16]I2CChip
	away  map[uint16]bool
	stuck bool
	gone  bool
}

var _ periph.BusCloser = (*I2CBus)(nil)

// NewI2CBus returns a bus with the chips at their addresses.
func NewI2CBus(name string, chips map[uint16]I2CChip) *I2CBus {
	return &I2CBus{name: name, chips: chips, away: map[uint16]bool{}}
}

// String returns the bus's name.
func (b *I2CBus) String() string { return b.name }

// Unplug takes the chip at addr off the bus until Return.
func (b *I2CBus) Unplug(addr uint16) { b.set(func() { b.away[addr] = true }) }

// Return puts the chip at addr back.
func (b *I2CBus) Return(addr uint16) { b.set(func() { delete(b.away, addr) }) }

// Stick holds a line of the bus, or lets it go: every transaction times out.
func (b *I2CBus) Stick(held bool) { b.set(func() { b.stuck = held }) }

// Vanish takes the whole bus away, as pulling out its USB adapter does, until Appear.
func (b *I2CBus) Vanish() { b.set(func() { b.gone = true }) }

// Appear puts the bus back.
func (b *I2CBus) Appear() { b.set(func() { b.gone = false }) }

// Open opens the bus, if it is there.
func (b *I2CBus) Open() (periph.BusCloser, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.gone {
		return nil, fmt.Errorf("sim: the bus %s is not there: %w", b.name, fs.ErrNotExist)
	}
	return b, nil
}

func (b *I2CBus) set(f func()) {
	b.mu.Lock()
	f()
	b.mu.Unlock()
}

// Tx carries out one transaction.
func (b *I2CBus) Tx(addr uint16, w, r []byte) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	chip, ok := b.find(addr)
	fault := i2c.FaultNoAck
	switch {
	case b.gone:
		fault = i2c.FaultGone
	case b.stuck:
		fault = i2c.FaultTimeout
	case ok && !b.away[addr]:
		err := chip.Tx(w, r)
		if err == nil {
			return nil
		}
		if !errors.Is(err, ErrNoAck) {
			fault = i2c.FaultOther
		}
	}
	return &i2c.TxError{Bus: b.name, Addr: addr, Fault: fault}
}

// find returns the chip that hears the address, on the bus itself or behind a multiplexer. Two chips
// at once talk over each other: nobody is understood.
func (b *I2CBus) find(addr uint16) (I2CChip, bool) {
	var all []I2CChip
	if chip, ok := b.chips[addr]; ok {
		all = append(all, chip)
	}
	for _, chip := range b.chips {
		if mux, ok := chip.(*TCA9548A); ok {
			all = append(all, mux.at(addr)...)
		}
	}
	if len(all) != 1 {
		return nil, false
	}
	return all[0], true
}

// Probe asks whether a chip acknowledges addr.
func (b *I2CBus) Probe(addr uint16, read bool) error {
	b.mu.Lock()
	_, there := b.find(addr)
	there = there && !b.away[addr] && !b.stuck && !b.gone
	b.mu.Unlock()
	switch {
	case read:
		return b.Tx(addr, nil, make([]byte, 1))
	case !there:
		return b.Tx(addr, nil, nil)
	}
	return nil
}

// SetSpeed does nothing: simulated chips follow any clock.
func (b *I2CBus) SetSpeed(physic.Frequency) error { return nil }

// Close does nothing, so that the bus can be opened again.
func (b *I2CBus) Close() error { return nil }

// A Wave is a value that moves plausibly: a slow swing about a mean, with a faster and smaller one
// upon it. It is a function of time, so it needs no state and repeats exactly.
type Wave struct {
	Mean, Swing float64
	Period      time.Duration
}

// At returns the value after t.
func (w Wave) At(t time.Duration) float64 {
	x := 2 * math.Pi * float64(t) / float64(w.Period)
	return w.Mean + w.Swing*(0.9*math.Sin(x)+0.1*math.Sin(17.3*x+1))
}

// registers is a register file with a pointer that advances with each byte, as most chips have it.
type registers struct {
	mem     [256]byte
	pointer byte
}

// tx writes w, its first byte being the pointer, and reads r; write is told of each byte written.
func (m *registers) tx(w, r []byte, write func(reg, v byte)) {
	if len(w) > 0 {
		m.pointer = w[0]
		for _, v := range w[1:] {
			m.mem[m.pointer] = v
			if write != nil {
				write(m.pointer, v)
			}
			m.pointer++
		}
	}
	for i := range r {
		r[i] = m.mem[m.pointer]
		m.pointer++
	}
}
