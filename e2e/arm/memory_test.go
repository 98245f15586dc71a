package arm

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"gateway/e2e/bench/footprint"
	"gateway/e2e/board"
	"gateway/e2e/rig"
)

// BenchmarkMemoryOnTheBoard runs the main job on the ARM board: 200 readings a second from Modbus
// TCP, queue, local broker and one upstream. It takes a minute and a half whatever b.N is:
//
//	cd e2e && go test ./arm -run '^$' -bench . -benchtime 1x
func BenchmarkMemoryOnTheBoard(b *testing.B) {
	host := rig.NewMosquitto(b, "")
	sub := host.Subscribe(b, "watcher", "board/+")
	modbus := fmt.Sprintf("10.0.2.2:%d", footprint.Plant(b))
	upstream := fmt.Sprintf("mqtt://10.0.2.2:%d", host.Port)
	config := footprint.Configuration("board", "/var/lib/gateway", modbus, upstream) + "[queue]\nmax_bytes = \"32 MiB\"\n"
	on := board.Start(b, board.Options{
		Files:  map[string]string{"/bin/gateway": binary(b, "arm", "6"), "/etc/gateway.toml": rig.Write(b, b.TempDir(), "gateway.toml", config)},
		Script: "gateway run --config /etc/gateway.toml &\nsleep 75\ngrep -E 'VmHWM|VmRSS|Rss' /proc/$!/status\ncat /proc/$!/stat\necho measured",
	})
	sub.Await(b, board.Patience, "a first reading", func(lines []string) bool { return len(lines) > 0 })
	on.Console.Await(b, board.Patience, "the measurement", rig.HasLine("measured"))
	for _, line := range on.Console.Lines() {
		if m := regexp.MustCompile(`^(VmHWM|VmRSS|RssAnon|RssFile):\s+(\d+) kB`).FindStringSubmatch(line); m != nil {
			kB, err := strconv.ParseFloat(m[2], 64)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(kB*1024/1e6, "MB-"+m[1])
		}
	}
	n := 0
	for _, l := range sub.Lines() {
		if strings.HasPrefix(l, "board/d") {
			n++
		}
	}
	b.ReportMetric(float64(n*footprint.Registers), "readings")
}
