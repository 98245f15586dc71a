package modbus

import (
	"errors"
	"fmt"

	gb "github.com/goburrow/modbus"

	"gateway/adapters"
)

// What an exchange can fail with, besides the exception that a device answers (*goburrow.ModbusError).
var (
	ErrTimeout  = errors.New("modbus: no answer in time")
	ErrChecksum = errors.New("modbus: the answer came damaged")
	ErrProtocol = errors.New("modbus: the answer does not follow the protocol")
	ErrAbsent   = errors.New("modbus: cannot be opened")
	ErrLost     = errors.New("modbus: the connection was lost")
)

func protocolError(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrProtocol, fmt.Sprintf(format, args...))
}

// A silence is a timeout during which something came, but not from the device that was asked. It is
// ErrTimeout, and what came.
type silence struct{ came error }

func (s silence) Error() string        { return ErrTimeout.Error() + "; what came instead: " + s.came.Error() }
func (s silence) Is(target error) bool { return target == ErrTimeout }
func (s silence) Unwrap() error        { return s.came }

// foreign is what came when another unit than the one that was asked has answered.
func foreign(asked, answered byte) error {
	return protocolError("unit %d was asked, unit %d answered", asked, answered)
}

// exception returns the exception code of an error, 0 where it is none.
func exception(err error) byte {
	if err == nil {
		return 0 // errors.As would make e escape, in every cycle
	}
	var e *gb.ModbusError
	if errors.As(err, &e) {
		return e.ExceptionCode
	}
	return 0
}

// silent tells whether an error means that the device itself gave no answer: a timeout, or the word
// of a gateway in between that it got none (exceptions 10 and 11, [AP 7]).
func silent(err error) bool {
	code := exception(err)
	return errors.Is(err, ErrTimeout) ||
		code == gb.ExceptionCodeGatewayPathUnavailable ||
		code == gb.ExceptionCodeGatewayTargetDeviceFailedToRespond
}

// busy tells whether the device asked for patience (exceptions 5 and 6).
func busy(err error) bool {
	code := exception(err)
	return code == gb.ExceptionCodeAcknowledge || code == gb.ExceptionCodeServerDeviceBusy
}

// illegal tells whether the device said that there is no such address, or that it is not to be had
// in such a quantity: what splitting the request may mend.
func illegal(err error) bool {
	code := exception(err)
	return code == gb.ExceptionCodeIllegalDataAddress || code == gb.ExceptionCodeIllegalDataValue
}

// disconnected tells whether there is nobody to talk to, whatever the device.
func disconnected(err error) bool { return errors.Is(err, ErrLost) || errors.Is(err, ErrAbsent) }

// reasons are made once: a Reason is a string that every sample carries.
var refused = func() (r [256]adapters.Reason) {
	for i := range r {
		r[i] = adapters.Reason(fmt.Sprintf("%s: exception %d", adapters.ReasonRefused, i))
	}
	return r
}()

// reasonOf says in a word or two why an exchange gave no value.
func reasonOf(err error) adapters.Reason {
	switch {
	case err == nil:
		return ""
	case silent(err):
		return adapters.ReasonTimeout
	case busy(err):
		return adapters.ReasonBusy
	case exception(err) != 0:
		return refused[exception(err)]
	case disconnected(err):
		return adapters.ReasonAbsent
	case errors.Is(err, ErrChecksum):
		return adapters.ReasonChecksum
	}
	return adapters.ReasonProtocol
}
