//go:build !linux

package sim

import "errors"

// A ptyEnd is one pseudo-terminal.
type ptyEnd struct{}

func openPTYEnd() (*ptyEnd, error) {
	return nil, errors.New("sim: simulated serial lines need Linux's pseudo-terminals")
}

func (*ptyEnd) slave() string            { return "" }
func (*ptyEnd) Read([]byte) (int, error) { return 0, errors.ErrUnsupported }
func (*ptyEnd) write([]byte) error       { return errors.ErrUnsupported }
func (*ptyEnd) Close() error             { return nil }
