// Package decode is the table by which bytes become values and back, for everything that carries
// numbers in bytes: Modbus registers, binary serial frames, I2C registers.
//
// A Type says which bits of a container of up to eight bytes hold the number and how; an Order says
// how the container's bytes were arranged on the wire; a Field adds what the user knows about the
// quantity: scale, valid range, sentinels, labels. All of them work on plain byte slices in wire
// order.
package decode
