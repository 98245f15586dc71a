package delivery

import (
	"time"

	"gateway/buffer"
)

// batchKey is what samples must share to share a message.
type batchKey struct {
	topic string
	lane  buffer.Lane
}

// A batch is samples that wait for company.
type batch struct {
	items []item
	bytes int
	due   time.Time
}

// gather adds an item to its batch and returns the parcel where that is full.
func (d *Destination) gather(k batchKey, it item, now time.Time) *parcel {
	b := d.batches[k]
	if b == nil {
		b = &batch{due: now.Add(d.o.BatchWait)}
		d.batches[k] = b
		if len(d.batches) == 1 || b.due.Before(d.firstDue) {
			d.firstDue = b.due
		}
	}
	b.items = append(b.items, it)
	b.bytes += len(it.data)
	d.batched++
	if len(b.items) >= d.o.BatchSamples || b.bytes >= d.o.BatchBytes {
		return d.closeBatch(k, b)
	}
	return nil
}

func (d *Destination) closeBatch(k batchKey, b *batch) *parcel {
	delete(d.batches, k)
	d.batched -= len(b.items)
	p := d.parcel()
	p.items = b.items
	return d.build(p)
}

// dueBatch returns the parcel of a batch that has waited long enough, or with any of one that has not:
// the oldest one.
func (d *Destination) dueBatch(now time.Time, any bool) *parcel {
	for len(d.batches) > 0 && (any || !d.firstDue.After(now)) {
		var key batchKey
		var oldest *batch
		for k, b := range d.batches {
			if oldest == nil || b.due.Before(oldest.due) {
				key, oldest = k, b
			}
		}
		if d.firstDue = oldest.due; !any && d.firstDue.After(now) {
			return nil
		}
		if p := d.closeBatch(key, oldest); p != nil {
			return p
		}
	}
	return nil
}

func (d *Destination) untilBatch(now time.Time) time.Duration {
	if len(d.batches) == 0 {
		return maxPause
	}
	return min(maxPause, max(d.firstDue.Sub(now), time.Millisecond))
}
