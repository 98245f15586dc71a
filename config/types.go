package config

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Size is a number of bytes, written as "64 KiB", "1 GiB", "10 MB" or a plain number.
type Size int64

var units = []struct {
	suffix string
	factor int64
}{
	{"kib", 1 << 10}, {"mib", 1 << 20}, {"gib", 1 << 30}, {"tib", 1 << 40},
	{"kb", 1e3}, {"mb", 1e6}, {"gb", 1e9}, {"tb", 1e12}, {"b", 1},
}

func (s *Size) fromTOML(value any) error {
	switch v := value.(type) {
	case int64:
		if v < 0 {
			return fmt.Errorf("%d bytes: a size cannot be negative", v)
		}
		*s = Size(v)
		return nil
	case string:
		number, factor := strings.ToLower(strings.TrimSpace(v)), int64(1)
		for _, u := range units {
			if rest, ok := strings.CutSuffix(number, u.suffix); ok {
				number, factor = strings.TrimSpace(rest), u.factor
				break
			}
		}
		n, err := strconv.ParseFloat(number, 64)
		if err == nil && n >= 0 && n*float64(factor) < math.MaxInt64 {
			*s = Size(n * float64(factor))
			return nil
		}
	}
	return fmt.Errorf(`%s is not a size; write "64 KiB", "1 GiB" or a number of bytes`, describe(value))
}

// String writes the size in the largest binary unit that divides it.
func (s Size) String() string {
	for i := 3; i >= 0; i-- {
		if f := units[i].factor; int64(s) >= f && int64(s)%f == 0 {
			return fmt.Sprintf("%d %s", int64(s)/f, [...]string{"KiB", "MiB", "GiB", "TiB"}[i])
		}
	}
	return fmt.Sprintf("%d B", int64(s))
}

// Sync is how often what is queued is forced to the disk: "always", or a window such as "1s".
type Sync struct {
	Window time.Duration // 0: always
}

func (s *Sync) fromTOML(value any) error {
	if value == "always" {
		s.Window = 0
		return nil
	}
	if text, ok := value.(string); ok {
		if d, err := time.ParseDuration(text); err == nil && d > 0 {
			s.Window = d
			return nil
		}
	}
	return fmt.Errorf(`%s is neither "always" nor a duration such as "1s"`, describe(value))
}
