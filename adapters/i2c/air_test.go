package i2c

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"periph.io/x/conn/v3/i2c/i2ctest"

	"gateway/adapters"
)

// The settings' defaults: offset 4 K, altitude 0 m, self-calibration on.
var scd4xSetup = []i2ctest.IO{
	{W: []byte{0x3F, 0x86}},
	{W: append([]byte{0x24, 0x1D}, withCRC(0x05DA)...)},
	{W: append([]byte{0x24, 0x27}, withCRC(0)...)},
	{W: append([]byte{0x24, 0x16}, withCRC(1)...)},
	{W: []byte{0x21, 0xB1}},
}

// The answer is the example of the SCD4x datasheet, 3.5.2 read_measurement: 500 ppm, 25 °C, 37 %RH.
func TestSCD4xExampleOfTheDatasheet(t *testing.T) {
	exchange{
		chip: "scd41", setup: scd4xSetup,
		measure: []i2ctest.IO{
			{W: []byte{0xE4, 0xB8}}, {R: withCRC(0x8006)},
			{W: []byte{0xEC, 0x05}}, {R: []byte{0x01, 0xF4, 0x33, 0x66, 0x67, 0xA2, 0x5E, 0xB9, 0x3C}},
		},
		values: map[string]any{"co2": 500.0, "temperature": 25.0, "humidity": 37.0},
		within: 0.01,
	}.run(t)
}

// What a live sensor answered, published in periph's tests (periph.io/x/devices v3.7.4,
// scd4x/scd4x_test.go, sensePlayback): nothing new, then a measurement. The same file has its answer to
// get_temperature_offset, 0x05DA for the 4 K that it leaves the factory with, which the setup repeats.
func TestSCD4xPublishedCapture(t *testing.T) {
	exchange{chip: "scd4x", setup: scd4xSetup, measure: []i2ctest.IO{{W: []byte{0xE4, 0xB8}}, {R: []byte{0x80, 0x00, 0xA2}}}, err: "no new measurement"}.run(t)
	exchange{
		chip: "scd4x", setup: scd4xSetup,
		measure: []i2ctest.IO{
			{W: []byte{0xE4, 0xB8}}, {R: []byte{0x80, 0x06, 0x04}},
			{W: []byte{0xEC, 0x05}}, {R: []byte{0x02, 0x2C, 0xA3, 0x67, 0x0D, 0x36, 0x4D, 0x08, 0xF1}},
		},
		values: map[string]any{"co2": 556.0, "temperature": 25.44, "humidity": 30.09},
		within: 0.01,
	}.run(t)
}

func TestSCD4xHasNothingNew(t *testing.T) {
	exchange{
		chip: "scd4x", setup: scd4xSetup,
		measure: []i2ctest.IO{{W: []byte{0xE4, 0xB8}}, {R: withCRC(0x8000)}},
		err:     "no new measurement",
	}.run(t)
}

// The SCD4x datasheet, 3.6.1: 5.4 K is the word 0x07E6; 3.6.3: 1950 m is 0x079E.
func TestSCD4xSettings(t *testing.T) {
	exchange{
		chip:     "scd40",
		settings: map[string]any{"temperature_offset": 5.4, "altitude": int64(1950), "low_power": true, "self_calibration": false},
		setup: []i2ctest.IO{
			{W: []byte{0x3F, 0x86}},
			{W: append([]byte{0x24, 0x1D}, withCRC(0x07E6)...)},
			{W: append([]byte{0x24, 0x27}, withCRC(0x079E)...)},
			{W: append([]byte{0x24, 0x16}, withCRC(0)...)},
			{W: []byte{0x21, 0xAC}},
		},
		measure: []i2ctest.IO{
			{W: []byte{0xE4, 0xB8}}, {R: withCRC(0x8006)},
			{W: []byte{0xEC, 0x05}}, {R: withCRC(0, 0x6667, 0x5EB9)},
		},
		values: map[string]any{"co2": adapters.ReasonNotReady, "temperature": 25.0, "humidity": 37.0},
		within: 0.01,
	}.run(t)
}

// Between two measurements the old one is published as stale, and a chip that has nothing new for
// long, because it lost its power, is started again.
func TestAChipThatHasNothingNewIsStaleAndThenSetUpAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Device{Name: "office", Chip: "scd41", Interval: 5 * time.Second})
		started, last := 0, [2]byte{}
		r.bus.chips[0x62] = func(w, rd []byte) error {
			if len(w) >= 2 {
				if last = [2]byte(w); last == [2]byte{0x21, 0xB1} {
					started++
				}
			}
			ready := uint16(0x8006)
			if at := time.Since(r.start); at > 12*time.Second && started == 1 {
				ready = 0x8000
			}
			if last == [2]byte{0xE4, 0xB8} {
				copy(rd, withCRC(ready))
			} else {
				copy(rd, withCRC(500, 0x6667, 0x5EB9))
			}
			return nil
		}
		r.run(t, 3*time.Minute)
		if started != 2 {
			t.Errorf("started %d times", started)
		}
		stale := r.samples[4].Readings[0]
		if stale.Quality != adapters.Stale || stale.Reason != adapters.ReasonNotReady || stale.Value != adapters.UintValue(500) {
			t.Errorf("%+v", stale)
		}
		if fresh := r.samples[len(r.samples)-1].Readings[0]; fresh.Quality != adapters.Good {
			t.Errorf("%+v", fresh)
		}
		if st := r.status("office"); st.State != adapters.Online {
			t.Errorf("%+v", st)
		}
	})
}

