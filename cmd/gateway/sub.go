package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

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
message has. In a template stand %t for the topic, %p the payload (%x in hexadecimal, %l its length),
%q the qos, %r the retain flag, %I the time (%U since 1970), %C content type, %R response topic, %D correlation
data, %E expiry, %F format indicator, %P user properties, %j all of it as mosquitto_sub's JSON (%J with a
payload that is JSON), \n, \t and the like. A connection that is lost is made again, and the
subscriptions with it.

Examples:
  gateway sub -v '#'
  gateway sub -t 'boiler-room/#' --format json -C 10
  gateway sub -t 'boiler-room/#' -T boiler-room/gateway/# -F '%I %t %p'`)
	var flags clientFlags
	flags.register(f)
	var subs []mqtt.Subscription
	var opt mqtt.Subscription
	var count int
	var verbose, bare, keep, subscribeOnly bool
	var format string
	p := &printer{until: make(chan struct{}), w: bufio.NewWriter(c.out), done: make(chan error, 1)}
	f.Func("t", "a topic `filter`, as an argument is; may be repeated", func(s string) error {
		subs = append(subs, mqtt.Subscription{Filter: s})
		return mqtt.CheckTopicFilter(s)
	})
	qosVar(f, &opt.QoS, "q", "the highest `QoS` wanted: 0, 1 or 2 (default 0)")
	f.BoolVar(&verbose, "v", false, "print the topic before each message")
	f.BoolVar(&p.fresh, "R", false, "leave out messages that the broker had retained")
	f.BoolVar(&p.retained, "retained-only", false, "print retained messages only, and end with the first that is not")
	f.Func("T", "leave out topics that match this `filter`; may be repeated", func(s string) error {
		p.without = append(p.without, s)
		return mqtt.CheckTopicFilter(s)
	})
	f.BoolVar(&bare, "N", false, "no line end after a message")
	f.IntVar(&count, "C", 0, "end after this `number` of messages")
	secondsVar(f, &flags.wait, "W", 0, "the `duration` after which to end; a failure where the broker, or -C messages, have not come by then")
	secondsVar(f, &flags.session, "session", 0, "the `duration` that the broker keeps messages for --id while we are away")
	secondsVar(f, &flags.session, "x", 0, "the same as --session")
	f.BoolVar(&keep, "c", false, "the broker keeps them for ever")
	f.BoolVar(&subscribeOnly, "E", false, "end once subscribed")
	f.BoolVar(&opt.NoLocal, "no-local", false, "not what this client published itself (5.0)")
	f.BoolVar(&opt.RetainAsPublished, "retain-as-published", false, "show whether messages were published to be retained (5.0)")
	f.StringVar(&format, "format", "text", "text, json or a `template`, see below")
	f.StringVar(&format, "F", "text", "the same as --format")
	var err error
	if c.args, err = expandProperties(f, c.args); err != nil {
		return err
	}
	if err := c.parseMixed(f); err != nil {
		return err
	}
	for _, filter := range f.Args() {
		if err := mqtt.CheckTopicFilter(filter); err != nil {
			return &exitError{exitUsage, err}
		}
		subs = append(subs, mqtt.Subscription{Filter: filter})
	}
	if keep {
		flags.session = math.MaxUint32 * time.Second // (3.1.2.11.2)
	}
	if p.format, err = parseFormat(format, verbose); err != nil {
		return usagef("--format %s: %w", format, err)
	}
	p.left = count
	if !bare {
		p.end = "\n"
	}
	switch {
	case len(subs) == 0:
		return usagef("which topics? Name a filter, such as '#' for all")
	case count < 0:
		return usagef("-C %d: is negative", count)
	case p.fresh && p.retained:
		return usagef("-R and --retained-only leave nothing to print")
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
	o.Handler = p.print
	if subscribeOnly {
		o.Handler = func(mqtt.Message) { <-p.until } // they are for the next time
	}
	s, err := startSession(ctx, c, o)
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
	there := false
	for {
		select {
		case err := <-subscribed:
			if err != nil && ctx.Err() == nil || subscribeOnly {
				return err
			}
			there, subscribed = err == nil, nil
		case err := <-p.done:
			return err
		case err := <-s.fatal:
			return err
		case <-ctx.Done():
			if context.Cause(ctx) == errWaited && !there {
				return s.why(fmt.Sprintf("not subscribed within %v", flags.wait))
			}
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
	until           chan struct{}
	w               *bufio.Writer
	format          messageFormat
	end             string   // of a message
	fresh, retained bool     // only those that are not retained, only those that are
	without         []string // filters
	left            int      // messages to print; counts down to 0 where it began above
	ended           bool
	done            chan error
	line            []byte
}

func (p *printer) print(m mqtt.Message) {
	switch {
	case p.ended, p.fresh && m.Retain, slices.ContainsFunc(p.without, func(f string) bool { return mqtt.Match(f, m.Topic) }):
		return
	case p.retained && !m.Retain:
		p.finish(nil)
		return
	}
	err := p.write(&m)
	last := false
	if p.left > 0 {
		p.left--
		last = p.left == 0
	}
	if err != nil || last {
		p.finish(err)
	}
}

func (p *printer) finish(err error) {
	p.ended = true
	p.done <- err
	<-p.until
}

func (p *printer) write(m *mqtt.Message) (err error) {
	if p.line, err = p.format(p.line[:0], m, time.Now()); err != nil {
		return err
	}
	p.w.Write(append(p.line, p.end...))
	return p.w.Flush()
}
