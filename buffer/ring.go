package buffer

// A ring holds, in memory, the newest records: those not yet synced, so that they can be written
// anew when the disk fails, and delivered meanwhile. It grows up to its limit and then lets go of
// the oldest.
type ring struct {
	limit int // of buf, and of ents in turn
	buf   []byte
	write int // where the next record goes
	used  int // bytes of the records

	ents  []ringEntry // circular, a power of two
	head  int
	n     int
	first uint64 // sequence of ents[head]
}

type ringEntry struct {
	off, len int
	dict     *dictionary
}

func (r *ring) entry(i int) *ringEntry { return &r.ents[(r.head+i)&(len(r.ents)-1)] }

// get returns the record seq, valid until the next push.
func (r *ring) get(seq uint64) (data []byte, d *dictionary, ok bool) {
	if seq < r.first || seq-r.first >= uint64(r.n) {
		return nil, nil, false
	}
	e := r.entry(int(seq - r.first))
	return r.buf[e.off : e.off+e.len : e.off+e.len], e.dict, true
}

// pop forgets the oldest record.
func (r *ring) pop() {
	r.used -= r.entry(0).len
	r.entry(0).dict = nil
	r.head = (r.head + 1) & (len(r.ents) - 1)
	r.first++
	if r.n--; r.n == 0 {
		r.write = 0
	}
}

// trim forgets all up to seq.
func (r *ring) trim(seq uint64) {
	for r.n > 0 && r.first <= seq {
		r.pop()
	}
}

const ringEntryLen = 24

// most is how many records there may be at once: even empty ones take memory.
func (r *ring) most() int { return max(1, r.limit/ringEntryLen) }

// takes tells whether records of total bytes can be pushed without any having to go.
func (r *ring) takes(records, total int) bool {
	switch {
	case r.n+records > r.most():
		return false
	case r.n == 0 || len(r.buf) < r.limit: // growing packs
		return r.used+total <= r.limit
	case r.write < r.entry(0).off:
		return total < r.entry(0).off-r.write
	}
	return total <= len(r.buf)-r.write || total < r.entry(0).off
}

// room finds n contiguous bytes.
func (r *ring) room(n int) (int, bool) {
	if r.n == 0 {
		return 0, n <= len(r.buf)
	}
	oldest := r.entry(0).off
	if r.write >= oldest { // not wrapped: a wrapped one always leaves a byte between
		if n <= len(r.buf)-r.write {
			return r.write, true
		}
		return 0, n < oldest
	}
	return r.write, n < oldest-r.write
}

// grow makes the buffer at least twice as large, within the limit, and packs it.
func (r *ring) grow(n int) bool {
	size := max(16<<10, 2*len(r.buf))
	for size < n {
		size *= 2
	}
	// A single record larger than the limit is kept all the same: there must be one place for it.
	size = min(size, max(r.limit, n))
	if size <= len(r.buf) {
		return false
	}
	buf := make([]byte, size)
	w := 0
	for i := range r.n {
		e := r.entry(i)
		copy(buf[w:], r.buf[e.off:e.off+e.len])
		e.off = w
		w += e.len
	}
	r.buf, r.write = buf, w
	return true
}

// push keeps a copy of the record seq, which follows the last one, and returns how many of the
// oldest had to go.
func (r *ring) push(seq uint64, data []byte, d *dictionary) (evicted int) {
	if r.n >= r.most() {
		r.pop()
		evicted++
	}
	off, ok := r.room(len(data))
	for !ok {
		if !r.grow(len(data)) {
			r.pop()
			evicted++
		}
		off, ok = r.room(len(data))
	}
	if r.n == len(r.ents) {
		ents := make([]ringEntry, max(64, 2*r.n))
		for i := range r.n {
			ents[i] = *r.entry(i)
		}
		r.ents, r.head = ents, 0
	}
	if r.n == 0 {
		r.first = seq
	}
	r.n++
	*r.entry(r.n - 1) = ringEntry{off, len(data), d}
	copy(r.buf[off:], data)
	r.used += len(data)
	r.write = off + len(data)
	return evicted
}
