package install

import (
	"encoding/binary"
	"encoding/json"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"gateway/e2e/rig"
)

// This program goes on where an earlier one was killed. Everything that was not acknowledged is
// delivered, in order, with the times at which it was read, and little of what was; what had been set
// aside can be sent again, the account goes on, and the local broker has its session and its messages.
func TestAKeptDataDirectoryIsGoneOnWith(t *testing.T) {
	if *keep != "" {
		makeKept(t, *keep)
	}
	for _, file := range allKept(t) {
		t.Run(filepath.Base(file), func(t *testing.T) {
			data, k := unpack(t, file)
			if n := letters(t, data); n == 0 || n != k.Letters {
				t.Errorf("%d samples were set aside, %d are found", k.Letters, n)
			}
			run(t, rig.Binary(t), "queue", "retry", "--data", data)
			upstream := rig.NewMosquitto(t, "")
			sub := upstream.Subscribe(t, "second", "kept/counter", "kept/secret", "kept/gateway/account")
			local := rig.FreePort(t)
			g := rig.Gateway(t, settings(data, upstream.URL(), local))

			sub.Await(t, rig.Patience, "the last sample", func(lines []string) bool {
				return slices.ContainsFunc(rig.Samples(t, lines, "kept/counter"), func(s rig.Sample) bool { return s.Seq == k.Last })
			})
			got := rig.Samples(t, sub.Lines(), "kept/counter")
			// A kill -9 forgets acknowledgements of the last seconds: at most the cursor's 5 s at 20 a second.
			if first := got[0]; first.Seq > k.Delivered && (first.Prev == nil || *first.Prev != k.Delivered) || first.Seq+200 < k.Delivered {
				t.Errorf("the first is %d after %v; %d was delivered before", first.Seq, first.Prev, k.Delivered)
			}
			for i, s := range got {
				if s.Clock != "" || s.Time.After(k.Until) || s.Time.Before(k.Until.Add(-time.Hour)) {
					t.Errorf("%d was read at %v (%s); the directory was left at %v", s.Seq, s.Time, s.Clock, k.Until)
				}
				if i == 0 {
					continue
				}
				before := got[i-1]
				if s.Prev == nil || *s.Prev != before.Seq {
					t.Errorf("after %d came %d, which says that %v was before it", before.Seq, s.Seq, s.Prev)
				}
				was, _ := before.Values["tenths"].(float64)
				if now, ok := s.Values["tenths"].(float64); !ok || now < was {
					t.Errorf("after %v tenths came %v", was, s.Values["tenths"])
				}
			}

			rig.Eventually(t, rig.Patience, "everything that was set aside, sent again", func() bool {
				return letters(t, data) == 0 && len(rig.Samples(t, sub.Lines(), "kept/secret")) >= k.Letters
			})
			sub.Await(t, rig.Patience, "an account that goes on", func(lines []string) bool {
				for _, l := range lines {
					payload, ok := strings.CutPrefix(l, "kept/gateway/account ")
					var account struct {
						Destinations map[string]struct{ Lost map[string]int }
					}
					if ok && json.Unmarshal([]byte(payload), &account) == nil && account.Destinations["cloud"].Lost["set aside"] > 0 {
						return true
					}
				}
				return false
			})
			sleeper := rig.SubscribeTo(t, local, "sleeper", "keepsake")
			sleeper.Await(t, rig.Patience, "the message that waited for its session", rig.HasLine("late for the sleeper"))
			sleeper.Await(t, rig.Patience, "the retained message", rig.HasLine("keepsake kept"))
			if code := g.Stop(t, rig.Patience); code != 0 {
				t.Errorf("it ended with %d: %s", code, g.Stderr())
			}
		})
	}
}

// A queue that a newer program wrote is refused, with words that say so, and nothing in the data
// directory is touched, not even what this program could read.
func TestANewerQueueIsRefusedAndLeftUntouched(t *testing.T) {
	data, _ := unpack(t, allKept(t)[0])
	segments, err := filepath.Glob(filepath.Join(data, "queue", "*[0-9a-f].seg"))
	if err != nil || len(segments) == 0 {
		t.Fatalf("segments: %v, %v", segments, err)
	}
	// What a later format would begin with: the same magic, another version, a header that is intact.
	newest := segments[len(segments)-1]
	b, err := os.ReadFile(newest)
	if err != nil {
		t.Fatal(err)
	}
	header := b[:64]
	binary.LittleEndian.PutUint32(header[8:], binary.LittleEndian.Uint32(header[8:])+1)
	table := crc32.MakeTable(crc32.Castagnoli)
	binary.LittleEndian.PutUint32(header[12:], crc32.Update(crc32.Checksum(header[:12], table), table, header[16:]))
	if err := os.WriteFile(newest, b, 0o600); err != nil {
		t.Fatal(err)
	}
	before := content(t, data)
	g := rig.Gateway(t, settings(data, "mqtt://127.0.0.1:1", rig.FreePort(t)))
	if code := g.Wait(t, rig.Patience); code != 78 {
		t.Errorf("it ended with %d, want 78: to start it again mends nothing", code)
	}
	if said := g.Stderr(); !strings.Contains(said, "version") || !strings.Contains(said, filepath.Base(newest)) {
		t.Errorf("it said:\n%s", said)
	}
	after := content(t, data)
	delete(after, "queue/lock") // whose it was
	delete(before, "queue/lock")
	for name, was := range before {
		if after[name] != was {
			t.Errorf("%s was changed", name)
		}
	}
	if len(after) != len(before) {
		t.Errorf("%d files before, %d after", len(before), len(after))
	}
}

// content returns the files below a directory.
func content(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := fs.WalkDir(os.DirFS(dir), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(filepath.Join(dir, path))
		files[path] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}
