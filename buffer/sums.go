package buffer

import "hash/crc32"

// sums tells the CRC-32C of any stretch of a file, however long, at the price of two pages. A damaged
// segment whose records are full of forged headers, each of which claims all that follows, would
// otherwise be summed once for each of them.
type sums struct {
	f   File
	end int64
	at  []uint32 // of all before each page
	buf [pageSize]byte
}

func newSums(f File, end int64) *sums {
	s := &sums{f: f, end: end, at: make([]uint32, 1, pages(end)/pageSize+1)}
	for off := int64(0); off < end; off += pageSize {
		s.at = append(s.at, s.before(min(off+pageSize, end)))
	}
	return s
}

// before returns the checksum of all bytes before off. What cannot be read counts as zeroes.
func (s *sums) before(off int64) uint32 {
	page := off / pageSize
	if int(page) == len(s.at) { // while at is being made
		page--
	}
	b := s.buf[:off-page*pageSize]
	n, _ := s.f.ReadAt(b, page*pageSize)
	clear(b[n:])
	return crc32.Update(s.at[page], castagnoli, b)
}

// sum continues a checksum over the bytes from off to end.
//
// With c(x) for the checksum of all before x: c(end) is that of the stretch, xored with c(off) as it is
// after as many zeroes. The same holds for what is continued.
func (s *sums) sum(seed uint32, off, end int64) uint32 {
	return afterZeroes(seed^s.before(off), end-off) ^ s.before(end)
}

// afterZeroes multiplies by x to the power of 8 n, modulo the polynomial, as n bytes of zeroes do.
func afterZeroes(sum uint32, n int64) uint32 {
	for power := uint32(1) << (31 - 8); n > 0; n >>= 1 {
		if n&1 != 0 {
			sum = multiply(sum, power)
		}
		power = multiply(power, power)
	}
	return sum
}

// multiply multiplies polynomials over GF(2), modulo Castagnoli's; the highest bit is x to the power of 0.
func multiply(a, b uint32) (product uint32) {
	for ; a != 0; a <<= 1 {
		if a>>31 != 0 {
			product ^= b
		}
		if b&1 != 0 {
			b = b>>1 ^ crc32.Castagnoli
		} else {
			b >>= 1
		}
	}
	return product
}
