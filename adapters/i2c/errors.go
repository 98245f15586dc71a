package i2c

import (
	"errors"
	"fmt"

	"gateway/adapters"
)

// A Fault is the kind of a failed transaction, as far as the controller can tell.
type Fault uint8

const (
	FaultOther       Fault = iota // an I/O error of no known kind
	FaultNoAck                    // nobody acknowledged the address (ENXIO)
	FaultRemote                   // the address or a byte was not acknowledged; this controller cannot tell which (EREMOTEIO)
	FaultTimeout                  // the controller gave up: the clock or data line is held (ETIMEDOUT)
	FaultArbitration              // another controller took the bus (EAGAIN)
	FaultGone                     // the bus itself is not there any more (ENODEV, EBADF, ...)
	FaultUnsupported              // the controller cannot do such a transaction (EOPNOTSUPP)
)

func (f Fault) String() string {
	switch f {
	case FaultNoAck:
		return "no ack: no chip at this address"
	case FaultRemote:
		return "no ack of the address or of a byte: no chip, or one that refuses"
	case FaultTimeout:
		return "timeout: a line of the bus is held, or the chip stretches the clock too long"
	case FaultArbitration:
		return "arbitration lost: another controller uses the bus"
	case FaultGone:
		return "the bus is gone"
	case FaultUnsupported:
		return "the controller cannot do this transaction"
	}
	return "input/output error"
}

// reason is what a reading says that was lost to f.
func (f Fault) reason() adapters.Reason {
	switch f {
	case FaultNoAck, FaultRemote:
		return adapters.ReasonNoAck
	case FaultTimeout:
		return adapters.ReasonTimeout
	case FaultArbitration:
		return adapters.ReasonBusy
	case FaultGone:
		return adapters.ReasonAbsent
	case FaultUnsupported:
		return adapters.ReasonUnsupported
	}
	return adapters.ReasonProtocol
}

// A TxError is a transaction that failed.
type TxError struct {
	Bus   string // as the bus calls itself, /dev/i2c-1
	Addr  uint16
	Fault Fault
	Err   error // the errno where there is one
}

func (e *TxError) Error() string {
	s := fmt.Sprintf("%s: address 0x%02x: %s", e.Bus, e.Addr, e.Fault)
	if e.Err != nil {
		s += " (" + e.Err.Error() + ")"
	}
	return s
}

func (e *TxError) Unwrap() error { return e.Err }

// FaultOf returns the kind of transaction fault that err reports, and whether it reports one.
func FaultOf(err error) (Fault, bool) {
	var t *TxError
	if errors.As(err, &t) {
		return t.Fault, true
	}
	return FaultOther, false
}

// busy tells whether err may mean that a chip is not done: some do not acknowledge while they convert, and
// some controllers, of USB adapters above all, have no other word for that than input/output error.
func busy(err error) bool {
	f, ok := FaultOf(err)
	return nacked(err) || ok && f == FaultOther
}

// nacked tells whether err says that nobody acknowledged.
func nacked(err error) bool {
	f, ok := FaultOf(err)
	return ok && (f == FaultNoAck || f == FaultRemote)
}

// A chipError is a fault of what a chip answered, not of the transaction.
type chipError struct {
	reason adapters.Reason
	text   string
}

func (e *chipError) Error() string { return e.text }

func chipErrorf(reason adapters.Reason, format string, args ...any) error {
	return &chipError{reason, fmt.Sprintf(format, args...)}
}

var (
	errChecksum = &chipError{adapters.ReasonChecksum, "the answer's checksum is wrong"}
	errNotReady = &chipError{adapters.ReasonNotReady, "no new measurement yet"}
	errStopped  = errors.New("i2c: stopped")
)

// reasonOf returns what the readings lost to err are to say.
func reasonOf(err error) adapters.Reason {
	var c *chipError
	if errors.As(err, &c) {
		return c.reason
	}
	if f, ok := FaultOf(err); ok {
		return f.reason()
	}
	return adapters.ReasonProtocol
}
