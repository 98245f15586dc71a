package main

import (
	"context"
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"gateway": func() {
			os.Exit(Main(context.Background(), streams{os.Stdin, os.Stdout, os.Stderr}, os.Args[1:]))
		},
	})
}

// TestCommands runs the commands as users do; each script in testdata/script tells a story.
func TestCommands(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata/script"})
}
