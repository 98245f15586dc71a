package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// manual returns gateway(1), made from what the program says of itself, so that it cannot differ.
func (r *release) manual(work string) ([]byte, error) {
	host := filepath.Join(work, "gateway-host")
	build := exec.Command("go", "build", "-buildvcs=false", "-o", host, "./cmd/gateway")
	build.Dir = r.root
	build.Env = append(os.Environ(), "GOOS="+runtime.GOOS, "GOARCH="+runtime.GOARCH) // it is run here
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("go build: %w\n%s", err, out)
	}
	help, err := exec.Command(host, "help").Output()
	if err != nil {
		return nil, fmt.Errorf("gateway help: %w", err)
	}
	var page strings.Builder
	fmt.Fprintf(&page, ".TH GATEWAY 1 %s \"gateway %s\"\n", r.time.Format("2006-01-02"), r.version)
	page.WriteString(".SH NAME\ngateway \\- reads sensors over Modbus, serial lines and I2C and publishes them over MQTT\n")
	page.WriteString(".SH SYNOPSIS\n.B gateway\n.I COMMAND\n[flags]\n.SH COMMANDS\n")
	for _, name := range commandsIn(help) {
		text, err := exec.Command(host, name, "--help").Output()
		if err != nil {
			return nil, fmt.Errorf("gateway %s --help: %w", name, err)
		}
		fmt.Fprintf(&page, ".SS gateway %s\n.nf\n", roff(name))
		for line := range strings.Lines(string(text)) {
			page.WriteString(roff(strings.TrimRight(line, "\n")) + "\n")
		}
		page.WriteString(".fi\n")
	}
	page.WriteString(`.SH FILES
.TP
.I /etc/gateway/gateway.toml
The configuration; /usr/share/doc/gateway/configuration.md describes it.
.TP
.I /etc/gateway/credentials/
Passwords and keys, read by root alone and handed to the service.
.TP
.I /var/lib/gateway/
The queue and all other state.
.SH EXIT STATUS
0 success; 1 failure; 64 wrong arguments; 78 a configuration that cannot be used.
`)
	return []byte(page.String()), nil
}

// commandsIn returns the names that the program's help lists: lines indented by two spaces.
func commandsIn(help []byte) []string {
	var names []string
	for s := bufio.NewScanner(bytes.NewReader(help)); s.Scan(); {
		if f := strings.Fields(s.Text()); strings.HasPrefix(s.Text(), "  ") && len(f) > 1 {
			names = append(names, f[0])
		}
	}
	return names
}

// roff escapes a line for a manual page.
func roff(s string) string {
	s = strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(s)
	if strings.HasPrefix(s, ".") || strings.HasPrefix(s, "'") {
		s = `\&` + s
	}
	return s
}
