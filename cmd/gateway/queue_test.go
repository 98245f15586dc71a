package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gateway/adapters"
	"gateway/buffer"
	"gateway/internal/sample"
)

// gatewayCommand runs one command line.
func gatewayCommand(t *testing.T, args ...string) (out, errs string, code int) {
	t.Helper()
	var o, e bytes.Buffer
	code = Main(t.Context(), streams{strings.NewReader(""), &o, &e}, args)
	return o.String(), e.String(), code
}

func TestQueueIsReadWhileItIsInUse(t *testing.T) {
	data := t.TempDir()
	dir := filepath.Join(data, "queue")
	q, err := buffer.Open(buffer.Options{Dir: dir, MaxBytes: 32 << 20, SyncWindow: 1e9})
	if err != nil {
		t.Fatal(err)
	}
	c, err := q.Consumer("cloud", buffer.Oldest())
	if err != nil {
		t.Fatal(err)
	}
	schema := &adapters.Schema{Bus: "meters", Device: "boiler", Points: []adapters.Point{{Name: "supply"}, {Name: "return"}, {Name: "count"}}}
	blob := sample.EncodeSchema(schema)
	for i := range 3 {
		r := sample.Record{Boot: 7, Prev: uint64(i), HasPrev: i > 0, Sample: adapters.Sample{
			Schema: schema, Time: adapters.Instant(i+1) * 1e9,
			Readings: []adapters.Reading{
				{Point: 0, Value: adapters.FloatValue(71.2)},
				{Point: 1, Quality: adapters.Bad, Reason: adapters.ReasonTimeout},
				{Point: 2, Value: adapters.UintValue(1<<63 + 1)},
			},
		}}
		id, err := q.Append(sample.Append(nil, &r), &buffer.Dict{Hash: blob.Hash, Data: blob.Data})
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			if _, _, err := c.TryNext(buffer.Live); err != nil {
				t.Fatal(err)
			}
			c.Ack(id)
		}
	}

	out, errs, code := gatewayCommand(t, "queue", "export", "--data", data, "--from", "2")
	want := `"seq":2,"prev":1,"bus":"meters","device":"boiler","clock":"unknown","boot":7,"uptime":2,"values":{"count":"9223372036854775809","supply":71.2},"bad":{"return":"timeout"}}`
	if code != 0 || strings.Count(out, "\n") != 2 || !strings.Contains(out, want) {
		t.Errorf("export: %d\n%s%s", code, out, errs)
	}
	if out, _, code := gatewayCommand(t, "queue", "export", "--data", data, "--device", "pump"); code != 0 || out != "" {
		t.Errorf("export of a device without samples: %d %s", code, out)
	}
	out, errs, code = gatewayCommand(t, "queue", "verify", "--data", data)
	if code != 0 || !strings.Contains(out, "1 segments, 3 samples") || !strings.Contains(out, "0 damaged") {
		t.Errorf("verify: %d\n%s%s", code, out, errs)
	}
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	out, errs, code = gatewayCommand(t, "queue", "ls", "--data", data)
	if code != 0 || !strings.Contains(out, "closed in good order") || !strings.Contains(out, "cloud     1       2        0         0") {
		t.Errorf("ls: %d\n%s%s", code, out, errs)
	}

	// One flipped bit in the second of three records is found, and only found: nothing is changed.
	segs, _ := filepath.Glob(filepath.Join(dir, "*.seg"))
	b, err := os.ReadFile(segs[0])
	if err != nil {
		t.Fatal(err)
	}
	b[bytes.LastIndex(b, []byte("supply"))+60] ^= 4
	if err := os.WriteFile(segs[0], b, 0o600); err != nil {
		t.Fatal(err)
	}
	out, _, code = gatewayCommand(t, "queue", "verify", "--data", data)
	if code != exitFailure || !strings.Contains(out, "1 records missing, 1 of them damaged") {
		t.Errorf("verify of a damaged queue: %d\n%s", code, out)
	}
}

func TestQueueCommandsSayWhatIsMissing(t *testing.T) {
	data := t.TempDir()
	for _, c := range queueCommands {
		_, sub, _ := strings.Cut(c.name, " ")
		if _, errs, code := gatewayCommand(t, "queue", sub, "--data", data); code != exitFailure || !strings.Contains(errs, "there is no queue in") {
			t.Errorf("%s: %d %s", c.name, code, errs)
		}
	}
	if out, _, code := gatewayCommand(t, "queue"); code != exitUsage || !strings.Contains(out, "Send those samples again") {
		t.Errorf("queue: %d %s", code, out)
	}
	if err := os.Mkdir(filepath.Join(data, "queue"), 0o700); err != nil {
		t.Fatal(err)
	}
	if out, _, code := gatewayCommand(t, "queue", "retry", "--data", data); code != exitOK || !strings.Contains(out, "no sample was set aside") {
		t.Errorf("retry: %d %s", code, out)
	}
}
