//go:build linux

package sim_test

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.bug.st/serial"

	"gateway/adapters/sim"
)

func openLine(t *testing.T) *sim.PTY {
	t.Helper()
	line, err := sim.OpenPTY(filepath.Join(t.TempDir(), "ttyUSB0"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := line.Close(); err != nil {
			t.Error(err)
		}
	})
	return line
}

func openPort(t *testing.T, line *sim.PTY) serial.Port {
	t.Helper()
	port, err := serial.Open(line.Path(), &serial.Mode{BaudRate: 9600})
	if err != nil {
		t.Fatal(err)
	}
	if err := port.SetReadTimeout(time.Minute); err != nil {
		t.Fatal(err)
	}
	return port
}

func TestBytesPassBothWaysUnchanged(t *testing.T) {
	line := openLine(t)
	port := openPort(t, line)
	defer port.Close()
	var all [256]byte
	for i := range all {
		all[i] = byte(i)
	}
	var got [256]byte
	if _, err := line.Write(all[:]); err != nil {
		t.Fatal(err)
	}
	for n := 0; n < len(got); {
		k, err := port.Read(got[n:])
		if k == 0 || err != nil {
			t.Fatalf("after %d bytes: %d, %v", n, k, err)
		}
		n += k
	}
	if got != all {
		t.Errorf("the gateway read %x", got)
	}
	if _, err := port.Write(all[:]); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(line, got[:]); err != nil || got != all {
		t.Errorf("the device read %x, %v", got, err)
	}
}

func TestAnUnpluggedLineComesBackAtTheSamePath(t *testing.T) {
	line := openLine(t)
	port := openPort(t, line)
	read := make(chan error)
	go func() {
		var b [1]byte
		_, err := line.Read(b[:]) // waits through the unplugging
		read <- err
	}()
	if err := line.Unplug(); err != nil {
		t.Fatal(err)
	}
	if _, err := port.Read(make([]byte, 1)); err == nil {
		t.Error("reading an unplugged line did not fail")
	}
	port.Close()
	if _, err := os.Stat(line.Path()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the path of an unplugged line: %v", err)
	}
	if _, err := line.Write([]byte("lost")); err != nil {
		t.Errorf("writing to an unplugged line: %v", err)
	}
	if err := line.Return(); err != nil {
		t.Fatal(err)
	}
	port = openPort(t, line)
	defer port.Close()
	if _, err := port.Write([]byte{1}); err != nil {
		t.Fatal(err)
	}
	if err := <-read; err != nil {
		t.Error(err)
	}
}

func TestCloseEndsAPendingRead(t *testing.T) {
	for _, unplugged := range []bool{false, true} {
		line := openLine(t)
		if unplugged {
			if err := line.Unplug(); err != nil {
				t.Fatal(err)
			}
		}
		read := make(chan error)
		go func() {
			_, err := line.Read(make([]byte, 1))
			read <- err
		}()
		if err := line.Close(); err != nil {
			t.Fatal(err)
		}
		if err := <-read; !errors.Is(err, os.ErrClosed) {
			t.Errorf("unplugged %t: %v", unplugged, err)
		}
	}
}

func TestALineThatNobodyReadsTakesNoMoreThanItsBuffer(t *testing.T) {
	line := openLine(t)
	if n, err := line.Write(make([]byte, 12<<10)); n != 12<<10 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
}
