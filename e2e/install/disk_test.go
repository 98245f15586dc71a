package install

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gateway/e2e/rig"
)

// A disk that takes nothing from the very first start on, because it is full or mounted read-only,
// keeps no reading from its destination; it says that none is durable. Once the disk takes them they
// are.
func TestAFirstStartOnADiskThatTakesNothing(t *testing.T) {
	for name, c := range map[string]struct{ options, block, mend string }{
		"full":      {"size=64M", "dd if=/dev/zero of=$DISK/fill bs=64k status=none || true", "rm $DISK/fill"},
		"read-only": {"size=64M,ro", "true", "mount -o remount,rw $DISK"},
	} {
		t.Run(name, func(t *testing.T) {
			disk := t.TempDir()
			sh := func(script string) { run(t, "sh", "-euc", strings.ReplaceAll(script, "$DISK", disk)) }
			sh("mount -t tmpfs -o " + c.options + " none $DISK")
			t.Cleanup(func() { run(t, "umount", disk) })
			sh(c.block)

			upstream := rig.NewMosquitto(t, "")
			sub := upstream.Subscribe(t, "watcher", "kept/counter")
			data := filepath.Join(disk, "state", "gateway")
			g := rig.Gateway(t, settings(data, upstream.URL(), rig.FreePort(t))+counters(t))
			const doubt = `"durable":false`
			sub.Await(t, rig.Patience, "samples that are not durable", func(lines []string) bool {
				return strings.Count(strings.Join(lines, "\n"), doubt) >= 5
			})
			sh(c.mend)
			seen := len(sub.Lines())
			sub.Await(t, rig.Patience, "samples that are", func(lines []string) bool {
				for _, l := range lines[seen:] {
					if strings.HasPrefix(l, "kept/counter ") && !strings.Contains(l, doubt) {
						return true
					}
				}
				return false
			})
			if code := g.Stop(t, rig.Patience); code != 0 {
				t.Errorf("it ended with %d: %s", code, g.Stderr())
			}
			if _, err := os.Stat(filepath.Join(data, "queue", "cursors")); err != nil {
				t.Error(err)
			}
			for i, s := range rig.Samples(t, sub.Lines(), "kept/counter") {
				if (s.Prev == nil) != (i == 0) {
					t.Errorf("sample %d, the %dth to come, names %v before it", s.Seq, i+1, s.Prev)
				}
			}
		})
	}
}
