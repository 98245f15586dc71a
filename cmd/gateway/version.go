package main

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"
)

var versionCommand = command{
	name:    "version",
	summary: "Print the version, the commit and the platform of this binary.",
	run:     runVersion,
}

func runVersion(_ context.Context, c call) error {
	if err := c.parse(c.flags(""), 0, 0); err != nil {
		return err
	}
	fmt.Fprintf(c.out, "gateway %s %s/%s %s\n", version(), runtime.GOOS, runtime.GOARCH, runtime.Version())
	return nil
}

// release is the version and the commit of a binary that was released: the packages set it
// (-ldflags "-X 'main.release=1.2.3 commit 0123456789ab of 2026-11-23T16:00:00Z'").
var release string

// version says where the binary comes from: what the packages say, or else what the Go toolchain wrote
// into it.
func version() string {
	if release != "" {
		return release
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "of unknown origin"
	}
	v := info.Main.Version
	if v == "" || v == "(devel)" {
		v = "devel"
	}
	settings := map[string]string{}
	for _, s := range info.Settings {
		settings[s.Key] = s.Value
	}
	if commit := settings["vcs.revision"]; len(commit) >= 12 {
		v += " commit " + commit[:12]
		if settings["vcs.modified"] == "true" {
			v += " with changes"
		}
		v += " of " + settings["vcs.time"]
	}
	return v
}
