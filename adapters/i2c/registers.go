package i2c

import (
	"errors"
	"fmt"
	"time"

	"gateway/adapters"
	"gateway/adapters/decode"
)

// GenericChip is the chip of a device that is described by its registers.
const GenericChip = "registers"

// IsGeneric tells whether name is that of GenericChip.
func IsGeneric(name string) bool { return normal(name) == GenericChip }

// Registers describes any chip: what to write once, what to write and read in each measurement, and
// where in the answers the values are.
type Registers struct {
	Init   []Step // after the start and whenever the chip was away
	Read   []Step // each measurement
	Fields []Field
}

// A Step is one exchange with the chip. With a Write and Bytes and no Wait it is one transaction with
// a repeated start, as most register files want it; with a Wait between, it is two.
type Step struct {
	Write []byte // register or command; nil: only read
	Wait  time.Duration
	Bytes int // to read; 0: only write

	// CRC, where not nil, says that the answer is made of groups of Every bytes, each followed by its
	// check byte. The check bytes count in Bytes, and are taken out before fields are decoded.
	CRC   *CRC8
	Every int

	// Expect, where not nil, is what the answer must begin with, under Mask (nil: all bits). Where it
	// differs the step is tried again after Wait, up to Tries times in all. An answer that is still
	// different means in Init that this is another chip, in Read that the measurement is not ready.
	Expect, Mask []byte
	Tries        int // 0: 1
}

// A Field is one value in the answers of Read.
type Field struct {
	Name     string
	Unit     string
	Step     int // index into Read
	At       int // first byte in the step's answer, check bytes not counted
	Spec     decode.Spec
	Decimals *int8
}

// Bounds of what a description may ask for.
const (
	maxStepBytes = 1024
	maxStepWait  = time.Minute
	maxTries     = 1000
)

func (s *Step) check() error {
	switch {
	case len(s.Write) == 0 && s.Bytes == 0:
		return errors.New("neither writes nor reads anything")
	case s.Bytes < 0 || s.Bytes > maxStepBytes || len(s.Write) > maxStepBytes:
		return fmt.Errorf("more than %d bytes", maxStepBytes)
	case s.Wait < 0 || s.Wait > maxStepWait:
		return fmt.Errorf("wait %v: at most %v", s.Wait, maxStepWait)
	case s.Tries < 0 || s.Tries > maxTries:
		return fmt.Errorf("tries %d: 1 to %d", s.Tries, maxTries)
	case s.CRC != nil && (s.Every < 1 || s.Bytes%(s.Every+1) != 0 || s.Bytes == 0):
		return fmt.Errorf("%d bytes are no whole number of groups of %d bytes and a check byte", s.Bytes, s.Every)
	case s.Mask != nil && len(s.Mask) != len(s.Expect):
		return errors.New("mask and expect differ in length")
	case len(s.Expect) > s.payload():
		return fmt.Errorf("expect has %d bytes, the answer %d", len(s.Expect), s.payload())
	}
	return nil
}

// payload is how many bytes are left of the answer without its check bytes.
func (s *Step) payload() int {
	if s.CRC == nil {
		return s.Bytes
	}
	return s.Bytes / (s.Every + 1) * s.Every
}

// strip checks the answer and takes its check bytes out, in place.
func (s *Step) strip(b []byte) ([]byte, error) {
	if s.CRC == nil {
		return b, nil
	}
	out := b[:0]
	for ; len(b) > s.Every; b = b[s.Every+1:] {
		if s.CRC.Sum(b[:s.Every]...) != b[s.Every] {
			return nil, errChecksum
		}
		out = append(out, b[:s.Every]...)
	}
	return out, nil
}

// matches tells whether the answer begins as expected.
func (s *Step) matches(b []byte) bool {
	for i, want := range s.Expect {
		mask := byte(0xFF)
		if s.Mask != nil {
			mask = s.Mask[i]
		}
		if b[i]&mask != want&mask {
			return false
		}
	}
	return true
}

