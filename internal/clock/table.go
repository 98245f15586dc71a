package clock

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"

	"gateway/adapters"
)

const (
	magic        = "GWBOOTS\n"
	tableVersion = 1
	headerLen    = len(magic) + 8
	bootLen      = 4 + 4 + 16 + 8 + 8

	flagSynced = 1 << 0
	flagKnown  = 1 << 1
)

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
	errNewer   = errors.New("written by a later version of the gateway")
	errDamaged = errors.New("damaged")
)

func tablePath(dir string) string { return filepath.Join(dir, "boots") }

func appendTable(b []byte, boots []boot) []byte {
	b = append(b, magic...)
	b = binary.LittleEndian.AppendUint32(b, tableVersion)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(boots)*bootLen))
	for i := range boots {
		t := &boots[i]
		var flags uint32
		if t.anchor.synced {
			flags |= flagSynced
		}
		if t.known {
			flags |= flagKnown
		}
		b = binary.LittleEndian.AppendUint32(b, t.number)
		b = binary.LittleEndian.AppendUint32(b, flags)
		b = append(b, t.id[:]...)
		b = binary.LittleEndian.AppendUint64(b, uint64(t.anchor.at))
		b = binary.LittleEndian.AppendUint64(b, uint64(t.anchor.wall))
	}
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

func parseTable(b []byte) ([]boot, error) {
	if len(b) < headerLen+4 || string(b[:len(magic)]) != magic {
		return nil, errDamaged
	}
	body := b[:len(b)-4]
	if crc32.Checksum(body, castagnoli) != binary.LittleEndian.Uint32(b[len(body):]) {
		return nil, errDamaged
	}
	if v := binary.LittleEndian.Uint32(b[len(magic):]); v != tableVersion {
		return nil, fmt.Errorf("%w (version %d)", errNewer, v)
	}
	body = body[headerLen:]
	if uint64(binary.LittleEndian.Uint32(b[len(magic)+4:])) != uint64(len(body)) || len(body)%bootLen != 0 || len(body) > maxBoots*bootLen {
		return nil, errDamaged
	}
	boots := make([]boot, 0, len(body)/bootLen)
	for ; len(body) > 0; body = body[bootLen:] {
		flags := binary.LittleEndian.Uint32(body[4:])
		t := boot{
			number: binary.LittleEndian.Uint32(body),
			id:     BootID(body[8:24]),
			known:  flags&flagKnown != 0,
			anchor: anchor{
				at:     adapters.Instant(binary.LittleEndian.Uint64(body[24:])),
				wall:   int64(binary.LittleEndian.Uint64(body[32:])),
				synced: flags&flagSynced != 0,
			},
		}
		if n := len(boots); n > 0 && boots[n-1].number+1 != t.number {
			return nil, errDamaged
		}
		boots = append(boots, t)
	}
	return boots, nil
}

func readTable(path string) ([]boot, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("clock: %w", err)
	}
	boots, err := parseTable(b)
	if err != nil {
		return nil, fmt.Errorf("clock: %s: %w", path, err)
	}
	return boots, nil
}

// setAside keeps a table that could not be read for whoever wants to know why.
func setAside(path string, why error) error {
	if errors.Is(why, errDamaged) || errors.Is(why, errNewer) {
		if err := os.Rename(path, path+".unreadable"); err != nil {
			return errors.Join(why, err)
		}
		return fmt.Errorf("%w; kept as %s.unreadable, begun anew", why, path)
	}
	return why
}
