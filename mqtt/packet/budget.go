package packet

import "sync/atomic"

// A Budget bounds what the Readers that share it hold together beyond the buffers of 16 KiB that each may have:
// packets larger than that while they arrive, each with its copy while it grows. A nil Budget is no bound.
type Budget struct{ left atomic.Int64 }

// NewBudget returns a Budget of so many bytes.
func NewBudget(bytes int64) *Budget {
	b := new(Budget)
	b.left.Store(bytes)
	return b
}

// take takes n bytes, where so many are left; a negative n gives them back.
func (b *Budget) take(n int) bool {
	if b == nil || n == 0 {
		return true
	}
	if b.left.Add(-int64(n)) < 0 && n > 0 {
		b.left.Add(int64(n))
		return false
	}
	return true
}
