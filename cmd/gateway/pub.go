package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"strings"
	"time"

	"gateway/mqtt"
)

var pubCommand = command{
	name:    "pub",
	usage:   "-t TOPIC [-m TEXT | -f FILE | -n | -s | -l] [flags]",
	summary: "Publish messages to an MQTT broker.",
	run:     runPub,
}

func runPub(ctx context.Context, c call) error {
	f := c.flags(`
Without -m, -f, -n and -s each line of the standard input is a message. The command ends with success
when the broker has taken every message; at QoS 0, when they are sent. While the broker is away it
tries again, for as long as -W says.

Examples:
  gateway pub -t hall/lamp -m on -q 1
  sensor-log | gateway pub --url mqtts://broker.example.com -t sensors/raw -l`)
	var flags clientFlags
	flags.register(f)
	var m mqtt.Message
	var text, file string
	var null, whole, lines bool
	var expiry time.Duration
	f.StringVar(&m.Topic, "t", "", "the `topic`")
	f.StringVar(&text, "m", "", "the message's `text`")
	f.StringVar(&file, "f", "", "a `file` whose contents are the message")
	f.BoolVar(&null, "n", false, "an empty message; with -r it deletes the retained one")
	f.BoolVar(&whole, "s", false, "the standard input is one message")
	f.BoolVar(&lines, "l", false, "each line of the standard input is a message")
	qosVar(f, &m.QoS, "q", "the `QoS`: 0, 1 or 2 (default 0)")
	f.BoolVar(&m.Retain, "r", false, "the broker keeps the message for later subscribers")
	secondsVar(f, &flags.wait, "W", 30*time.Second, "the `duration` to wait for the broker, from the last message on; 0: for ever")
	f.StringVar(&m.ContentType, "content-type", "", "the content `type` (5.0)")
	f.StringVar(&m.ResponseTopic, "response-topic", "", "the `topic` for an answer (5.0)")
	correlation := f.String("correlation-data", "", "`text` that the answer shall carry (5.0)")
	secondsVar(f, &expiry, "expiry", 0, "the `duration` after which the message is of no use (5.0)")
	f.Func("property", "a user `property`, name=value (5.0); may be repeated", func(s string) error {
		name, value, ok := strings.Cut(s, "=")
		if !ok {
			return errors.New("is not name=value")
		}
		m.User = append(m.User, mqtt.UserProperty{Name: name, Value: value})
		return nil
	})
	f.BoolVar(&m.PayloadUTF8, "utf8", false, "say that the message is UTF-8 text (5.0)")
	var err error
	if c.args, err = expandProperties(f, c.args); err != nil {
		return err
	}
	if err := c.parse(f, 0, 0); err != nil {
		return err
	}
	given := map[string]bool{} // also an empty text is a message, and not the standard input
	f.Visit(func(x *flag.Flag) {
		if strings.Contains("mfnsl", x.Name) {
			given[x.Name] = true
		}
	})
	switch {
	case m.Topic == "":
		return usagef("-t says to which topic; it is missing")
	case mqtt.CheckTopicName(m.Topic) != nil:
		return usagef("-t: %v", mqtt.CheckTopicName(m.Topic))
	case len(given) > 1:
		return usagef("only one of -m, -f, -n, -s, -l can be the message")
	case expiry > math.MaxUint32*time.Second:
		return usagef("--expiry %v: is more than %d s", expiry, uint32(math.MaxUint32))
	}
	if *correlation != "" {
		m.CorrelationData = []byte(*correlation)
	}
	if expiry > 0 {
		m.HasExpiry, m.Expiry = true, uint32((expiry+time.Second-1)/time.Second)
	}
	o, err := flags.options(c)
	if err != nil {
		return err
	}
	var next func() ([]byte, error) // io.EOF after the last message
	switch {
	case given["f"]:
		b, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		next = once(b)
	case given["m"]:
		next = once([]byte(text))
	case null:
		next = once(nil)
	case whole:
		b, err := io.ReadAll(c.in)
		if err != nil {
			return err
		}
		next = once(b)
	default:
		next = readLines(c.in)
	}
	s, err := startSession(ctx, c, o)
	if err != nil {
		return err
	}
	defer s.end()
	return publishAll(ctx, s, m, next, flags.wait)
}

func once(b []byte) func() ([]byte, error) {
	done := false
	return func() ([]byte, error) {
		if done {
			return nil, io.EOF
		}
		done = true
		return b, nil
	}
}

func readLines(r io.Reader) func() ([]byte, error) {
	br := bufio.NewReader(r)
	return func() ([]byte, error) {
		line, err := br.ReadBytes('\n')
		if err == io.EOF && len(line) > 0 {
			return line, nil
		}
		if err != nil {
			return nil, err
		}
		line = line[:len(line)-1]
		if n := len(line); n > 0 && line[n-1] == '\r' {
			line = line[:n-1]
		}
		return line, nil
	}
}

// publishAll publishes each payload and waits until all are done.
func publishAll(ctx context.Context, s *session, m mqtt.Message, next func() ([]byte, error), wait time.Duration) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	results := make(chan error, 1)
	sent := make(chan int, 1)
	go func() {
		n := 0
		defer func() { sent <- n }()
		for {
			b, err := next()
			if err == io.EOF {
				return
			}
			if err == nil {
				one := m
				one.Payload = b
				err = s.Publish(ctx, &one, func(err error) {
					select {
					case results <- err:
					case <-ctx.Done():
					}
				})
			}
			if err != nil {
				cancel(err)
				return
			}
			n++
		}
	}()
	var late <-chan time.Time
	for total, done := -1, 0; total < 0 || done < total; {
		select {
		case err := <-results:
			if err != nil {
				return err
			}
			done++
		case total = <-sent:
			sent = nil
			if wait > 0 {
				t := time.NewTimer(wait)
				defer t.Stop()
				late = t.C
			}
		case err := <-s.fatal:
			return err
		case <-late:
			return s.why(fmt.Sprintf("%d of %d messages were not taken within %v", total-done, total, wait))
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	if err := context.Cause(ctx); err != nil {
		return err
	}
	return nil
}