// The SGP30 is measured each second for its own sake, gives nothing for 15 s, and is published at the
// interval that was asked for.
func TestSGP30KeepsItsPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Device{Name: "air", Chip: "sgp30", Interval: 10 * time.Second})
		measured := 0
		r.bus.chips[0x58] = func(w, rd []byte) error {
			if len(w) == 2 && w[0] == 0x20 && w[1] == 0x08 {
				measured++
			}
			copy(rd, withCRC(450, 12))
			return nil
		}
		r.run(t, 60500*time.Millisecond)
		if measured != 61 || len(r.samples) != 7 {
			t.Errorf("%d measurements and %d samples in a minute", measured, len(r.samples))
		}
		for i, s := range r.samples {
			want := adapters.Reading{Point: 0, Quality: adapters.Bad, Reason: adapters.ReasonNotReady}
			if i >= 2 {
				want = adapters.Reading{Point: 0, Value: adapters.UintValue(12)}
			}
			if s.Readings[0] != want {
				t.Errorf("sample %d: %+v, want %+v", i, s.Readings[0], want)
			}
		}
	})
}

// SGP30 datasheet, "Set and Get Baseline" and "Humidity Compensation": what was learned is asked for each hour
// after the first twelve, and given back to a chip that lost its power, the words in the other order.
func TestSGP30KeepsWhatItHasLearned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Device{
			Name: "air", Chip: "sgp30", Interval: time.Hour, Settings: map[string]any{"humidity": 11.5},
			Points: []Point{{Name: "tvoc"}, {Name: "baseline_tvoc"}, {Name: "baseline_eco2"}},
		})
		var sent []string
		away := func() bool {
			lost := time.Since(r.start) - 12*time.Hour
			return lost > 2*time.Minute && lost < 4*time.Minute
		}
		r.bus.chips[0x58] = func(w, rd []byte) error {
			if away() {
				return &TxError{Bus: "fake", Addr: 0x58, Fault: FaultNoAck}
			}
			if len(w) > 2 {
				sent = append(sent, fmt.Sprintf("% x", w))
			}
			copy(rd, withCRC(0x8A12, 0x8F34))
			return nil
		}
		r.run(t, 13*time.Hour)
		humidity := fmt.Sprintf("% x", append([]byte{0x20, 0x61}, withCRC(0x0B80)...))
		baseline := fmt.Sprintf("% x", append([]byte{0x20, 0x1E}, withCRC(0x8F34, 0x8A12)...))
		if want := []string{humidity, baseline, humidity}; !slices.Equal(sent, want) {
			t.Errorf("sent %q, want %q", sent, want)
		}
		if early := r.samples[1].Readings[1]; early.Reason != adapters.ReasonNotReady {
			t.Errorf("after an hour %+v", early)
		}
		if late := r.samples[len(r.samples)-1].Readings[1]; late.Value != adapters.UintValue(0x8F34) {
			t.Errorf("after twelve hours %+v", late)
		}
	})
}

func TestCCS811(t *testing.T) {
	setup := []i2ctest.IO{
		{W: []byte{0x20}, R: []byte{0x81}}, {W: []byte{0x00}, R: []byte{0x10}},
		{W: []byte{0xF4}}, {W: []byte{0x01, 0x10}},
	}
	exchange{
		chip: "ccs811", setup: setup,
		measure: []i2ctest.IO{{W: []byte{0x02}, R: []byte{0x01, 0xC2, 0x00, 0x0C, 0x98, 0x00}}},
		values:  map[string]any{"eco2": 450.0, "tvoc": 12.0},
	}.run(t)
	for answer, want := range map[[6]byte]string{
		{0, 0, 0, 0, 0x90, 0}:       "no new measurement",
		{0, 0, 0, 0, 0x91, 0x08}:    "reports error 0x08",
		{0, 0, 0, 0, 0x10, 0}:       "in boot mode",
		{0x01, 0x00, 0, 0, 0x98, 0}: "no new measurement", // 256 ppm is no measurement yet
	} {
		exchange{chip: "ccs811", setup: setup, measure: []i2ctest.IO{{W: []byte{0x02}, R: answer[:]}}, err: want}.run(t)
	}
}
