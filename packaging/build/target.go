package main

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
)

// A target is a kind of machine that binaries are released for.
type target struct {
	name   string   // as in the names of files
	env    []string // what chooses it, beside GOOS=linux
	debian string   // Debian's name of the architecture; empty: no package
	binary int64    // the stripped binary is at most so many bytes
}

// budget is how large a stripped binary may be: a box with 32 MB of flash holds it beside its system.
const budget = 16_000_000

// targets are the machines that are released for.
//
// Debian's armhf begins with ARMv7, that of Raspberry Pi OS with ARMv6; a binary for ARMv6 runs on both.
var targets = []target{
	{"linux-armv6", []string{"GOARCH=arm", "GOARM=6"}, "armhf", budget},
	{"linux-arm64", []string{"GOARCH=arm64", "GOARM64=v8.0"}, "arm64", budget},
	{"linux-amd64", []string{"GOARCH=amd64", "GOAMD64=v1"}, "amd64", budget},
	{"linux-riscv64", []string{"GOARCH=riscv64", "GORISCV64=rva20u64"}, "riscv64", budget},
	{"linux-armv5", []string{"GOARCH=arm", "GOARM=5"}, "", budget},
	{"linux-mipsle", []string{"GOARCH=mipsle", "GOMIPS=softfloat"}, "", budget * 5 / 4}, // no instruction is shorter than four bytes
	{"linux-386", []string{"GOARCH=386", "GO386=softfloat"}, "", budget},
}

func names(ts []target) string {
	var s []string
	for _, t := range ts {
		s = append(s, t.name)
	}
	return strings.Join(s, ", ")
}

// choose returns the targets of a comma-separated list, all for an empty one.
func choose(list string) ([]target, error) {
	if list == "" {
		return targets, nil
	}
	var chosen []target
	for name := range strings.SplitSeq(list, ",") {
		i := slices.IndexFunc(targets, func(t target) bool { return t.name == name })
		if i < 0 {
			return nil, fmt.Errorf("there is no target %q; there are %s", name, names(targets))
		}
		chosen = append(chosen, targets[i])
	}
	return chosen, nil
}

// compile builds the program for a target and holds it to its size.
func (r *release) compile(t target, binary string) error {
	// What the toolchain finds out of the repository differs between a clone and a work tree: the
	// origin is told to it, and it looks for none.
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w -buildid= -X 'main.release="+r.origin()+"'", "-o", binary, "./cmd/gateway")
	cmd.Dir = r.root
	// Nothing of what whoever builds has set for other builds gets in.
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOFLAGS=-mod=readonly -buildvcs=false", "GOEXPERIMENT=", "GOFIPS140=off", "GOWORK=off")
	cmd.Env = append(cmd.Env, t.env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, out)
	}
	info, err := os.Stat(binary)
	if err != nil {
		return err
	}
	if info.Size() > t.binary {
		return fmt.Errorf("the binary has %d bytes, above its budget of %d: find what has grown (go tool nm -size -sort size) or raise the budget for a reason", info.Size(), t.binary)
	}
	return nil
}
