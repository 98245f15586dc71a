package modbus

// crc16 is the checksum of RTU frames [SL 6.2.2]: polynomial 0xA001 reflected, initial 0xFFFF. On the
// wire its low byte comes first.
func crc16(b []byte) uint16 {
	crc := uint16(0xffff)
	for _, c := range b {
		crc = crc>>8 ^ crcTable[byte(crc)^c]
	}
	return crc
}

var crcTable = func() (t [256]uint16) {
	for i := range t {
		crc := uint16(i)
		for range 8 {
			if crc&1 != 0 {
				crc = crc>>1 ^ 0xa001
			} else {
				crc >>= 1
			}
		}
		t[i] = crc
	}
	return t
}()

// crcGood tells whether the last two bytes of a frame are the checksum of the others.
func crcGood(frame []byte) bool {
	n := len(frame) - 2
	return n >= 2 && crc16(frame[:n]) == uint16(frame[n])|uint16(frame[n+1])<<8
}