// do carries out the step. The answer, without check bytes, is valid until buf is used again.
func (s *Step) do(c *conn, buf []byte) ([]byte, error) {
	b := buf[:s.Bytes]
	var answer []byte
	for range max(1, s.Tries) {
		var err error
		switch {
		case s.Bytes == 0:
			if err = c.write(s.Write...); err == nil && s.Wait > 0 {
				err = c.wait(s.Wait)
			}
			return nil, err
		case s.Wait == 0 || len(s.Write) == 0:
			if s.Wait > 0 {
				if err := c.wait(s.Wait); err != nil {
					return nil, err
				}
			}
			err = c.tx(s.Write, b)
		default:
			if err = c.write(s.Write...); err == nil {
				if err = c.wait(s.Wait); err == nil {
					err = c.read(b)
				}
			}
		}
		if err == nil {
			answer, err = s.strip(b)
		}
		if err != nil {
			return nil, err
		}
		if s.matches(answer) {
			return answer, nil
		}
	}
	return answer, errNotReady
}

// chip checks the description and makes it a chip like those of the catalogue.
func (r *Registers) chip() (Chip, error) {
	chip := Chip{Name: GenericChip, About: "any chip, described by its registers"}
	var errs []error
	for i := range r.Init {
		if err := r.Init[i].check(); err != nil {
			errs = append(errs, ofDevice(fmt.Sprintf("init.%d", i), fmt.Errorf("init step %d: %w", i+1, err)))
		}
	}
	for i := range r.Read {
		if err := r.Read[i].check(); err != nil {
			errs = append(errs, ofDevice(fmt.Sprintf("read.%d", i), fmt.Errorf("read step %d: %w", i+1, err)))
		}
	}
	if len(r.Read) == 0 {
		errs = append(errs, errors.New("nothing is read; add read = [{ write = [0x00], bytes = 2 }]"))
	}
	if len(r.Fields) == 0 {
		errs = append(errs, errors.New("there is no point; say where in the answers the values are"))
	}
	d := &generic{r: r}
	for i, f := range r.Fields {
		df, err := decode.New(f.Spec)
		switch {
		case err != nil:
		case f.Step < 0 || f.Step >= len(r.Read):
			err = fmt.Errorf("step %d: there are %d", f.Step+1, len(r.Read))
		case f.At < 0 || f.At+df.Size() > r.Read[f.Step].payload():
			err = fmt.Errorf("bytes %d to %d: the answer has %d, check bytes not counted", f.At, f.At+df.Size()-1, r.Read[f.Step].payload())
		}
		if err != nil {
			errs = append(errs, &FieldError{i, "", err})
			continue
		}
		q := Quantity{Name: f.Name, Unit: f.Unit, Decimals: df.Decimals()}
		if f.Decimals != nil {
			q.Decimals = *f.Decimals
		}
		chip.Quantities = append(chip.Quantities, q)
		d.fields = append(d.fields, df)
	}
	for _, s := range append(append([]Step(nil), r.Init...), r.Read...) {
		d.buf = max(d.buf, s.Bytes)
	}
	chip.make = func(settings) driver { return d }
	return chip, errors.Join(errs...)
}

// generic is the driver of a chip that is described by its registers.
type generic struct {
	r      *Registers
	fields []*decode.Field
	buf    int // bytes of the longest answer
}

func (d *generic) setup(c *conn) error {
	buf := make([]byte, d.buf)
	for i := range d.r.Init {
		s := &d.r.Init[i]
		b, err := s.do(c, buf)
		if errors.Is(err, errNotReady) {
			return chipErrorf(adapters.ReasonProtocol, "init step %d: the chip answers % x, expected is % x: is it the chip that it should be?", i+1, b[:len(s.Expect)], s.Expect)
		}
		if err != nil {
			return fmt.Errorf("init step %d: %w", i+1, err)
		}
	}
	return nil
}

func (d *generic) measure(c *conn, out *results) error {
	buf := make([]byte, d.buf)
	for i := range d.r.Read {
		b, err := d.r.Read[i].do(c, buf)
		if err != nil {
			return fmt.Errorf("read step %d: %w", i+1, err)
		}
		d.decode(i, b, out)
	}
	return nil
}

// decode takes the values out of the answer of one step.
func (d *generic) decode(step int, b []byte, out *results) {
	for i, f := range d.r.Fields {
		if f.Step != step || len(b) < f.At {
			continue
		}
		if v, why := d.fields[i].Decode(b[f.At:]); why != "" {
			out.fail(i, why)
		} else {
			out.put(i, v)
		}
	}
}
