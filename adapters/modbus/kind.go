package modbus

import (
	"fmt"
	"strconv"
)

// Kind is which of the four tables of a device a point is in [AP 4.3].
type Kind uint8

const (
	Coil     Kind = iota // bits that can be written
	Discrete             // bits that cannot
	Input                // registers that cannot be written
	Holding              // registers that can
)

// kinds gives each table its name in configurations, the name of one element, the leading digit of
// the classic notation and the function code that reads it.
var kinds = [...]struct {
	name, element string
	digit         byte
	read          byte
}{
	Coil:     {"coil", "coil", '0', 1},
	Discrete: {"discrete", "discrete input", '1', 2},
	Input:    {"input", "input register", '3', 4},
	Holding:  {"holding", "holding register", '4', 3},
}

// String returns the name that configurations use: coil, discrete, input or holding.
func (k Kind) String() string { return kinds[k].name }

// Element returns what one of its elements is called in the specification.
func (k Kind) Element() string { return kinds[k].element }

// Bits tells whether the table holds bits and not registers.
func (k Kind) Bits() bool { return k <= Discrete }

// Writable tells whether the protocol can write into the table.
func (k Kind) Writable() bool { return k == Coil || k == Holding }

// limit is the most that the specification allows in one request [AP 6.1 to 6.4].
func (k Kind) limit() int {
	if k.Bits() {
		return 2000
	}
	return 125
}

// Notation returns the classic, 1-based notation of a 0-based address, in six digits where five do
// not reach: holding register 0 is 40001, 65535 is 465536.
func (k Kind) Notation(address uint16) string {
	width := 4
	if address >= 9999 {
		width = 5
	}
	return fmt.Sprintf("%c%0*d", kinds[k].digit, width, int(address)+1)
}

// ParseNotation reads the classic notation of an address: 40001 is holding register 0. It has five
// or six digits, of which the first names the table.
func ParseNotation(s string) (Kind, uint16, error) {
	if len(s) == 5 || len(s) == 6 {
		for k := range kinds {
			if s[0] != kinds[k].digit {
				continue
			}
			n, err := strconv.ParseUint(s[1:], 10, 32)
			if err != nil {
				break
			}
			if n < 1 || n > 65536 {
				return 0, 0, fmt.Errorf("modbus: address %s: what follows the first digit counts from 1 to 65536", s)
			}
			return Kind(k), uint16(n - 1), nil
		}
	}
	return 0, 0, fmt.Errorf("modbus: address %s is not of the form 40001: five or six digits, the first 0 (coil), 1 (discrete input), 3 (input register) or 4 (holding register)", s)
}
