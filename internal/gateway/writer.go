package gateway

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"gateway/adapters"
	"gateway/buffer"
	"gateway/internal/ledger"
	"gateway/internal/sample"
)

// backlog is how many samples may wait for the writer: what 10,000 readings a second at 20 a sample
// bring in two seconds, which is longer than a disk may hesitate without something being wrong.
const backlog = 1024

// fairShare is how many of them may be one device's once half of the room is taken: a device that
// floods must not cost the others their samples.
const fairShare = backlog / 16

// A writer is the one that writes to the queue. Adapters hand it their samples without ever waiting
// for the disk; it gives each its predecessor, encodes it and appends it.
type writer struct {
	queue   appender
	decoder *sample.Decoder // of whoever will read the records
	boot    uint32          // that samples count their time in
	log     *slog.Logger

	// lost is told of every sample that could not be queued, and why.
	lost func(s *adapters.Sample, why string)
	// queued, if not nil, is told of every sample that was; it must not keep the readings.
	queued func(id buffer.ID, s *adapters.Sample)

	in   chan adapters.Sample
	held sync.Map // *adapters.Schema: *atomic.Int32, how many samples of it wait
	beat atomic.Uint64

	// What follows belongs to Run.
	schemas map[*adapters.Schema]*buffer.Dict
	last    map[string]uint64 // by device: sequence of its latest sample that was queued
	batch   []adapters.Sample // of different devices: each must know the sequence of the one before
	entries []buffer.Entry
	scratch []byte
}

// appender is the queue's writing end.
type appender interface {
	// AppendBatch appends all entries, with sequences that follow each other, or none.
	AppendBatch(entries []buffer.Entry) (first buffer.ID, err error)
}

func newWriter(queue appender, decoder *sample.Decoder, boot uint32, last map[string]uint64, log *slog.Logger) *writer {
	return &writer{
		queue: queue, decoder: decoder, boot: boot, last: last, log: log,
		lost:    func(*adapters.Sample, string) {},
		in:      make(chan adapters.Sample, backlog),
		schemas: map[*adapters.Schema]*buffer.Dict{},
	}
}

// Offer implements adapters.Sink: it never blocks.
func (w *writer) Offer(s adapters.Sample) bool {
	held := w.heldOf(s.Schema)
	if held.Load() < fairShare || len(w.in) <= backlog/2 {
		held.Add(1) // before it can be taken
		select {
		case w.in <- s:
			return true
		default:
			held.Add(-1)
		}
	}
	w.lost(&s, ledger.Overflow)
	return false
}

func (w *writer) heldOf(s *adapters.Schema) *atomic.Int32 {
	n, ok := w.held.Load(s)
	if !ok {
		n, _ = w.held.LoadOrStore(s, new(atomic.Int32))
	}
	return n.(*atomic.Int32)
}

// Beat counts the turns of the loop; one that is alive moves it at least every 5 s.
func (w *writer) Beat() uint64 { return w.beat.Load() }

// Run appends what is offered until ctx ends, and then what had been offered by then: whoever offers
// must have stopped before.
func (w *writer) Run(ctx context.Context) error {
	idle := time.NewTicker(5 * time.Second)
	defer idle.Stop()
	for {
		w.beat.Add(1)
		select {
		case s := <-w.in:
			w.take(s)
		case <-idle.C:
		case <-ctx.Done():
			select {
			case s := <-w.in:
				w.take(s)
			default:
				return nil
			}
		}
	}
}

// take appends a sample and what else is waiting, in as few writes as it takes.
func (w *writer) take(s adapters.Sample) {
	for {
		w.heldOf(s.Schema).Add(-1)
		if slices.ContainsFunc(w.batch, func(b adapters.Sample) bool { return b.Schema.Device == s.Schema.Device }) {
			w.flush()
		}
		w.batch = append(w.batch, s)
		if len(w.batch) == maxBatch {
			break
		}
		select {
		case s = <-w.in:
			continue
		default:
		}
		break
	}
	w.flush()
}

// maxBatch keeps the search for a device that occurs twice short.
const maxBatch = 64

func (w *writer) flush() {
	w.entries, w.scratch = w.entries[:0], w.scratch[:0]
	ends := [maxBatch]int{}
	for i := range w.batch {
		s := &w.batch[i]
		record := sample.Record{Sample: *s, Boot: w.boot}
		record.Prev, record.HasPrev = w.last[s.Schema.Device]
		w.scratch = sample.Append(w.scratch, &record)
		ends[i] = len(w.scratch)
	}
	start := 0
	for i := range w.batch {
		w.entries = append(w.entries, buffer.Entry{Data: w.scratch[start:ends[i]], Dict: w.dict(w.batch[i].Schema)})
		start = ends[i]
	}
	id, err := w.queue.AppendBatch(w.entries)
	var disk *buffer.DiskError
	if errors.As(err, &disk) && !disk.Refused {
		err = nil // in memory, and delivered from there; the queue has said so
	}
	if err != nil {
		w.log.Error("samples could not be queued", "err", err, "samples", len(w.batch))
	}
	for i := range w.batch {
		s := &w.batch[i]
		if err != nil {
			w.lost(s, ledger.Refused)
			continue
		}
		w.last[s.Schema.Device] = id.Seq
		if w.queued != nil {
			w.queued(id, s)
		}
		id.Seq++
	}
	clear(w.batch)
	w.batch = w.batch[:0]
}

func (w *writer) dict(s *adapters.Schema) *buffer.Dict {
	d := w.schemas[s]
	if d == nil {
		blob := w.decoder.Encode(s)
		d = &buffer.Dict{Hash: blob.Hash, Data: blob.Data}
		w.schemas[s] = d
	}
	return d
}
