package packet

import (
	"io"
	"math"
	"sync"

	"gateway/mqtt"
)

// Sizes of a Reader's buffer in bytes: what an idle connection holds, and what a busy one borrows.
const (
	smallBuffer = 512
	largeBuffer = 16 << 10
)

// A Pool lends large buffers to the Readers of busy connections. The zero Pool is ready for use.
type Pool struct{ p sync.Pool }

func (p *Pool) get() []byte {
	if p != nil {
		if b, ok := p.p.Get().(*[largeBuffer]byte); ok {
			return b[:]
		}
	}
	return new([largeBuffer]byte)[:]
}

func (p *Pool) put(b []byte) {
	if p != nil && cap(b) == largeBuffer {
		p.p.Put((*[largeBuffer]byte)(b[:largeBuffer]))
	}
}

// A Reader cuts a stream of bytes into frames. It holds a small buffer while little arrives, a
// large one from its Pool while much does, and more only while a packet larger than that arrives,
// at most twice what has arrived of it: an announced length allocates nothing. One goroutine reads.
type Reader struct {
	r      io.Reader
	pool   *Pool
	budget *Budget // of buf to come
	evict  func()  // ends the stream where another packet needs the budget more
	loan   *loan   // of buf as it is, where that is larger than those of the pool
	max    int
	buf    []byte
	start  int // of what was read and not yet returned
	end    int
	few    int // reads in a row that would have fitted the small buffer
	err    error
}

// NewReader returns a Reader that refuses packets of more than max bytes, fixed header included;
// max <= 0 is no limit but the protocol's. pool may be nil.
func NewReader(r io.Reader, max int, pool *Pool) *Reader {
	rd := &Reader{r: r, pool: pool}
	rd.Limit(max, nil, nil)
	return rd
}

// Limit changes the limit on the size of packets to come, and the budget that they are of. evict is called, perhaps by
// another Reader's goroutine, when a packet has to make room for others: it ends the stream, and does not wait.
func (r *Reader) Limit(max int, of *Budget, evict func()) {
	if max <= 0 || max > maxRemaining+5 {
		max = maxRemaining + 5
	}
	r.max, r.budget, r.evict = max, of, evict
}

// Ready tells whether a whole packet, or a bad one, is there already: the next call of Next will not
// wait.
func (r *Reader) Ready() bool {
	_, size, err := r.length()
	return err != nil || size > 0 && size <= r.end-r.start
}

// Close gives the buffer back. The Reader and the frame returned last must not be used any more.
func (r *Reader) Close() {
	r.release()
	r.buf, r.start, r.end, r.err = nil, 0, 0, io.ErrClosedPipe
}

// length returns the length of the fixed header and of the whole packet at r.start; 0 while too
// little of it is there. A packet that must be refused is an error.
func (r *Reader) length() (head, size int, err error) {
	b := r.buf[r.start:r.end]
	if len(b) > 0 && Type(b[0]>>4) == 0 {
		return 0, 0, &Error{Code: mqtt.MalformedPacket, Detail: "control packet type is reserved"}
	}
	if len(b) < 2 {
		return 0, 0, nil
	}
	n, shift := 0, 0
	for i := 1; i < len(b); i++ {
		n |= int(b[i]&0x7f) << shift
		if b[i] < 0x80 {
			if b[i] == 0 && i > 1 {
				return 0, 0, &Error{Code: mqtt.MalformedPacket, Type: Type(b[0] >> 4), Statement: "MQTT-1.5.5-1", Detail: "remaining length is longer than needed"}
			}
			head, size = i+1, i+1+n
			if size > r.max {
				return 0, 0, &Error{Code: mqtt.PacketTooLarge, Type: Type(b[0] >> 4), Statement: "MQTT-3.1.2-24", Detail: "packet is larger than the maximum"}
			}
			return head, size, nil
		}
		if i == 4 {
			return 0, 0, &Error{Code: mqtt.MalformedPacket, Type: Type(b[0] >> 4), Statement: "MQTT-1.5.5-1", Detail: "remaining length has more than four bytes"}
		}
		shift += 7
	}
	return 0, 0, nil
}

// Next returns the next frame; its body is valid until the next call. At the end of the stream it
// returns io.EOF, within a packet io.ErrUnexpectedEOF. *Error says that the stream is not MQTT, that
// the packet is too large or that the budget is used up; the type in it is the one announced.
func (r *Reader) Next() (Frame, error) {
	for {
		head, size, err := r.length()
		if err != nil {
			return Frame{}, err
		}
		if size > 0 && size <= r.end-r.start {
			b := r.buf[r.start : r.start+size : r.start+size]
			r.start += size
			if r.loan != nil {
				r.loan.got.Store(math.MaxInt64) // it is whole, and makes no room until it is handled
			}
			return Frame{Type: Type(b[0] >> 4), Flags: b[0] & 0x0f, Body: b[head:]}, nil
		}
		if r.err != nil {
			if r.err == io.EOF && r.end > r.start {
				return Frame{}, io.ErrUnexpectedEOF
			}
			return Frame{}, r.err
		}
		if err := r.room(size); err != nil {
			return Frame{}, err
		}
		n, err := r.r.Read(r.buf[r.end:])
		r.end += n
		r.err = err
		if r.loan != nil {
			r.loan.got.Store(int64(r.end - r.start))
		}
		if n < smallBuffer/2 {
			r.few++
		} else {
			r.few = 0
		}
	}
}

// room makes room for a read, for a packet of size bytes where that is known. It is called only when no
// whole packet is in the buffer.
func (r *Reader) room(size int) error {
	have := r.end - r.start
	switch {
	case have == 0 && r.few > 16 && len(r.buf) > smallBuffer,
		have == 0 && len(r.buf) > largeBuffer:
		// Quiet again, or done with a huge packet.
		r.swap(make([]byte, smallBuffer))
	case r.buf == nil:
		r.buf = make([]byte, smallBuffer)
	case have == 0:
		r.start, r.end = 0, 0
		if len(r.buf) < largeBuffer && r.few == 0 {
			r.swap(r.pool.get())
		}
	case r.end < len(r.buf) && size <= len(r.buf)-r.start:
		// The rest fits behind.
	case len(r.buf) < largeBuffer:
		r.swap(r.pool.get())
	case have < len(r.buf):
		copy(r.buf, r.buf[r.start:r.end])
		r.start, r.end = 0, have
	default:
		// Full with one packet: at most double, and not beyond its end.
		n := min(2*len(r.buf), size)
		l := r.loan
		if l == nil {
			l = r.budget.lend(have, r.evict)
		}
		if !l.take(n) {
			l.over()
			return &Error{Code: mqtt.QuotaExceeded, Type: Type(r.buf[r.start] >> 4), Detail: "too many large packets are arriving"}
		}
		old := len(r.buf)
		if r.loan == nil {
			old = 0 // it is the pool's
		}
		r.loan = nil // it goes on
		r.swap(make([]byte, n))
		r.loan = l
		l.give(old)
	}
	return nil
}

// swap moves what is in the buffer to another one, which is larger than that.
func (r *Reader) swap(b []byte) {
	n := copy(b, r.buf[r.start:r.end])
	r.release()
	r.buf, r.start, r.end, r.few = b, 0, n, 0
}

// release gives the buffer back to where it came from.
func (r *Reader) release() {
	r.pool.put(r.buf)
	r.loan.over()
	r.loan = nil
}
