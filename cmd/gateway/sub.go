package main

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
	"unicode/utf8"

	"gateway/mqtt"
)

var subCommand = command{
	name:    "sub",
	usage:   "FILTER... [flags]",
	summary: "Subscribe to topics of an MQTT broker and print what comes.",
	run:     runSub,
}

func runSub(ctx context.Context, c call) error {
	f := c.flags(`
Messages go to the standard output, one per line. The format json prints an object with topic, payload
(payload_base64 where it is not UTF-8), qos, retain, the time of arrival and whatever properties the
message has. A connection that is lost is made again, and the subscriptions with it.

Examples:
  gateway sub -v '#'
  gateway sub -t 'boiler-room/#' --format json -C 10`)
	var flags clientFlags
	flags.register(f)
	var subs []mqtt.Subscription
	var opt mqtt.Subscription
	var count int
	var verbose, fresh, bare bool
	var format string
	f.Func("t", "a topic `filter`, as an argument is; may be repeated", func(s string) error {
		subs = append(subs, mqtt.Subscription{Filter: s})
		return mqtt.CheckTopicFilter(s)
	})
	qosVar(f, &opt.QoS, "q", "the highest `QoS` wanted: 0, 1 or 2 (default 0)")
	f.BoolVar(&verbose, "v", false, "print the topic before each message")
	f.BoolVar(&fresh, "R", false, "leave out messages that the broker had retained")
	f.BoolVar(&bare, "N", false, "no line end after a message")
	f.IntVar(&count, "C", 0, "end after so `many` messages")
	secondsVar(f, &flags.wait, "W", 0, "the `duration` after which to end; a failure where -C messages have not come by then")
	secondsVar(f, &flags.session, "session", 0, "the `duration` that the broker keeps messages for --id while we are away")
	f.BoolVar(&opt.NoLocal, "no-local", false, "not what this client published itself (5.0)")
	f.BoolVar(&opt.RetainAsPublished, "retain-as-published", false, "show whether messages were published to be retained (5.0)")
	f.StringVar(&format, "format", "text", "`text` or json")
	if err := c.parseMixed(f); err != nil {
		return err
	}
	for _, filter := range f.Args() {
		if err := mqtt.CheckTopicFilter(filter); err != nil {
			return &exitError{exitUsage, err}
		}
		subs = append(subs, mqtt.Subscription{Filter: filter})
	}
	switch {
	case len(subs) == 0:
		return usagef("which topics? Name a filter, such as '#' for all")
	case format != "text" && format != "json":
		return usagef("--format %s: is none of text, json", format)
	case count < 0:
		return usagef("-C %d: is negative", count)
	case flags.session > 0 && flags.id == "":
		return usagef("--session needs --id: a session belongs to an identifier")
	}
	for i := range subs {
		subs[i].QoS, subs[i].NoLocal, subs[i].RetainAsPublished = opt.QoS, opt.NoLocal, opt.RetainAsPublished
	}
	o, err := flags.options(c)
	if err != nil {
		return err
	}
	if flags.wait > 0 {
		var cancel func()
		ctx, cancel = context.WithTimeoutCause(ctx, flags.wait, errWaited)
		defer cancel()
	}
	p := &printer{until: make(chan struct{}), w: bufio.NewWriter(c.out), verbose: verbose, json: format == "json", bare: bare, fresh: fresh, left: count, done: make(chan error, 1)}
	o.Handler = p.print
	s, err := startSession(ctx, o)
	if err != nil {
		return err
	}
	defer s.end()
	defer close(p.until) // after the session's own context, or the next message would be handled
	defer s.cancel()
	subscribed := make(chan error, 1)
	sctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() { subscribed <- subscribe(sctx, s, subs) }()
	for {
		select {
		case err := <-subscribed:
			if err != nil && ctx.Err() == nil {
				return err
			}
			subscribed = nil
		case err := <-p.done:
			return err
		case err := <-s.fatal:
			return err
		case <-ctx.Done():
			if context.Cause(ctx) == errWaited && count > 0 {
				return s.why(fmt.Sprintf("%d messages did not come within %v", count, flags.wait))
			}
			return nil
		}
	}
}

var errWaited = errors.New("waited long enough")

func subscribe(ctx context.Context, s *session, subs []mqtt.Subscription) error {
	codes, err := s.Subscribe(ctx, subs...)
	if err != nil {
		return err
	}
	for i, code := range codes {
		if code.IsError() {
			return fmt.Errorf("subscription to %q refused: %v", subs[i].Filter, code)
		}
	}
	return nil
}

// A printer writes messages; the client calls it for one at a time. It keeps the last one until the session ends, so
// that those behind it are not acknowledged: where there is a session to come back to, they are for the next time.
type printer struct {
	until                      chan struct{}
	w                          *bufio.Writer
	verbose, json, bare, fresh bool
	left                       int // messages to print; counts down to 0 where it began above
	ended                      bool
	done                       chan error
}

func (p *printer) print(m mqtt.Message) {
	if p.ended || p.fresh && m.Retain {
		return
	}
	err := p.write(&m)
	if err == nil {
		err = p.w.Flush()
	}
	last := false
	if p.left > 0 {
		p.left--
		last = p.left == 0
	}
	if err != nil || last {
		p.ended = true
		p.done <- err
		<-p.until
	}
}

func (p *printer) write(m *mqtt.Message) error {
	if p.json {
		b, err := json.Marshal(jsonMessage(m, time.Now()))
		if err != nil {
			return err
		}
		p.w.Write(b)
		return p.w.WriteByte('\n')
	}
	if p.verbose {
		io.WriteString(p.w, m.Topic)
		p.w.WriteByte(' ')
	}
	_, err := p.w.Write(m.Payload)
	if err == nil && !p.bare {
		err = p.w.WriteByte('\n')
	}
	return err
}

type printedMessage struct {
	Time            time.Time           `json:"time"`
	Topic           string              `json:"topic"`
	Payload         *string             `json:"payload,omitempty"`
	PayloadBase64   string              `json:"payload_base64,omitempty"`
	QoS             mqtt.QoS            `json:"qos"`
	Retain          bool                `json:"retain"`
	Expiry          *uint32             `json:"expiry,omitempty"`
	ContentType     string              `json:"content_type,omitempty"`
	ResponseTopic   string              `json:"response_topic,omitempty"`
	CorrelationData string              `json:"correlation_data_base64,omitempty"`
	User            []map[string]string `json:"properties,omitempty"`
}

func jsonMessage(m *mqtt.Message, now time.Time) printedMessage {
	out := printedMessage{Time: now, Topic: m.Topic, QoS: m.QoS, Retain: m.Retain, ContentType: m.ContentType, ResponseTopic: m.ResponseTopic,
		CorrelationData: base64.StdEncoding.EncodeToString(m.CorrelationData)}
	if s := string(m.Payload); utf8.ValidString(s) {
		out.Payload = &s
	} else {
		out.PayloadBase64 = base64.StdEncoding.EncodeToString(m.Payload)
	}
	if m.HasExpiry {
		out.Expiry = &m.Expiry
	}
	for _, u := range m.User {
		out.User = append(out.User, map[string]string{u.Name: u.Value})
	}
	return out
}
