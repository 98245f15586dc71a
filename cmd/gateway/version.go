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

// release is the version that was released: the packages set it (-ldflags "-X main.release=1.2.3").
var release string

// version says what the Go toolchain wrote into the binary about its origin.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "of unknown origin"
	}
	v := info.Main.Version
	switch {
	case release != "":
		v = release
	case v == "" || v == "(devel)":
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
