//go:build !linux

package broker

// pause is for Linux: elsewhere there is no sleep that is short enough.
func pause() {}

const canPause = false
