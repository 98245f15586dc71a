package i2c

// A CRC8 is the parameters of an 8-bit cyclic redundancy check, most significant bit first, not
// reflected, no final XOR: what sensors use.
type CRC8 struct {
	Poly, Init byte
}

var (
	// crcSensirion: Sensirion SHT3x-DIS datasheet, "Checksum Calculation"; CRC(0xBEEF) = 0x92. Also
	// Aosong's AHT20.
	crcSensirion = CRC8{0x31, 0xFF}
	// crcHTU21: TE HTU21D(F) datasheet, "CRC-8 Checksum"; CRC(0xDC) = 0x79.
	crcHTU21 = CRC8{0x31, 0x00}
	// crcPEC: System Management Bus Specification 3.1, 6.4 "Packet Error Checking".
	crcPEC = CRC8{0x07, 0x00}
)

// Sum returns the check of b.
func (c CRC8) Sum(b ...byte) byte { return c.update(c.Init, b) }

func (c CRC8) update(crc byte, b []byte) byte {
	for _, v := range b {
		crc ^= v
		for range 8 {
			if crc&0x80 != 0 {
				crc = crc<<1 ^ c.Poly
			} else {
				crc <<= 1
			}
		}
	}
	return crc
}

// words takes the words of 16 bits, each followed by its check, out of an answer of Sensirion's
// form into w; len(b) must be 3*len(w).
func (c CRC8) words(b []byte, w []uint16) error {
	for i := range w {
		p := b[3*i : 3*i+3]
		if c.Sum(p[:2]...) != p[2] {
			return errChecksum
		}
		w[i] = uint16(p[0])<<8 | uint16(p[1])
	}
	return nil
}
