package modbus

import (
	"cmp"
	"slices"
)

// An item is a run of registers or bits that is needed as a whole: those of a point, or the scale
// factor of some.
type item struct {
	kind    Kind
	address uint16
	count   int
	cell    int // items of different cells are never asked for together
}

func (i *item) end() int { return int(i.address) + i.count }

// bytes is what it takes to keep the item's answer: a bit has a byte of its own.
func (i *item) bytes() int {
	if i.kind.Bits() {
		return 1
	}
	return 2 * i.count
}

// A block is one read request, and the items that it gives.
type block struct {
	kind    Kind
	address uint16
	count   int
	items   []int
}

// limits are what one request to a device may ask for.
type limits struct {
	registers, bits int // at most as many
	hole            int // registers that nobody needs, read along to save a request; 16 bits for each
	avoid           func(k Kind, from, to int) bool
}

func (l *limits) of(k Kind) (count, hole int) {
	if k.Bits() {
		return l.bits, 16 * l.hole
	}
	return l.registers, l.hole
}

// plan covers the items numbered in want with the fewest blocks that keep the limits. Taking each
// block as far as it reaches, from the lowest address on, is optimal: a block must begin somewhere
// at or before the first item not yet covered, and none that begins there reaches further.
func plan(items []item, want []int, lim limits) []block {
	order := slices.Clone(want)
	slices.SortFunc(order, func(a, b int) int {
		x, y := &items[a], &items[b]
		return cmp.Or(cmp.Compare(x.cell, y.cell), cmp.Compare(x.kind, y.kind),
			cmp.Compare(x.address, y.address), cmp.Compare(x.count, y.count), cmp.Compare(a, b))
	})
	var blocks []block
	cell, end := 0, 0
	for _, n := range order {
		it := &items[n]
		most, hole := lim.of(it.kind)
		if len(blocks) > 0 {
			b := &blocks[len(blocks)-1]
			start := int(b.address)
			joined := max(end, it.end())
			if b.kind == it.kind && cell == it.cell && joined-start <= most && int(it.address)-end <= hole &&
				(int(it.address) <= end || lim.avoid == nil || !lim.avoid(it.kind, end, int(it.address))) {
				b.items = append(b.items, n)
				b.count = joined - start
				end = joined
				continue
			}
		}
		blocks = append(blocks, block{it.kind, it.address, it.count, []int{n}})
		cell, end = it.cell, it.end()
	}
	return blocks
}
