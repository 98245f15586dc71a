//go:build !linux

package buffer

import (
	"errors"
	"os"
)

// datasync is File.Sync, which asks for a full flush where the system knows one (macOS).
func datasync(f *os.File) error { return f.Sync() }

func reserve(*os.File, int64) error { return errors.ErrUnsupported }
