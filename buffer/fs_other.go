//go:build !linux

package buffer

import "os"

// datasync is File.Sync, which asks for a full flush where the system knows one (macOS).
func datasync(f *os.File) error { return f.Sync() }
