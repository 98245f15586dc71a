package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"text/tabwriter"
	"time"

	"gateway/adapters"
	"gateway/buffer"
	"gateway/config"
	"gateway/internal/clock"
	"gateway/internal/sample"
)

var queueCommand = command{
	name:    "queue",
	usage:   "ls|verify|export|letters|retry [flags]",
	summary: "Look into the queue, check every byte of it, take its samples out, send again what was refused.",
	run:     runQueue,
}

// ls, verify, export and letters only read: they may run beside the gateway.
var queueCommands = []command{
	{name: "queue ls", usage: "[--config FILE | --data DIR]", summary: "List the queue's segments and consumers, and what waits for each.", run: queueLs},
	{name: "queue verify", usage: "[--config FILE | --data DIR]", summary: "Read every frame of the queue and every sample in it, and count what is damaged.", run: queueVerify},
	{name: "queue export", usage: "[--config FILE | --data DIR] [--device NAME] [--from SEQ]", summary: "Write the queue's samples as JSON, one a line.", run: queueExport},
	{name: "queue letters", usage: "[--config FILE | --data DIR] [DESTINATION...]", summary: "List the samples that a broker refused and that were set aside.", run: queueLetters},
	{name: "queue retry", usage: "[--config FILE | --data DIR] [DESTINATION...]", summary: "Send those samples again.", run: queueRetry},
}

func runQueue(ctx context.Context, c call) error { return c.dispatch(ctx, queueCommands) }

// queueFlags are what the reading commands share.
type queueFlags struct {
	call
	f            *flag.FlagSet
	config, data string
}

func newQueueFlags(c call, notes string) *queueFlags {
	q := &queueFlags{call: c, f: c.flags(notes)}
	q.f.StringVar(&q.config, "config", defaultConfig, "the configuration `file`, which names the data directory")
	q.f.StringVar(&q.data, "data", "", "the data `directory`")
	return q
}

// open parses the flags and looks at the queue.
func (q *queueFlags) open() (*buffer.View, error) {
	dir, err := q.dir(0)
	if err != nil {
		return nil, err
	}
	return buffer.Look(dir, nil)
}

// dir parses the flags, with at most some arguments, finds the data directory and returns the queue's.
func (q *queueFlags) dir(arguments int) (string, error) {
	if err := q.parse(q.f, 0, arguments); err != nil {
		return "", err
	}
	if q.data == "" {
		cfg, problems := config.Load(q.config) // of which only the directory counts: warnings about the rest are no news here
		if problems.Failed() {
			fmt.Fprint(q.err, problems)
			return "", &exitError{exitConfig, nil}
		}
		q.data = cfg.Gateway.Data
	}
	dir := filepath.Join(q.data, "queue")
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("there is no queue in %s: has a gateway run with this data directory?", dir)
	}
	return dir, nil
}

func queueLs(_ context.Context, c call) error {
	q := newQueueFlags(c, `
Depths count from what was saved last, which is up to five seconds ago while the gateway runs. What
segments hold is as their headers say: 'gateway queue verify' reads every record.`)
	v, err := q.open()
	if err != nil {
		return err
	}
	st := v.Stats()
	fmt.Fprintf(c.out, "%d segments and %d spares, %v; %d in quarantine\n", st.Segments, st.Spares, config.Size(st.Bytes), st.Quarantined)
	switch {
	case !st.CursorsRead && st.Segments > 0:
		fmt.Fprintln(c.out, "the cursors are not readable: every consumer will start at the oldest record")
	case st.Closed:
		fmt.Fprintln(c.out, "closed in good order")
	case st.CursorsRead:
		fmt.Fprintln(c.out, "in use, or not closed in good order")
	}
	w := tabwriter.NewWriter(c.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "\nconsumer\tcursor\twaiting\tbackfill\tlost")
	for _, s := range st.Consumers {
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\n", s.Name, s.Cursor.Seq, s.Live, s.Backfill, s.Lost)
	}
	fmt.Fprintln(w, "\nsegment\tepoch\tfirst\tlast\trecords\tbytes")
	segments, err := v.Segments()
	if err != nil {
		return err
	}
	for _, s := range segments {
		if s.Unreadable {
			fmt.Fprintf(w, "%s\tno intact header\n", s.File)
			continue
		}
		last := "-"
		if s.Last.Seq > 0 {
			last = strconv.FormatUint(s.Last.Seq, 10)
		}
		fmt.Fprintf(w, "%s\t%016x\t%d\t%s\t%d\t%d\n", s.File, s.First.Epoch, s.First.Seq, last, s.Records, s.Size)
	}
	return w.Flush()
}

