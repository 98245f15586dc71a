//go:build linux

package i2c

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
	"unsafe"

	periph "periph.io/x/conn/v3/i2c"
	"periph.io/x/conn/v3/physic"
)

// From the kernel's include/uapi/linux/i2c-dev.h and i2c.h.
const (
	ioctlTimeout = 0x0702 // I2C_TIMEOUT, in units of 10 ms
	ioctlFuncs   = 0x0705 // I2C_FUNCS
	ioctlSlave   = 0x0703 // I2C_SLAVE, refused where a driver has the address
	ioctlRdwr    = 0x0707 // I2C_RDWR
	ioctlSMBus   = 0x0720 // I2C_SMBUS

	flagRead = 0x0001 // I2C_M_RD

	funcI2C   = 0x00000001 // I2C_FUNC_I2C
	funcQuick = 0x00010000 // I2C_FUNC_SMBUS_QUICK
	funcByte  = 0x00020000 // I2C_FUNC_SMBUS_READ_BYTE

	maxMessage = 8192 // what i2c-dev takes in one message
)

// i2cMsg is struct i2c_msg, on 32 and on 64 bits.
type i2cMsg struct {
	addr  uint16
	flags uint16
	len   uint16
	buf   unsafe.Pointer
}

// smbusData is struct i2c_smbus_ioctl_data.
type smbusData struct {
	read    uint8
	command uint8
	size    uint32 // which transaction
	data    unsafe.Pointer
}

// rdwrData is struct i2c_rdwr_ioctl_data.
type rdwrData struct {
	msgs  unsafe.Pointer
	nmsgs uint32
}

// A Linux is a bus behind /dev/i2c-N. Unlike periph's own it keeps the errno of a failed
// transaction.
type Linux struct {
	path string
	// Seams for the tests.
	ioctl func(fd, request uintptr, arg unsafe.Pointer) syscall.Errno
	ioset func(fd, request, value uintptr) syscall.Errno

	mu    sync.Mutex // guards what follows: Close waits for a transaction under way
	file  *os.File
	funcs uintptr // what the adapter can do
	msgs  [2]i2cMsg
	data  rdwrData
}

var _ periph.BusCloser = (*Linux)(nil)

// OpenLinux opens the bus at path, such as /dev/i2c-1. timeout, where not 0, is how long the kernel
// gives a transaction; it holds for all users of the adapter, in steps of 10 ms, and not every
// driver heeds it. The device tree, not the user of a bus, says how fast it runs.
func OpenLinux(path string, timeout time.Duration) (*Linux, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, openError(path, err)
	}
	b := &Linux{path: path, file: f, ioctl: ioctl, ioset: ioset}
	var funcs uintptr
	if errno := b.ioctl(f.Fd(), ioctlFuncs, unsafe.Pointer(&funcs)); errno != 0 {
		f.Close()
		return nil, fmt.Errorf("i2c: %s is not an I2C bus: %w", path, errno)
	}
	b.funcs = funcs
	if timeout > 0 {
		ticks := max(1, timeout.Round(10*time.Millisecond)/(10*time.Millisecond))
		if errno := b.set(ioctlTimeout, uintptr(ticks)); errno != 0 {
			f.Close()
			return nil, fmt.Errorf("i2c: %s: setting the timeout to %v: %w", path, timeout, errno)
		}
	}
	return b, nil
}

// set carries out an ioctl whose argument is a number.
func (b *Linux) set(request, value uintptr) syscall.Errno {
	return b.ioset(b.file.Fd(), request, value)
}

func ioset(fd, request, value uintptr) syscall.Errno {
	_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, fd, request, value)
	return errno
}

func ioctl(fd, request uintptr, arg unsafe.Pointer) syscall.Errno {
	for {
		_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, fd, request, uintptr(arg))
		if errno != syscall.EINTR {
			return errno
		}
	}
}

func (b *Linux) String() string { return b.path }

