// Package modbus reads and writes Modbus devices: over TCP, over serial lines in RTU and ASCII
// framing, over RTU carried in TCP, and over UDP.
//
// A Bus owns one physical bus, that is one serial port or one network address, with all devices on
// it. One goroutine works through a schedule of cycles; a cycle of a device is a plan of requests,
// each of which covers as many points as may be had at once, and gives one sample.
//
// What goes over the wire is packed and unpacked by github.com/goburrow/modbus (its Client and
// Packagers). The transport below it is the package's own, because goburrow's loses its place after
// a late reply, reads RTU exceptions with the wrong length, knows neither deadlines per exchange nor
// cancellation, and never comes back from a closed connection.
//
// Clauses cited as [AP …] are of the MODBUS Application Protocol Specification V1.1b3, those as
// [SL …] of MODBUS over Serial Line, Specification and Implementation Guide V1.02, both of
// modbus.org.
package modbus