func queueVerify(_ context.Context, c call) error {
	q := newQueueFlags(c, `
Exit status: 0 everything that is there is intact; 1 something is not. Records that a power cut took
before they were synced are counted, but are no damage.`)
	v, err := q.open()
	if err != nil {
		return err
	}
	var dec sample.Decoder
	var total buffer.SegmentReport
	var r sample.Record
	undecodable, unreadable, segments := 0, 0, 0
	err = v.Walk(func(rec buffer.Record) error {
		if err := dec.Decode(rec.Data, rec.Dict, &r); err != nil {
			undecodable++
			fmt.Fprintf(c.out, "record %016x/%d: %v\n", rec.ID.Epoch, rec.ID.Seq, err)
		}
		return nil
	}, func(s buffer.SegmentReport) error {
		segments++
		if s.Unreadable {
			unreadable++
			fmt.Fprintf(c.out, "%s: no intact header\n", s.File)
		}
		if s.Missing > 0 {
			fmt.Fprintf(c.out, "%s: %d records missing, %d of them damaged\n", s.File, s.Missing, s.Damaged)
		}
		total.Records += s.Records
		total.Bytes += s.Bytes
		total.Missing += s.Missing
		total.Damaged += s.Damaged
		return nil
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(c.out, "%d segments, %d samples of %d bytes; %d missing, %d damaged, %d not decodable\n", segments, total.Records, total.Bytes, total.Missing, total.Damaged, undecodable)
	if total.Damaged > 0 || undecodable > 0 || unreadable > 0 {
		return &exitError{exitFailure, errors.New("the queue is damaged; the gateway steps over it and delivers the rest")}
	}
	return nil
}

// exported is a sample as export writes it.
type exported struct {
	Epoch  string            `json:"epoch"`
	Seq    uint64            `json:"seq"`
	Prev   uint64            `json:"prev,omitempty"`
	Bus    string            `json:"bus,omitempty"`
	Device string            `json:"device"`
	Time   string            `json:"time,omitempty"`
	Clock  string            `json:"clock,omitempty"` // "unsynced" or "unknown"
	Boot   uint32            `json:"boot"`
	Uptime float64           `json:"uptime"` // seconds of running time in that boot
	Values map[string]any    `json:"values,omitempty"`
	Stale  map[string]string `json:"stale,omitempty"`
	Bad    map[string]string `json:"bad,omitempty"`
}

func queueExport(ctx context.Context, c call) error {
	q := newQueueFlags(c, `
All that the queue has is written, delivered or not. What no longer can be decoded is left out and
counted on standard error.`)
	device := q.f.String("device", "", "only samples of this device `name`")
	from := q.f.Uint64("from", 0, "only from this `sequence` on")
	v, err := q.open()
	if err != nil {
		return err
	}
	times, err := clock.Read(q.data)
	if err != nil {
		fmt.Fprintln(c.err, "gateway:", err)
	}
	out := bufio.NewWriter(c.out)
	undecodable, err := exportSamples(ctx, out, v, times, *device, *from)
	if err == nil {
		err = out.Flush()
	}
	if err == nil && undecodable > 0 {
		err = fmt.Errorf("%d records could not be decoded: see 'gateway queue verify'", undecodable)
	}
	return err
}

func exportSamples(ctx context.Context, w io.Writer, v *buffer.View, times *clock.Clock, device string, from uint64) (undecodable int, err error) {
	var dec sample.Decoder
	var r sample.Record
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	err = v.Walk(func(rec buffer.Record) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if rec.ID.Seq < from {
			return nil
		}
		if err := dec.Decode(rec.Data, rec.Dict, &r); err != nil {
			undecodable++
			return nil
		}
		if s := r.Sample.Schema; device == "" || s.Device == device {
			return enc.Encode(exportOf(rec.ID, &r, times))
		}
		return nil
	}, nil)
	return undecodable, err
}

func exportOf(id buffer.ID, r *sample.Record, times *clock.Clock) exported {
	s := r.Sample.Schema
	e := exported{
		Epoch: fmt.Sprintf("%016x", id.Epoch), Seq: id.Seq, Prev: r.Prev, Bus: s.Bus, Device: s.Device,
		Boot: r.Boot, Uptime: time.Duration(r.Sample.Time).Seconds(),
		Values: map[string]any{}, Stale: map[string]string{}, Bad: map[string]string{},
	}
	wall, state := times.Wall(r.Boot, r.Sample.Time)
	switch state {
	case clock.Unknown:
		e.Clock = "unknown"
	case clock.Unsynced:
		e.Clock = "unsynced"
	}
	if state != clock.Unknown {
		e.Time = time.Unix(0, wall).UTC().Format("2006-01-02T15:04:05.000Z")
	}
	for _, rd := range r.Sample.Readings {
		name := s.Points[rd.Point].Name
		switch rd.Quality {
		case adapters.Bad:
			e.Bad[name] = string(rd.Reason)
			continue
		case adapters.Stale:
			e.Stale[name] = string(rd.Reason)
		}
		e.Values[name] = jsonValue(rd.Value)
	}
	return e
}

// jsonValue keeps numbers as they are; integers that a double cannot hold are strings.
func jsonValue(v adapters.Value) any {
	const exact = 1 << 53
	switch v.Kind() {
	case adapters.Bool:
		return v.Bool()
	case adapters.Int:
		if i := v.Int(); i >= -exact && i <= exact {
			return i
		}
		return v.String()
	case adapters.Uint:
		if u := v.Uint(); u <= exact {
			return u
		}
		return v.String()
	case adapters.Float:
		f, _ := v.Number()
		return f
	}
	return v.Str()
}
