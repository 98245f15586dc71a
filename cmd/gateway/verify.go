package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"gateway/internal/verify"
	"gateway/mqtt"
	"gateway/mqtt/client"
)

var verifyStreamCommand = command{
	name:    "verify-stream",
	usage:   "[--url URL] [--for 1m] [TOPIC...]",
	summary: "Subscribe to a broker and prove that nothing of the stream is missing.",
	run:     runVerifyStream,
}

func runVerifyStream(ctx context.Context, c call) error {
	f := c.flags(`
Every sample names the one before it of the same device. This command follows that chain, in the formats
JSON and CBOR or, over MQTT 5.0, by the user properties of the others, and reports gaps, duplicates, and
samples that are out of order. A gap that a loss record of the gateway explains, on the topic of its
device "gateway", is said to be so; subscribe to that topic, too, and say with --destination which of the
gateway's this broker is: what another one lost explains nothing here. What was sent before the first
sample that it sees is not asked for.

With the format "value" the points of a device are one stream: subscribe to all of them.

It ends after --for, or at Ctrl-C, and prints its report.

Exit status: 0 when there is no gap without an explanation, 1 when there is, or nothing came.`)
	url := f.String("url", "mqtt://127.0.0.1:1883", "the broker's `url`: mqtt, mqtts, ws or wss")
	username := f.String("user", "", "the user `name`")
	f.StringVar(username, "username", "", "the same as --user")
	passwordFile := f.String("password-file", "", "the `file` that holds the password")
	caFile := f.String("cafile", "", "a PEM `file` of the authorities to trust instead of the system's")
	f.StringVar(caFile, "ca-file", "", "the same as --cafile")
	destination := f.String("destination", "", "`name` of the gateway's destination whose losses count; default: all")
	length := f.Duration("for", 0, "the `duration` to watch; 0: until Ctrl-C")
	quiet := f.Duration("quiet", 0, "end when no sample came for this `duration`; 0: never")
	asJSON := f.Bool("json", false, "print the report as JSON")
	if err := c.parse(f, 0, 1000); err != nil {
		return err
	}
	o := client.Options{URLs: []string{*url}, Username: *username}
	if *passwordFile != "" {
		secret, err := os.ReadFile(*passwordFile)
		if err != nil {
			return err
		}
		o.Password = []byte(strings.TrimRight(string(secret), "\r\n"))
	}
	if *caFile != "" {
		pem, err := os.ReadFile(*caFile)
		if err != nil {
			return err
		}
		o.TLS = &tls.Config{RootCAs: x509.NewCertPool(), MinVersion: tls.VersionTLS12}
		if !o.TLS.RootCAs.AppendCertsFromPEM(pem) {
			return fmt.Errorf("%s holds no certificate in PEM form", *caFile)
		}
	}
	filters := f.Args()
	if len(filters) == 0 {
		filters = []string{"#"}
	}
	if *length > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, *length)
		defer cancel()
	}
	checker := verify.NewChecker()
	checker.Destination = *destination
	report, err := verifyStream(ctx, c, o, filters, *quiet, checker)
	if err != nil {
		return err
	}
	if *asJSON {
		if err := json.NewEncoder(c.out).Encode(report); err != nil {
			return err
		}
	} else {
		printReport(c, &report)
	}
	switch {
	case report.Samples == 0 && report.Foreign > 0:
		return fmt.Errorf("%d messages came and none names a sample: the formats other than JSON and CBOR do so over MQTT 5.0 only, and with properties = true", report.Foreign)
	case report.Samples == 0:
		return fmt.Errorf("no sample came; is %s the broker, and do the topics fit?", *url)
	case report.Unexplained() > 0:
		return &exitError{exitFailure, nil}
	}
	return nil
}

// keptFor is how long the broker shall keep the subscription's session when the connection breaks: what
// comes meanwhile would else look lost.
const keptFor = 10 * time.Minute

