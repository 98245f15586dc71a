package demo

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// A view is what the demo shows at one moment.
type view struct {
	Elapsed      time.Duration
	Left         time.Duration // until the demo ends; 0: it runs until it is told to
	Devices      []deviceView
	Destinations []destinationView
	Event        string // the last thing that happened
	Keys         bool   // a person can press keys
}

type deviceView struct {
	Device, Bus, Values string
	State               string
}

type destinationView struct {
	Name, Broker, Link string
	Up                 bool
	Delivered          int   // different samples that a subscriber of that broker has got
	Waiting            int64 // samples queued and not acknowledged
}

const (
	bold  = "\x1b[1m"
	dim   = "\x1b[2m"
	green = "\x1b[32m"
	red   = "\x1b[31m"
	plain = "\x1b[0m"
)

// draw renders the view for a terminal of the given width, a line each, colours included.
func (v view) draw(width int) []string {
	clock := fmt.Sprintf("%d s", int(v.Elapsed.Seconds()))
	if v.Left > 0 {
		clock += fmt.Sprintf(", %d s to go", int(v.Left.Round(time.Second).Seconds()))
	}
	lines := []string{
		bold + "gateway demo" + plain + "  simulated devices, real transports and brokers" + dim + "  " + clock + plain,
		"",
		dim + cell("device", 11) + cell("bus", 20) + "reading" + plain,
	}
	for _, d := range v.Devices {
		lines = append(lines, cell(d.Device, 11)+cell(d.Bus, 20)+clip(d.Values, width-31))
	}
	lines = append(lines, "", dim+cell("destination", 13)+cell("broker", 24)+cell("link", 26)+cell("delivered", 11)+"waiting"+plain)
	for _, d := range v.Destinations {
		colour := red
		if d.Up {
			colour = green
		}
		lines = append(lines, cell(d.Name, 13)+cell(d.Broker, 24)+colour+cell(d.Link, 26)+plain+cell(fmt.Sprint(d.Delivered), 11)+fmt.Sprint(d.Waiting))
	}
	lines = append(lines, "", clip(v.Event, width))
	if v.Keys {
		lines = append(lines, "", dim+"u: take the upstream away, or bring it back    q: stop and print the account"+plain)
	}
	return lines
}

// text renders the view for logs and pipes: what one device says, each second another, and how the
// destinations fare.
func (v view) text() string {
	var b strings.Builder
	at := fmt.Sprintf("%3d s ", int(v.Elapsed.Seconds()))
	if n := len(v.Devices); n > 0 {
		d := v.Devices[int(v.Elapsed.Seconds())%n]
		fmt.Fprintf(&b, "%s  %s (%s): %s\n", at, d.Device, d.Bus, d.Values)
	}
	b.WriteString(at)
	for _, d := range v.Destinations {
		fmt.Fprintf(&b, "  %s: %s, %d delivered, %d waiting", d.Name, d.Link, d.Delivered, d.Waiting)
	}
	return b.String()
}

// cell pads or clips text to a column.
func cell(s string, width int) string {
	s = clip(s, width-1)
	return s + strings.Repeat(" ", width-utf8.RuneCountInString(s))
}

func clip(s string, width int) string {
	if width < 2 || utf8.RuneCountInString(s) <= width {
		return s
	}
	return string([]rune(s)[:width-1]) + "…"
}

// fit makes lines fit a terminal: none is wider, and with the line below they are not more than it has.
func fit(lines []string, width, height int) []string {
	if len(lines) >= height {
		lines = slices.DeleteFunc(lines, func(l string) bool { return l == "" })
		lines = lines[:min(len(lines), max(height-1, 1))]
	}
	for i, l := range lines {
		lines[i] = clipStyled(l, width)
	}
	return lines
}

// clipStyled is clip for a text with colours, which take no room.
func clipStyled(s string, width int) string {
	var b strings.Builder
	column, escape := 0, false
	for _, r := range s {
		switch {
		case r == '\x1b':
			escape = true
		case escape:
			escape = r != 'm'
		case column == width:
			return b.String() + plain
		default:
			column++
		}
		b.WriteRune(r)
	}
	return b.String()
}

// A screen redraws a view in place.
type screen struct {
	out           io.Writer
	size          func() (width, height int)
	width, height int
	drawn         int // lines on the terminal now
}

// show draws the view over the one before. The terminal is in raw mode, so lines end in \r\n.
func (s *screen) show(v view) {
	var b strings.Builder
	switch width, height := s.size(); {
	case s.drawn > 0 && (width != s.width || height != s.height):
		b.WriteString("\x1b[2J\x1b[H") // where the old lines are now only the terminal knows
		s.width, s.height = width, height
	case s.drawn > 0:
		fmt.Fprintf(&b, "\x1b[%dA", s.drawn)
	default:
		s.width, s.height = width, height
	}
	lines := fit(v.draw(s.width), s.width, s.height)
	for _, l := range lines {
		b.WriteString("\r" + l + "\x1b[K\r\n")
	}
	b.WriteString("\x1b[J")
	s.drawn = len(lines)
	_, _ = io.WriteString(s.out, b.String()) // a terminal that is gone ends the demo by its signal
}
