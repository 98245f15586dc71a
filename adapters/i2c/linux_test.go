//go:build linux

package i2c

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"gateway/adapters"
)

// kernelLike returns a bus whose ioctl is f; the real one is tried on an emulated board in e2e/i2c.
func kernelLike(t *testing.T, f func(request uintptr, arg unsafe.Pointer) syscall.Errno) *Linux {
	t.Helper()
	file, err := os.Create(filepath.Join(t.TempDir(), "i2c-9"))
	if err != nil {
		t.Fatal(err)
	}
	b := &Linux{path: file.Name(), file: file, funcs: funcI2C, ioctl: func(fd, request uintptr, arg unsafe.Pointer) syscall.Errno {
		if fd != file.Fd() {
			t.Errorf("ioctl on descriptor %d, not %d", fd, file.Fd())
		}
		return f(request, arg)
	}}
	t.Cleanup(func() { b.Close() })
	return b
}

func TestAWriteAndAReadAreOneTransaction(t *testing.T) {
	b := kernelLike(t, func(request uintptr, arg unsafe.Pointer) syscall.Errno {
		data := (*rdwrData)(arg)
		if request != ioctlRdwr || data.nmsgs != 2 {
			t.Fatalf("request %#x with %d messages", request, data.nmsgs)
		}
		msgs := (*[2]i2cMsg)(data.msgs)
		w := unsafe.Slice((*byte)(msgs[0].buf), msgs[0].len)
		if msgs[0].addr != 0x76 || msgs[0].flags != 0 || !bytes.Equal(w, []byte{0xD0}) {
			t.Errorf("write: %+v % x", msgs[0], w)
		}
		if msgs[1].addr != 0x76 || msgs[1].flags != flagRead || msgs[1].len != 3 {
			t.Errorf("read: %+v", msgs[1])
		}
		copy(unsafe.Slice((*byte)(msgs[1].buf), msgs[1].len), "abc")
		return 0
	})
	r := make([]byte, 3)
	if err := b.Tx(0x76, []byte{0xD0}, r); err != nil || string(r) != "abc" {
		t.Errorf("%q, %v", r, err)
	}
}

// An adapter that knows SMBus alone is given the SMBus transaction with the same bytes on the wire.
func TestAnAdapterThatKnowsSMBusAlone(t *testing.T) {
	for _, c := range []struct {
		name  string
		w     []byte
		r     int
		read  uint8
		size  uint32
		sent  []byte // of the data, as the kernel gets it
		reply []byte // of the data, as the kernel gives it
		want  string
	}{
		{"send byte", []byte{0x20}, 0, 0, smbusByte, nil, nil, ""},
		{"write byte", []byte{0x20, 7}, 0, 0, smbusByteData, []byte{7}, nil, ""},
		{"write block", []byte{0x20, 7, 8}, 0, 0, smbusI2CBlock, []byte{2, 7, 8}, nil, ""},
		{"receive byte", nil, 1, 1, smbusByte, nil, []byte("a"), "a"},
		{"read byte", []byte{0x20}, 1, 1, smbusByteData, nil, []byte("a"), "a"},
		{"read word", []byte{0x20}, 2, 1, smbusWordData, nil, binary.NativeEndian.AppendUint16(nil, 'a'|'b'<<8), "ab"},
		{"read block", []byte{0x20}, 5, 1, smbusI2CBlock, []byte{5}, []byte("\x05abcde"), "abcde"},
	} {
		t.Run(c.name, func(t *testing.T) {
			asked := false
			b := kernelLike(t, func(request uintptr, arg unsafe.Pointer) syscall.Errno {
				asked = true
				d := (*smbusData)(arg)
				data := unsafe.Slice((*byte)(d.data), 34)
				if request != ioctlSMBus || d.read != c.read || d.size != c.size || len(c.w) > 0 && d.command != c.w[0] || !bytes.HasPrefix(data, c.sent) {
					t.Errorf("request %#x: %+v, % x", request, d, data)
				}
				copy(data, c.reply)
				return 0
			})
			b.funcs = funcQuick
			b.ioset = func(_, request, value uintptr) syscall.Errno {
				if request != ioctlSlave || value != 0x76 {
					t.Errorf("request %#x of %#x", request, value)
				}
				return 0
			}
			r := make([]byte, c.r)
			if err := b.Tx(0x76, c.w, r); err != nil || string(r) != c.want || !asked {
				t.Errorf("%q, %v", r, err)
			}
		})
	}
	b := kernelLike(t, func(uintptr, unsafe.Pointer) syscall.Errno { return 0 })
	b.funcs = 0
	b.ioset = func(_, _, _ uintptr) syscall.Errno { return 0 }
	for _, err := range []error{b.Tx(0x76, []byte{1, 2}, make([]byte, 2)), b.Tx(0x76, nil, make([]byte, 6)), b.Tx(0x76, []byte{1}, make([]byte, 33))} {
		if f, _ := FaultOf(err); f != FaultUnsupported {
			t.Error(err)
		}
	}
}