// Tx writes w and reads r in one transaction with a repeated start between. Its errors are
// *[TxError].
func (b *Linux) Tx(addr uint16, w, r []byte) error {
	if addr > 0x7F {
		return &TxError{b.path, addr, FaultUnsupported, errors.New("addresses have 7 bits")}
	}
	if len(w) > maxMessage || len(r) > maxMessage {
		return &TxError{b.path, addr, FaultUnsupported, fmt.Errorf("more than %d bytes in one message", maxMessage)}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.file == nil {
		return &TxError{b.path, addr, FaultGone, fs.ErrClosed}
	}
	n := 0
	if len(w) > 0 {
		b.msgs[n] = i2cMsg{addr: addr, len: uint16(len(w)), buf: unsafe.Pointer(&w[0])}
		n++
	}
	if len(r) > 0 {
		b.msgs[n] = i2cMsg{addr: addr, flags: flagRead, len: uint16(len(r)), buf: unsafe.Pointer(&r[0])}
		n++
	}
	if n == 0 {
		return nil
	}
	if b.funcs&funcI2C == 0 {
		return b.smbus(addr, w, r)
	}
	b.data = rdwrData{unsafe.Pointer(&b.msgs[0]), uint32(n)}
	errno := b.ioctl(b.file.Fd(), ioctlRdwr, unsafe.Pointer(&b.data))
	b.msgs = [2]i2cMsg{}
	if errno != 0 {
		return &TxError{b.path, addr, faultOfErrno(errno), errno}
	}
	return nil
}

// The transactions of struct i2c_smbus_ioctl_data.
const (
	smbusQuick = iota
	smbusByte
	smbusByteData
	smbusWordData
	smbusI2CBlock = 8
)

// smbus does what Tx does on an adapter that knows no other than SMBus transactions, such as those on
// PC mainboards: on the wire they are the same bytes, where there is one for the lengths asked for.
// Up to 32 bytes after a register can be read and written.
func (b *Linux) smbus(addr uint16, w, r []byte) error {
	if err := b.address(addr); err != nil {
		return err
	}
	var data [34]byte // union i2c_smbus_data
	d := smbusData{data: unsafe.Pointer(&data)}
	if len(w) > 0 {
		d.command = w[0]
	}
	switch {
	case len(r) == 0 && len(w) == 1:
		d.size = smbusByte
	case len(r) == 0 && len(w) == 2:
		d.size = smbusByteData
		data[0] = w[1]
	case len(r) == 0 && len(w) > 2 && len(w) <= 33:
		d.size = smbusI2CBlock
		data[0] = byte(copy(data[1:], w[1:]))
	case len(r) == 1 && len(w) == 0:
		d.read, d.size = 1, smbusByte
	case len(r) == 1 && len(w) == 1:
		d.read, d.size = 1, smbusByteData
	case len(r) == 2 && len(w) == 1:
		d.read, d.size = 1, smbusWordData
	case len(r) > 2 && len(r) <= 32 && len(w) == 1:
		d.read, d.size = 1, smbusI2CBlock
		data[0] = byte(len(r))
	default:
		return &TxError{b.path, addr, FaultUnsupported, fmt.Errorf("SMBus has no transaction of %d bytes written and %d read", len(w), len(r))}
	}
	if errno := b.ioctl(b.file.Fd(), ioctlSMBus, unsafe.Pointer(&d)); errno != 0 {
		return &TxError{b.path, addr, faultOfErrno(errno), errno}
	}
	switch d.size {
	case smbusWordData: // the kernel's word has the host's byte order; the first byte of the wire is its low one
		v := binary.NativeEndian.Uint16(data[:])
		r[0], r[1] = byte(v), byte(v>>8)
	case smbusI2CBlock:
		copy(r, data[1:])
	default:
		copy(r, data[:])
	}
	return nil
}

// address chooses the chip of the SMBus calls that follow.
func (b *Linux) address(addr uint16) error {
	switch errno := b.set(ioctlSlave, uintptr(addr)); errno {
	case 0:
		return nil
	case syscall.EBUSY:
		return &TxError{b.path, addr, FaultUnsupported, ErrClaimed}
	default:
		return &TxError{b.path, addr, faultOfErrno(errno), errno}
	}
}

// Probe asks whether somebody acknowledges addr, with an SMBus quick command or by reading a byte. An
// adapter that cannot do the one does the other.
func (b *Linux) Probe(addr uint16, read bool) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.file == nil {
		return &TxError{b.path, addr, FaultGone, fs.ErrClosed}
	}
	if err := b.address(addr); err != nil {
		return err
	}
	if b.funcs&funcQuick == 0 {
		read = true
	} else if b.funcs&funcByte == 0 {
		read = false
	}
	var answer [34]byte // union i2c_smbus_data
	var d smbusData
	if read {
		d = smbusData{read: 1, size: smbusByte, data: unsafe.Pointer(&answer)}
	}
	if errno := b.ioctl(b.file.Fd(), ioctlSMBus, unsafe.Pointer(&d)); errno != 0 {
		return &TxError{b.path, addr, faultOfErrno(errno), errno}
	}
	return nil
}

