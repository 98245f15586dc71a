package main

import (
	"os"
	"os/signal"
	"slices"
	"syscall"
	"testing"
)

// Whoever closes the terminal, or sends SIGHUP to a service as to others, gets an orderly stop; nohup is obeyed.
func TestAClosedTerminalEndsInOrderUnlessNohup(t *testing.T) {
	signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP) // these tests may run under nohup themselves
	if !slices.Contains(endSignals(), os.Signal(syscall.SIGHUP)) {
		t.Error("SIGHUP would end the program at once")
	}
	signal.Ignore(syscall.SIGHUP)
	defer signal.Reset(syscall.SIGHUP)
	if slices.Contains(endSignals(), os.Signal(syscall.SIGHUP)) {
		t.Error("SIGHUP would end what nohup keeps")
	}
}
