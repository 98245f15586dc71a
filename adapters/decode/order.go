package decode

import (
	"fmt"
	"strings"

	"gateway/adapters/hint"
)

// An Order says how a device arranges the bytes of a number that is wider than one byte. It is a set
// of exchanges, applied to the plain big-endian arrangement; zero is big-endian. The letters name
// the bytes from the most significant, in the order in which they come over the wire.
type Order uint8

// The exchanges.
const (
	SwapBytes  Order = 1 << iota // within each 16-bit word
	SwapWords                    // within each 32-bit half
	SwapHalves                   // of 64 bits
)

// The orders that devices use for numbers of any width.
const (
	BigEndian    Order = 0                                  // AB, ABCD, ABCDEFGH
	LittleEndian       = SwapBytes | SwapWords | SwapHalves // BA, DCBA, HGFEDCBA
	WordsSwapped       = SwapWords | SwapHalves             // AB, CDAB, GHEFCDAB
	BytesSwapped       = SwapBytes                          // BA, BADC, BADCFEHG
)

// orders has every name of each order; the first is the one shown.
var orders = []struct {
	order Order
	names []string
}{
	{BigEndian, []string{"ABCD", "AB", "ABC", "ABCDEF", "ABCDEFGH", "big"}},
	{LittleEndian, []string{"DCBA", "BA", "CBA", "FEDCBA", "HGFEDCBA", "little"}},
	{WordsSwapped, []string{"CDAB", "EFCDAB", "GHEFCDAB"}},
	{BytesSwapped, []string{"BADC", "BADCFE", "BADCFEHG"}},
	{SwapWords, []string{"CDABGHEF"}},
	{SwapWords | SwapBytes, []string{"DCBAHGFE"}},
	{SwapHalves, []string{"EFGHABCD"}},
	{SwapHalves | SwapBytes, []string{"FEHGBADC"}},
}

// ParseOrder reads an order: letters for the bytes as they come over the wire (ABCD, CDAB, BADC, DCBA,
// or those of 16, 24, 48 or 64 bits), or big or little. An order given for one width holds for the
// others: CDAB is GHEFCDAB for 64 bits and AB for 16.
func ParseOrder(name string) (Order, error) {
	var names []string
	for _, o := range orders {
		for _, n := range o.names {
			if strings.EqualFold(n, name) {
				return o.order, nil
			}
			names = append(names, n)
		}
	}
	if near := hint.DidYouMean(name, names); near != "" {
		return 0, fmt.Errorf("decode: no byte order %q%s", name, near)
	}
	return 0, fmt.Errorf("decode: no byte order %q; there are ABCD, CDAB, BADC, DCBA and those of 64 bits", name)
}

func (o Order) String() string {
	for _, known := range orders {
		if known.order == o {
			return known.names[0]
		}
	}
	return "invalid"
}

// index returns which byte of n big-endian ones the wire carries at place i.
func (o Order) index(i, n int) int {
	if n%2 != 0 { // odd widths know only big and little
		if o == LittleEndian {
			return n - 1 - i
		}
		return i
	}
	if o&SwapBytes != 0 {
		i ^= 1
	}
	switch {
	case n == 8:
		if o&SwapWords != 0 {
			i ^= 2
		}
		if o&SwapHalves != 0 {
			i ^= 4
		}
	case n == 4:
		if o&SwapWords != 0 {
			i ^= 2
		}
	case n == 6 && o&SwapWords != 0 && o&SwapHalves != 0:
		i = 4 - i&^1 | i&1
	}
	return i
}

// load returns the number in b, at most eight bytes in order o.
func (o Order) load(b []byte) uint64 {
	var v uint64
	if o == BigEndian {
		for _, c := range b {
			v = v<<8 | uint64(c)
		}
		return v
	}
	for i, c := range b {
		v |= uint64(c) << (8 * (len(b) - 1 - o.index(i, len(b))))
	}
	return v
}

// store is the reverse of load.
func (o Order) store(b []byte, v uint64) {
	for i := range b {
		b[i] = byte(v >> (8 * (len(b) - 1 - o.index(i, len(b)))))
	}
}
