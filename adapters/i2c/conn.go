package i2c

import (
	"time"

	periph "periph.io/x/conn/v3/i2c"

	"gateway/adapters"
)

// A conn is a driver's way to its chip. It is used by one goroutine.
type conn struct {
	bus   periph.Bus
	addr  uint16
	pec   bool                      // SMBus packet error checking
	pause func(time.Duration) error // gives the bus to others for a while
	clock adapters.Clock
	seen  adapters.Instant // when the first answer of this measurement came; 0: none yet
	buf   [66]byte         // scratch for PEC
}

// tx writes w and then, after a repeated start, reads r. Either may be empty. A transaction that
// lost an arbitration is repeated at once, twice at most.
func (c *conn) tx(w, r []byte) error {
	var err error
	for range 3 {
		if c.pec {
			err = c.txPEC(w, r)
		} else {
			err = c.bus.Tx(c.addr, w, r)
		}
		if f, ok := FaultOf(err); !ok || f != FaultArbitration {
			break
		}
	}
	if err == nil && len(r) > 0 && c.seen == 0 {
		c.seen = c.clock()
	}
	return err
}

// txPEC is tx with the packet error code that ends each message: over the address with its
// direction bit and all bytes of the transaction (SMBus 3.1, 6.4.1.1).
func (c *conn) txPEC(w, r []byte) error {
	crc := crcPEC.update(0, []byte{byte(c.addr << 1)})
	crc = crcPEC.update(crc, w)
	if len(r) == 0 {
		return c.bus.Tx(c.addr, append(append(c.buf[:0], w...), crc), nil)
	}
	answer := append(append(c.buf[:0], r...), 0)
	if err := c.bus.Tx(c.addr, w, answer); err != nil {
		return err
	}
	if len(w) == 0 {
		crc = 0
	}
	crc = crcPEC.update(crc, []byte{byte(c.addr<<1) | 1})
	if crcPEC.update(crc, answer[:len(r)]) != answer[len(r)] {
		return errChecksum
	}
	copy(r, answer)
	return nil
}

func (c *conn) write(b ...byte) error { return c.tx(b, nil) }
func (c *conn) read(b []byte) error   { return c.tx(nil, b) }

// readReg reads len(b) bytes from register reg on.
func (c *conn) readReg(reg byte, b []byte) error { return c.tx([]byte{reg}, b) }

// reg8 reads one register of 8 bits.
func (c *conn) reg8(reg byte) (byte, error) {
	var b [1]byte
	err := c.readReg(reg, b[:])
	return b[0], err
}

// reg16 reads one register of 16 bits, high byte first.
func (c *conn) reg16(reg byte) (uint16, error) {
	var b [2]byte
	err := c.readReg(reg, b[:])
	return uint16(b[0])<<8 | uint16(b[1]), err
}

// writeReg16 writes one register of 16 bits, high byte first.
func (c *conn) writeReg16(reg byte, v uint16) error { return c.write(reg, byte(v>>8), byte(v)) }

// command writes a command of 16 bits, high byte first, as Sensirion's chips take it.
func (c *conn) command(cmd uint16) error { return c.write(byte(cmd>>8), byte(cmd)) }

// wait lets d pass. The bus is free for other chips meanwhile.
func (c *conn) wait(d time.Duration) error { return c.pause(d) }

// poll calls ready until it says so, waiting every time, at most n times; then the chip is not
// ready.
func (c *conn) poll(n int, every time.Duration, ready func() (bool, error)) error {
	for range n {
		ok, err := ready()
		if err != nil || ok {
			return err
		}
		if err := c.wait(every); err != nil {
			return err
		}
	}
	return errNotReady
}
