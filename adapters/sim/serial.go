package sim

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"time"

	"gateway/adapters/serial/frame"
)

// A Talker is a serial device that talks by itself: every Interval it writes what Say says.
type Talker struct {
	Line     io.Writer
	Interval time.Duration
	Say      func(t time.Duration) []byte // t: since Run began
}

// Run talks until ctx ends or the line is closed.
func (d *Talker) Run(ctx context.Context) error {
	tick := time.NewTicker(d.Interval)
	defer tick.Stop()
	start := time.Now()
	for {
		if _, err := d.Line.Write(d.Say(time.Since(start))); err != nil {
			return lineEnd(err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// lineEnd makes nothing of the error by which a line says that it was closed.
func lineEnd(err error) error {
	if errors.Is(err, os.ErrClosed) || errors.Is(err, io.ErrClosedPipe) || errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// NewScale returns a platform scale that sends its weight twice a second, in the usual form: ST for a
// stable and US for an unstable weight, GS for gross. Its load changes every eight seconds.
func NewScale(line io.Writer) *Talker {
	loads := []float64{0, 12.34, 12.34, 57.8, 3.06}
	return &Talker{Line: line, Interval: 500 * time.Millisecond, Say: func(t time.Duration) []byte {
		i := int(t / (8 * time.Second))
		weight, state := loads[i%len(loads)], "ST"
		if since := t % (8 * time.Second); i > 0 && since < time.Second {
			before := loads[(i-1)%len(loads)]
			weight, state = before+(weight-before)*since.Seconds(), "US"
		}
		return fmt.Appendf(nil, "%s,GS,%+9.3fkg\r\n", state, weight)
	}}
}

// NewGPS returns a GPS receiver that drives round a circle of 300 m at Greenwich, and sends a GGA and
// an RMC sentence each second.
func NewGPS(line io.Writer) *Talker {
	return &Talker{Line: line, Interval: time.Second, Say: func(t time.Duration) []byte {
		const metre = 1 / 111_320.0 // degrees of latitude
		angle := 2 * math.Pi * t.Seconds() / 120
		lat := 51.477928 + 300*metre*math.Sin(angle)
		lon := -0.001545 + 300*metre/math.Cos(lat*math.Pi/180)*math.Cos(angle)
		clock := int(t.Seconds()) % 86400
		at := fmt.Sprintf("%02d%02d%02d.00", clock/3600, clock/60%60, clock%60)
		position := degreesMinutes(lat, 2, "NS") + "," + degreesMinutes(lon, 3, "EW")
		course := math.Mod(360-angle*180/math.Pi, 360)
		out := sentence("GPGGA,%s,%s,1,09,0.9,%.1f,M,45.4,M,,", at, position, 46+2*math.Sin(angle))
		return append(out, sentence("GPRMC,%s,A,%s,%.2f,%.2f,010126,,,A", at, position, 30.5, math.Abs(course))...)
	}}
}

func degreesMinutes(x float64, digits int, letters string) string {
	letter := letters[0]
	if x < 0 {
		x, letter = -x, letters[1]
	}
	d := math.Floor(x)
	return fmt.Sprintf("%0*d%08.5f,%c", digits, int(d), (x-d)*60, letter)
}

// sentence returns an NMEA 0183 sentence with its checksum.
func sentence(format string, args ...any) []byte {
	b := fmt.Appendf([]byte("$"), format, args...)
	b, err := frame.Check{Sum: frame.NMEA}.Append(b)
	if err != nil {
		return nil // not for this checksum
	}
	return append(b, "\r\n"...)
}

// NewP1Meter returns a Dutch smart meter's P1 port (DSMR 5): a telegram each second.
func NewP1Meter(line io.Writer) *Talker {
	return &Talker{Line: line, Interval: time.Second, Say: func(t time.Duration) []byte {
		power := 0.4 + 0.3*math.Sin(t.Seconds()/30)
		energy := 1234.5 + 0.4*t.Hours()
		body := fmt.Appendf(nil, "/SIM5\\GATEWAY-1\r\n\r\n1-3:0.2.8(50)\r\n1-0:1.8.1(%010.3f*kWh)\r\n1-0:1.8.2(%010.3f*kWh)\r\n1-0:1.7.0(%06.3f*kW)\r\n1-0:32.7.0(%05.1f*V)\r\n0-1:24.2.1(260101000000W)(00042.123*m3)\r\n!",
			energy, 2*energy, power, 230+2*math.Sin(t.Seconds()/7))
		body, err := frame.Check{Sum: frame.CRC16ARC, Coding: frame.Hex}.Append(body)
		if err != nil {
			return nil // not for this checksum
		}
		return append(body, "\r\n"...)
	}}
}

// A Responder is a serial device that answers when it is asked: requests end with End, and Answer says
// what to send back, nothing to stay silent.
type Responder struct {
	Line   io.ReadWriter
	End    byte
	Answer func(request []byte) []byte
}

// Run answers until ctx ends or the line is closed. It looks at ctx between requests: close the line
// to end it at once.
func (d *Responder) Run(ctx context.Context) error {
	var pending []byte
	buf := make([]byte, 256)
	for ctx.Err() == nil {
		n, err := d.Line.Read(buf)
		if err != nil {
			return lineEnd(err)
		}
		pending = append(pending, buf[:n]...)
		for {
			request, rest, ok := bytes.Cut(pending, []byte{d.End})
			if !ok {
				break
			}
			answer := d.Answer(request)
			pending = append(pending[:0], rest...)
			if len(answer) == 0 {
				continue
			}
			if _, err := d.Line.Write(answer); err != nil {
				return lineEnd(err)
			}
		}
		if len(pending) > 1<<10 {
			pending = pending[:0] // noise
		}
	}
	return nil
}

// NewSDI12 returns an SDI-12 sensor of soil moisture and temperature at an address. It knows the
// commands a!, aI!, aM! and aD0! (SDI-12 1.4, 4.4) and needs a second to measure.
func NewSDI12(line io.ReadWriter, address byte) *Responder {
	var asked time.Time
	start := time.Now()
	return &Responder{Line: line, End: '!', Answer: func(request []byte) []byte {
		if len(request) == 0 || request[0] != address {
			return nil
		}
		a := string(address)
		switch string(request[1:]) {
		case "":
			return []byte(a + "\r\n")
		case "I":
			return []byte(a + "14SIMULATDSOIL  1.0\r\n")
		case "M":
			asked = time.Now()
			return []byte(a + "0012\r\n")
		case "D0":
			if asked.IsZero() || time.Since(asked) < time.Second {
				return []byte(a + "\r\n")
			}
			x := time.Since(start).Seconds()
			return fmt.Appendf(nil, "%s%+.2f%+.1f\r\n", a, 23.4+math.Sin(x/60), 12.5+2*math.Sin(x/300))
		}
		return nil
	}}
}
