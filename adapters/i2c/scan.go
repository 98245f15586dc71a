package i2c

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	periph "periph.io/x/conn/v3/i2c"

	"gateway/adapters"
)

// First and Last bound the addresses that a chip may have; the others are reserved.
const (
	First = 0x08
	Last  = 0x77
)

// A Prober is a bus that can ask whether somebody acknowledges an address without telling him
// anything. The Linux bus is one.
type Prober interface {
	// Probe sends the address: to read one byte with read set, else to write nothing.
	Probe(addr uint16, read bool) error
}

// ErrClaimed says that a driver of the kernel has the address; it wraps nothing.
var ErrClaimed = errors.New("i2c: claimed by a driver of the kernel")

// Found is what a scan learned of one address.
type Found struct {
	Addr    uint16
	Claimed bool     // a driver of the kernel has it: it was not asked
	Sure    []string // the chips of the catalogue that it is by its id
	Maybe   []string // those that can have this address and were not asked, or have no id
	Mux     bool     // it may be a multiplexer
	Fault   error    // neither an answer nor a missing acknowledge
}

// IDs says how far a scan goes to learn what a chip is.
type IDs uint8

const (
	NoIDs       IDs = iota // by its address alone
	RegisterIDs            // reads id registers: a register's number is written, nothing into it
	CommandIDs             // sends chips without registers a command too; another chip at the same address might take it for a write
)

// Scan asks the addresses from first to last who is there, and calls each for every one, found or
// not; ok tells which. Addresses where EEPROMs and the like are, 0x30 to 0x37 and 0x50 to 0x5F, are
// asked to be read, the others to be written nothing, as i2cdetect does: an EEPROM takes a write for
// the start of one, and some chips hang when they are read unasked. Whoever answers and has an address
// of a chip of the catalogue is asked for that chip's id, as far as ids says.
func Scan(ctx context.Context, bus periph.Bus, first, last uint16, ids IDs, each func(f Found, ok bool)) error {
	prober, ok := bus.(Prober)
	if !ok {
		return fmt.Errorf("i2c: %s cannot be scanned", bus)
	}
	chips := Chips()
	for addr := first; addr <= last; addr++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		err := prober.Probe(addr, addr >= 0x30 && addr <= 0x37 || addr >= 0x50 && addr <= 0x5F)
		fault, _ := FaultOf(err)
		f := Found{Addr: addr}
		switch {
		case errors.Is(err, ErrClaimed):
			f.Claimed = true
		case err == nil:
		case fault == FaultNoAck, fault == FaultRemote, fault == FaultTimeout, fault == FaultOther:
			// Controllers that cannot tell an absent chip say input/output error or timeout.
			each(Found{Addr: addr, Fault: err}, false)
			continue
		default:
			return err
		}
		if f.Claimed {
			f.guess(bus, chips, NoIDs)
		} else {
			f.guess(bus, chips, ids)
		}
		each(f, true)
	}
	return nil
}

// guess fills in what the chip at the address may be.
func (f *Found) guess(bus periph.Bus, chips []Chip, ids IDs) {
	for _, chip := range chips {
		if !slices.Contains(chip.Addresses, f.Addr) {
			continue
		}
		if chip.identify == nil || ids == NoIDs || chip.command && ids != CommandIDs {
			f.Maybe = append(f.Maybe, chip.Name)
			continue
		}
		c := &conn{
			bus: bus, addr: f.Addr, pec: chip.pec,
			pause: func(d time.Duration) error { time.Sleep(d); return nil },
			clock: func() adapters.Instant { return 0 },
		}
		if sure, err := chip.identify(c); err == nil && sure {
			f.Sure = append(f.Sure, chip.Name)
		}
	}
	f.Mux = f.Addr >= 0x70 && len(f.Sure) == 0
}

// Choose opens the multiplexer's channel.
func (m Mux) Choose(bus periph.Bus) error {
	if err := m.check(); err != nil {
		return fmt.Errorf("i2c: %w", err)
	}
	return new(muxState).choose(bus, &m)
}

// findAdapter is FindAdapter among the given buses.
func findAdapter(name string, buses []string, nameOf func(path string) string) (string, error) {
	var found, have []string
	for _, path := range buses {
		adapter := nameOf(path)
		have = append(have, fmt.Sprintf("%s (%s)", path, adapter))
		if strings.Contains(strings.ToLower(adapter), strings.ToLower(name)) {
			found = append(found, path)
		}
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(have) == 0:
		return "", fmt.Errorf("i2c: no adapter %q: there is no I2C bus at all: %w", name, fs.ErrNotExist)
	case len(found) == 0:
		return "", fmt.Errorf("i2c: no adapter %q among %s: %w", name, strings.Join(have, ", "), fs.ErrNotExist)
	}
	return "", fmt.Errorf("i2c: adapter %q is not clear: it fits %s", name, strings.Join(found, " and "))
}
