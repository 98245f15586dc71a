package i2c

import (
	"fmt"
	"slices"

	periph "periph.io/x/conn/v3/i2c"
)

// A Mux is a channel of a TCA9548A or PCA9548A (or of the smaller PCA9546A, TCA9545A) multiplexer
// that a device sits behind.
type Mux struct {
	Address uint16 // 0x70 to 0x77
	Channel int    // 0 to 7
}

func (m Mux) check() error {
	if m.Address < 0x70 || m.Address > 0x77 {
		return fmt.Errorf("multiplexer address 0x%02x: a TCA9548A has 0x70 to 0x77", m.Address)
	}
	if m.Channel < 0 || m.Channel > 7 {
		return fmt.Errorf("multiplexer channel %d: a TCA9548A has 0 to 7", m.Channel)
	}
	return nil
}

// muxState is which channel is known to be open. At most one is, of all multiplexers of the bus.
type muxState struct {
	open *Mux     // nil: none is known to be
	used []uint16 // multiplexers that may have channels open
}

// choose opens the channel m alone. A channel stays open when a device of the trunk is addressed:
// checkAddresses has seen to it that no device behind a channel has the address of one on the trunk.
func (s *muxState) choose(port periph.Bus, m *Mux) error {
	if m == nil || s.open != nil && *s.open == *m {
		return nil
	}
	for len(s.used) > 0 {
		last := len(s.used) - 1
		if other := s.used[last]; other != m.Address {
			// One that does not answer has no power, and no channel open.
			if err := port.Tx(other, []byte{0}, nil); err != nil && !nacked(err) {
				return fmt.Errorf("closing the channels of multiplexer 0x%02x: %w", other, err)
			}
		}
		s.used = s.used[:last]
	}
	s.used = append(s.used, m.Address)
	// TCA9548A datasheet (SCPS207), 8.6.2: the control register has a bit for each channel.
	if err := port.Tx(m.Address, []byte{1 << m.Channel}, nil); err != nil {
		return fmt.Errorf("opening channel %d of multiplexer 0x%02x: %w", m.Channel, m.Address, err)
	}
	s.open = m
	return nil
}

func ofAddress(format string, args ...any) error {
	return ofDevice("address", fmt.Errorf(format, args...))
}

// checkAddresses finds devices that would answer at once to the same address.
func checkAddresses(devices []Device) (errs []error) {
	type key struct {
		mux  Mux
		addr uint16
	}
	seen := map[key]string{}
	trunk := map[uint16]string{}
	for i := range devices {
		d := &devices[i]
		if d.Mux != nil {
			trunk[d.Mux.Address] = "a multiplexer"
		}
	}
	for i := range devices {
		if d := &devices[i]; d.Mux == nil {
			if other, taken := trunk[d.address()]; taken {
				errs = append(errs, &DeviceError{i, d.Name, ofAddress("address 0x%02x is %s's already", d.address(), other)})
			}
			trunk[d.address()] = fmt.Sprintf("%q", d.Name)
		}
	}
	for i := range devices {
		d := &devices[i]
		if d.Mux == nil {
			continue
		}
		k := key{*d.Mux, d.address()}
		if other, taken := trunk[k.addr]; taken {
			errs = append(errs, &DeviceError{i, d.Name, ofAddress("address 0x%02x is %s's on the bus itself, which is heard behind the multiplexer too", k.addr, other)})
		} else if other, taken := seen[k]; taken {
			errs = append(errs, &DeviceError{i, d.Name, ofAddress("address 0x%02x on channel %d of multiplexer 0x%02x is %q's already", k.addr, k.mux.Channel, k.mux.Address, other)})
		}
		seen[k] = d.Name
	}
	return slices.Clip(errs)
}
