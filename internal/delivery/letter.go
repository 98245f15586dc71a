package delivery

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
)

// A Letter is a sample that a broker refused while it took others, kept so that it can be sent again
// when the reason is mended.
//
// Those that were set aside together are in one file, one behind the other. All numbers are little
// endian:
//
//	file   = letter...
//	letter = magic "GWLETTER" version (4 bytes, now 1) length (4 bytes, of the body) body
//	         CRC-32C (4 bytes, of all before it)
//	body   = epoch (8 bytes) seq (8 bytes) bytes(reason) bytes(data) bytes(dict)
//	bytes  = length (4 bytes), content
type Letter struct {
	Number     uint64
	ID         ID
	Reason     string
	Data, Dict []byte // of the record
}

const (
	letterMagic   = "GWLETTER"
	letterVersion = 1
	letterHeader  = len(letterMagic) + 8
)

var errLetter = errors.New("delivery: damaged dead letter")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func appendLetter(b []byte, x *Letter) []byte {
	start := len(b)
	b = append(b, letterMagic...)
	b = binary.LittleEndian.AppendUint32(b, letterVersion)
	b = binary.LittleEndian.AppendUint32(b, uint32(16+3*4+len(x.Reason)+len(x.Data)+len(x.Dict)))
	b = binary.LittleEndian.AppendUint64(b, x.ID.Epoch)
	b = binary.LittleEndian.AppendUint64(b, x.ID.Seq)
	for _, part := range [][]byte{[]byte(x.Reason), x.Data, x.Dict} {
		b = binary.LittleEndian.AppendUint32(b, uint32(len(part)))
		b = append(b, part...)
	}
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b[start:], castagnoli))
}

// cutLetter parses the letter at the beginning of b and returns what is behind it.
func cutLetter(b []byte) (x Letter, rest []byte, err error) {
	if len(b) < letterHeader || string(b[:len(letterMagic)]) != letterMagic {
		return x, nil, errLetter
	}
	version := binary.LittleEndian.Uint32(b[len(letterMagic):])
	n := uint64(binary.LittleEndian.Uint32(b[len(letterMagic)+4:]))
	if n < 16 || n+4 > uint64(len(b)-letterHeader) {
		return x, nil, errLetter
	}
	end := letterHeader + int(n)
	if crc32.Checksum(b[:end], castagnoli) != binary.LittleEndian.Uint32(b[end:]) {
		return x, nil, errLetter
	}
	if version != letterVersion {
		return x, nil, fmt.Errorf("delivery: dead letter of version %d, written by a later gateway", version)
	}
	body, rest := b[letterHeader:end], b[end+4:]
	x.ID = ID{Epoch: binary.LittleEndian.Uint64(body), Seq: binary.LittleEndian.Uint64(body[8:])}
	body = body[16:]
	var parts [3][]byte
	for i := range parts {
		if len(body) < 4 || uint64(binary.LittleEndian.Uint32(body)) > uint64(len(body)-4) {
			return x, nil, errLetter
		}
		n := int(binary.LittleEndian.Uint32(body))
		parts[i], body = body[4:4+n:4+n], body[4+n:] // whoever appends to one leaves its neighbour alone
	}
	if len(body) != 0 {
		return x, nil, errLetter
	}
	x.Reason, x.Data, x.Dict = string(parts[0]), parts[1], parts[2]
	return x, rest, nil
}

// readLetters reads a file of letters that are numbered from first on. Where there is damage it
// returns those before it, and the error.
func readLetters(path string, first uint64) (letters []Letter, err error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("delivery: %w", err)
	}
	for {
		x, rest, err := cutLetter(b)
		if err != nil {
			return letters, fmt.Errorf("%w: %s", err, path)
		}
		x.Number = first + uint64(len(letters))
		letters = append(letters, x)
		if b = rest; len(b) == 0 {
			return letters, nil
		}
	}
}