// verifyStream follows the stream until ctx ends.
func verifyStream(ctx context.Context, c call, o client.Options, filters []string, quiet time.Duration, checker *verify.Checker) (verify.Report, error) {
	var mu sync.Mutex
	last := time.Now()
	var session client.State
	o.CleanStart, o.SessionExpiry = true, keptFor
	o.Handler = func(m mqtt.Message) {
		mu.Lock()
		defer mu.Unlock()
		if checker.Add(&m) == nil {
			last = time.Now()
		}
	}
	o.OnState = func(s client.State) {
		if s.Connected {
			mu.Lock()
			if session.Connected && !s.SessionPresent {
				checker.Interrupted()
			}
			session = s
			mu.Unlock()
		}
		if s.Err != nil && ctx.Err() == nil {
			fmt.Fprintf(c.err, "gateway verify-stream: %v; trying again in %v\n", s.Err, s.RetryIn.Round(time.Millisecond))
		}
	}
	cl, err := client.New(o)
	if err != nil {
		return verify.Report{}, err
	}
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan error, 1)
	go func() { ended <- cl.Run(running) }()
	var subs []mqtt.Subscription
	for _, filter := range filters {
		subs = append(subs, mqtt.Subscription{Filter: filter, QoS: mqtt.AtLeastOnce})
	}
	codes, err := cl.Subscribe(ctx, subs...)
	for i, code := range codes {
		if code.IsError() {
			err = fmt.Errorf("the broker refuses the subscription to %q: %v", filters[i], code)
		}
	}
	if err == nil || ctx.Err() != nil {
		err = nil
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
	wait:
		for {
			select {
			case <-ctx.Done():
				break wait
			case <-tick.C:
				mu.Lock()
				idle := time.Since(last)
				mu.Unlock()
				if quiet > 0 && idle > quiet {
					break wait
				}
			}
		}
	}
	stop()
	if e := <-ended; err == nil {
		err = e
	}
	mu.Lock()
	defer mu.Unlock()
	if session.Connected {
		endSession(o, session)
	}
	return checker.Report(), err
}

// endSession makes the broker forget the session, which would else gather messages for nobody.
func endSession(o client.Options, s client.State) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	o.ClientID, o.Version, o.SessionExpiry, o.Handler = s.ClientID, s.Version, 0, nil
	o.OnState = func(client.State) { cancel() }
	if cl, err := client.New(o); err == nil {
		_ = cl.Run(ctx) // it expires by itself where this fails
	}
}

// maxGapsShown keeps the report on a screen.
const maxGapsShown = 20

func printReport(c call, r *verify.Report) {
	fmt.Fprintln(c.out, r)
	for i, g := range r.Gaps {
		if i == maxGapsShown {
			fmt.Fprintf(c.out, "… and %d more\n", len(r.Gaps)-i)
			break
		}
		why := "not explained by any loss record"
		switch {
		case g.Explained && g.Destination != "":
			why = fmt.Sprintf("explained by a loss record (%s, destination %q)", g.Reason, g.Destination)
		case g.Explained:
			why = fmt.Sprintf("explained by a loss record (%s)", g.Reason)
		case g.Unseen:
			why = "it may have come while this subscription was interrupted, for which the broker kept nothing"
		}
		fmt.Fprintf(c.out, "%s: sample %d is missing, which %d names as the one before it: %s\n", g.Topic, g.Missing, g.Before, why)
	}
	if r.Epochs > 1 {
		fmt.Fprintf(c.out, "the queue was opened %d times\n", r.Epochs)
	}
	if r.Interruptions > 0 {
		fmt.Fprintf(c.out, "the subscription was interrupted %d times; what came meanwhile was not seen\n", r.Interruptions)
	}
	if r.Anew > 0 {
		fmt.Fprintf(c.out, "%d samples name none before them; what was before those is not proven\n", r.Anew)
	}
	if r.Unnamed > 0 {
		fmt.Fprintf(c.out, "the schemas of %d samples did not come, so nobody can name their values; they are on TOPIC/schema/#\n", r.Unnamed)
	}
	if r.Unexplained() == 0 && r.Samples > 0 {
		fmt.Fprintln(c.out, "nothing is missing without an explanation")
	}
}