func TestProbing(t *testing.T) {
	var last smbusData
	b := kernelLike(t, func(_ uintptr, arg unsafe.Pointer) syscall.Errno {
		last = *(*smbusData)(arg)
		return syscall.ENXIO
	})
	claimed := false
	b.ioset = func(_, _, _ uintptr) syscall.Errno {
		if claimed {
			return syscall.EBUSY
		}
		return 0
	}
	for _, c := range []struct {
		funcs uintptr
		read  bool
		want  uint32
	}{
		{funcQuick | funcByte, false, smbusQuick}, {funcQuick | funcByte, true, smbusByte},
		{funcByte, false, smbusByte}, {funcQuick, true, smbusQuick},
	} {
		b.funcs = c.funcs
		if f, _ := FaultOf(b.Probe(0x50, c.read)); f != FaultNoAck || last.size != c.want {
			t.Errorf("%+v: %v, %+v", c, f, last)
		}
	}
	claimed = true
	if err := b.Probe(0x68, false); !errors.Is(err, ErrClaimed) {
		t.Error(err)
	}
}

func TestTheErrnoIsKept(t *testing.T) {
	for _, c := range []struct {
		errno  syscall.Errno
		fault  Fault
		reason adapters.Reason
	}{
		{syscall.ENXIO, FaultNoAck, adapters.ReasonNoAck},
		{syscall.EREMOTEIO, FaultRemote, adapters.ReasonNoAck},
		{syscall.ETIMEDOUT, FaultTimeout, adapters.ReasonTimeout},
		{syscall.EAGAIN, FaultArbitration, adapters.ReasonBusy},
		{syscall.ENODEV, FaultGone, adapters.ReasonAbsent},
		{syscall.EOPNOTSUPP, FaultUnsupported, adapters.ReasonUnsupported},
		{syscall.EIO, FaultOther, adapters.ReasonProtocol},
	} {
		b := kernelLike(t, func(uintptr, unsafe.Pointer) syscall.Errno { return c.errno })
		err := b.Tx(0x40, []byte{1}, nil)
		if f, ok := FaultOf(err); !ok || f != c.fault || !errors.Is(err, c.errno) || reasonOf(err) != c.reason {
			t.Errorf("%v: %v, fault %v, reason %q", c.errno, err, f, reasonOf(err))
		}
		if !strings.Contains(err.Error(), "address 0x40") {
			t.Errorf("%v does not say which chip", err)
		}
	}
}

func TestTransactionsThatTheKernelWouldRefuse(t *testing.T) {
	b := kernelLike(t, func(uintptr, unsafe.Pointer) syscall.Errno {
		t.Error("the kernel was asked")
		return 0
	})
	for _, err := range []error{b.Tx(0x80, []byte{1}, nil), b.Tx(0x40, make([]byte, 8193), nil)} {
		if f, _ := FaultOf(err); f != FaultUnsupported {
			t.Error(err)
		}
	}
	if err := b.Tx(0x40, nil, nil); err != nil {
		t.Error(err)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	if f, _ := FaultOf(b.Tx(0x40, []byte{1}, nil)); f != FaultGone {
		t.Error("a closed bus is not gone")
	}
}

func TestABusThatDoesNotOpenSaysWhatToDo(t *testing.T) {
	dir := t.TempDir()
	_, err := OpenLinux(filepath.Join(dir, "i2c-1"), 0)
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "raspi-config") {
		t.Error(err)
	}
	file := filepath.Join(dir, "i2c-2")
	if err := os.WriteFile(file, nil, 0o660); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenLinux(file, 0); err == nil || !strings.Contains(err.Error(), "not an I2C bus") {
		t.Error(err)
	}
	// Root may open anything, so the refusal is asked for directly.
	err = openError(file, &fs.PathError{Op: "open", Path: file, Err: syscall.EACCES})
	if !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "group") {
		t.Error(err)
	}
}
