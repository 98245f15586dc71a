// Package i2c reads sensors on I²C buses.
//
// A [Bus] owns one physical bus: its Run is the only goroutine that touches it. Each chip is a
// driver written as straight-line code in which a conversion time is a call of conn.wait. The
// drivers run as coroutines of the bus's goroutine, so while one chip converts the bus serves the
// others, and still there is no lock and never more than one transaction at a time.
//
// What is below the chips is periph's [i2c.Bus] interface: the Linux bus of this package
// ([OpenLinux]), periph's own i2ctest.Playback in the tests, or a simulated bus. The Linux bus keeps
// the errno of a failed transaction, so that an absent chip (no ack) can be told from a bus that
// hangs (timeout); see [Fault].
//
// The catalogue of chips is [Chips]. A chip that is not in it is described by registers alone, as
// [Registers].
//
// [i2c.Bus]: https://pkg.go.dev/periph.io/x/conn/v3/i2c#Bus
package i2c