// faultOfErrno sorts the kernel's errors by Documentation/i2c/fault-codes.rst and what the drivers
// of common boards do: bcm2835 (Raspberry Pi 1 to 4), designware (Raspberry Pi 5) and imx say
// EREMOTEIO or ENXIO for a missing acknowledge.
func faultOfErrno(e syscall.Errno) Fault {
	switch e {
	case syscall.ENXIO:
		return FaultNoAck
	case syscall.EREMOTEIO:
		return FaultRemote
	case syscall.ETIMEDOUT:
		return FaultTimeout
	case syscall.EAGAIN:
		return FaultArbitration
	case syscall.ENODEV, syscall.ESHUTDOWN, syscall.EBADF, syscall.ENOTTY, syscall.EPIPE:
		return FaultGone
	case syscall.EOPNOTSUPP, syscall.EINVAL:
		return FaultUnsupported
	}
	return FaultOther
}

// SetSpeed says that it cannot: Linux has no call for it.
func (b *Linux) SetSpeed(physic.Frequency) error {
	return fmt.Errorf("i2c: %s: the bus's speed is set in the device tree (on a Raspberry Pi dtparam=i2c_arm_baudrate=...)", b.path)
}

// Close closes the bus, after the transaction under way.
func (b *Linux) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.file == nil {
		return nil
	}
	err := b.file.Close()
	b.file = nil
	return err
}

// openError says what to do about a bus that does not open.
func openError(path string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("i2c: %s is not there: enable I2C (Raspberry Pi: raspi-config, or dtparam=i2c_arm=on in config.txt) and load the module i2c-dev: %w", path, err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("i2c: no permission for %s: %s: %w", path, permissionHint(path), err)
	}
	return fmt.Errorf("i2c: %w", err)
}

// permissionHint says which group to join.
func permissionHint(path string) string {
	info, err := os.Stat(path)
	if err != nil {
		return "ask for read and write permission"
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok || info.Mode().Perm()&0o060 != 0o060 || stat.Gid == 0 {
		return "install a udev rule that gives it to a group, such as SUBSYSTEM==\"i2c-dev\", GROUP=\"i2c\", MODE=\"0660\""
	}
	group := strconv.FormatUint(uint64(stat.Gid), 10)
	if g, err := user.LookupGroupId(group); err == nil {
		group = g.Name
	}
	return fmt.Sprintf("add the user to the group %[1]s (sudo usermod -aG %[1]s USER) and log in again", group)
}

// Buses returns the paths of the machine's buses in the order of their numbers.
func Buses() []string {
	var paths []string
	found, _ := filepath.Glob("/dev/i2c-*") // its only error is a bad pattern
	for n := range 256 {
		path := fmt.Sprintf("/dev/i2c-%d", n)
		for _, f := range found {
			if f == path {
				paths = append(paths, path)
			}
		}
	}
	return paths
}

// AdapterName returns what the kernel calls the adapter of the bus at path, or "".
func AdapterName(path string) string {
	name, err := os.ReadFile(filepath.Join("/sys/class/i2c-dev", filepath.Base(path), "name"))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(name))
}

// FindAdapter returns the path of the one bus whose adapter's name contains name. USB adapters get
// another number each time they are plugged in; their name stays.
func FindAdapter(name string) (path string, err error) {
	return findAdapter(name, Buses(), AdapterName)
}

// KernelDriver returns the name of the kernel's driver that has claimed the address on the bus at
// path, or "".
func KernelDriver(path string, addr uint16) string {
	n := strings.TrimPrefix(filepath.Base(path), "i2c-")
	link, err := os.Readlink(fmt.Sprintf("/sys/bus/i2c/devices/%s-%04x/driver", n, addr))
	if err != nil {
		return ""
	}
	return filepath.Base(link)
}
