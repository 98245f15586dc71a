package format

import (
	"bytes"
	"compress/gzip"
	"fmt"

	"github.com/klauspost/compress/zstd"

	"gateway/adapters/hint"
)

// A compressor appends the compressed form of src to dst; src may lie in dst's array.
type compressor interface {
	compress(dst, src []byte) ([]byte, error)
}

func newCompressor(c Compression) (compressor, error) {
	switch c {
	case None:
		return nil, nil
	case Gzip:
		g := &gzipper{}
		var err error
		g.w, err = gzip.NewWriterLevel(&g.out, gzip.BestCompression)
		return g, err
	case Zstd:
		// One message at a time and small ones: a window of 64 KiB, no goroutines. The faster levels give up on
		// what is as short as one sample.
		w, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(64<<10), zstd.WithEncoderCRC(false),
			zstd.WithEncoderLevel(zstd.SpeedBetterCompression), zstd.WithLowerEncoderMem(true))
		if err != nil {
			return nil, err
		}
		return zstder{w}, nil
	}
	return nil, fmt.Errorf("format: no such compression %q%s", c, hint.OneOf(c, []Compression{Gzip, Zstd}))
}

type gzipper struct {
	out bytes.Buffer
	w   *gzip.Writer
}

func (g *gzipper) compress(dst, src []byte) ([]byte, error) {
	g.out.Reset()
	g.w.Reset(&g.out)
	if _, err := g.w.Write(src); err != nil {
		return dst, err
	}
	if err := g.w.Close(); err != nil {
		return dst, err
	}
	return append(dst, g.out.Bytes()...), nil
}

type zstder struct{ w *zstd.Encoder }

func (z zstder) compress(dst, src []byte) ([]byte, error) { return z.w.EncodeAll(src, dst), nil }
