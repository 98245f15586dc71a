package delivery

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"gateway/e2e/load"
	"gateway/e2e/rig"
	"gateway/mqtt"
	"gateway/mqtt/packet"
)

// logged waits for a line of the log about a destination that has all the words.
func logged(t *testing.T, p *rig.Process, destination string, words ...string) {
	t.Helper()
	rig.Eventually(t, rig.Patience, fmt.Sprintf("line about %s with %q", destination, words), func() bool {
		return slices.ContainsFunc(strings.Split(p.Stderr(), "\n"), func(line string) bool {
			return strings.Contains(line, "destination="+destination) && !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(line, w) })
		})
	})
}

func destination(name, url, more string) string {
	return fmt.Sprintf("\n[[destination]]\nname = %q\nurl = %q\n%s\n", name, url, more)
}

// Six destinations are wrong, each in its own way; the seventh gets everything, in order, and the one
// whose password is mended gets all that waited.
func TestADestinationThatCannotBeReachedSaysWhyAndDisturbsNoOther(t *testing.T) {
	dir := t.TempDir()
	passwords := filepath.Join(dir, "passwords")
	passwd := func(args ...string) {
		t.Helper()
		if out, err := exec.Command(rig.Need(t, "mosquitto_passwd", "mosquitto"), args...).CombinedOutput(); err != nil {
			t.Fatalf("mosquitto_passwd: %v: %s", err, out)
		}
	}
	passwd("-b", "-c", passwords, "plant", "another")
	passwd("-b", passwords, "counter", "counts")
	strict := rig.NewMosquitto(t, "allow_anonymous false\npassword_file "+passwords)
	waiting := rig.Start(t, rig.Need(t, "stdbuf", "coreutils"), "-oL", rig.Need(t, "mosquitto_sub", "mosquitto-clients"),
		"-h", "127.0.0.1", "-p", fmt.Sprint(strict.Port), "-u", "counter", "-P", "counts", "-q", "1", "-t", "plant/d1")
	ca, other := issue(t, nil, time.Now().Add(time.Hour)), issue(t, nil, time.Now().Add(time.Hour))
	secure := func(p *paper) string {
		m := rig.NewMosquitto(t, "certfile "+p.certFile+"\nkeyfile "+p.keyFile)
		return strings.Replace(m.URL(), "mqtt://", "mqtts://", 1)
	}
	good := secure(issue(t, ca, time.Now().Add(time.Hour)))
	expired := secure(issue(t, ca, time.Now().Add(-time.Hour)))
	picky := (&oddBroker{connack: func() packet.Connack { return packet.Connack{Code: mqtt.ClientIDNotValid} }}).start(t)
	refusing := (&oddBroker{publish: func(p *packet.Publish) *packet.Puback { return &packet.Puback{ID: p.ID, Code: mqtt.NotAuthorized} }}).start(t)
	miscounting := (&oddBroker{publish: func(p *packet.Publish) *packet.Puback { return &packet.Puback{ID: p.ID + 1000} }}).start(t)
	mosquitto := rig.NewMosquitto(t, "")
	s := subscribe(t, mosquitto.URL())

	secret := rig.Write(t, dir, "secret", "right")
	meter, conf := plant(t, mosquitto.URL(), strings.Join([]string{
		destination("credentials", strict.URL(), "username = \"plant\"\npassword_file = \""+secret+"\""),
		destination("authority", good, "ca_file = \""+other.certFile+"\""),
		destination("expired", expired, "ca_file = \""+ca.certFile+"\""),
		destination("identifier", picky.url(), ""),
		destination("refusing", refusing.url(), ""),
		destination("miscounting", miscounting.url(), ""),
		destination("trusted", good, "ca_file = \""+ca.certFile+"\""),
	}, ""))
	gateway := rig.Gateway(t, conf)
	logged(t, gateway, "credentials", "not connected", "not authorized")
	logged(t, gateway, "authority", "not connected", "unknown authority")
	logged(t, gateway, "expired", "not connected", "expired")
	logged(t, gateway, "identifier", "not connected", "client identifier not valid")
	logged(t, gateway, "refusing", "takes nothing for now", "not authorized", "retry_in")
	logged(t, gateway, "miscounting", "not in flight")
	logged(t, gateway, "trusted", "connected")
	rig.Eventually(t, rig.Patience, "second attempt with the refused identifier", func() bool {
		return picky.count(func() int { return picky.attempts }) > 1
	})
	settle(t, meter, s, devices)
	account(t, meter, s, 0, 0)
	if r := s.Report(); r.Reordered > 0 {
		t.Errorf("%d out of order", r.Reordered)
	}
	if strings.Contains(gateway.Stderr(), "set aside") {
		t.Error("a sample was set aside, where all are refused or none can be sent")
	}

	passwd("-b", passwords, "plant", "right")
	strict.Process().Signal(syscall.SIGHUP)
	logged(t, gateway, "credentials", "INFO mqtt client: connected")
	waiting.Await(t, rig.Patience, "five samples", func(lines []string) bool { return len(lines) >= 5 })
	if first := waiting.Lines()[0]; !strings.Contains(first, `"seq":`) || strings.Contains(first, `"prev":`) {
		t.Errorf("the backlog does not begin with the device's first sample: %s", first)
	}
}

// A payload above the broker's maximum packet size is set aside by itself; its neighbours arrive.
func TestAPayloadAboveTheBrokersMaximumIsSetAside(t *testing.T) {
	mosquitto := rig.NewMosquitto(t, "max_packet_size 1200")
	s := subscribe(t, mosquitto.URL())
	meter, conf := plant(t, mosquitto.URL(), "announce = false")
	gateway := rig.Gateway(t, conf+bigDevice(meter, "big"))
	logged(t, gateway, "cloud", "set aside", "packet too large")
	settle(t, meter, s, 2*devices)
	account(t, meter, s, 0, 0)
	if came, _ := s.Tally("big", 1); came > 0 {
		t.Error("the payload above the maximum arrived")
	}
}

// bigDevice is the configuration of one more device whose samples are of about two kilobytes.
func bigDevice(meter *load.Meter, name string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "\n[[modbus]]\nname = \"more\"\naddress = %q\n\n  [[modbus.device]]\n  name = %q\n  unit = 100\n  interval = \"1s\"\n  points = [\n", meter.Addr(), name)
	b.WriteString("    { name = \"n\", holding = 0, type = \"uint32\" },\n")
	for i := 2; i < 80; i++ {
		fmt.Fprintf(&b, "    { name = \"a_rather_long_name_%d\", holding = %d },\n", i, i)
	}
	b.WriteString("  ]\n")
	return b.String()
}

// A broker of 3.1.1 can only hang up. The sample that makes it do so is found and set aside, the others
// arrive, and 'gateway queue retry' sends it again once the broker takes it.
func TestASampleThatMakesTheBrokerHangUpIsFoundAndRetried(t *testing.T) {
	mosquitto := rig.NewMosquitto(t, "")
	var mended atomic.Bool
	var poison atomic.Pointer[string]
	again := make(chan struct{})
	var once sync.Once
	odd := (&oddBroker{publish: func(p *packet.Publish) *packet.Puback {
		// The epoch and the sequence; when it is sent again it says that it is historical.
		name, _, _ := strings.Cut(string(p.Payload), `,"time"`)
		name, _, _ = strings.Cut(name, `,"prev"`)
		if p.Topic == "plant/d3" && poison.CompareAndSwap(nil, &name) || poison.Load() != nil && *poison.Load() == name {
			if !mended.Load() {
				return nil
			}
			once.Do(func() { close(again) })
		}
		return &packet.Puback{ID: p.ID}
	}}).start(t)
	meter, conf := plant(t, mosquitto.URL(), destination("old", odd.url(), "version = \"3.1.1\""))
	s := subscribe(t, mosquitto.URL())
	path := rig.Write(t, t.TempDir(), "gateway.toml", conf)
	gateway := rig.Start(t, rig.Binary(t), "run", "--config", path)
	rig.Eventually(t, rig.Patience, "sample set aside", func() bool { return strings.Contains(gateway.Stderr(), "a sample was set aside") })
	logged(t, gateway, "old", "one at a time")
	breaks := odd.count(func() int { return odd.broken })
	t.Logf("found after %d broken connections", breaks)
	if breaks < 3 {
		t.Errorf("set aside after %d broken connections only", breaks)
	}
	before := odd.count(func() int { return odd.acked["plant/d3"] })
	rig.Eventually(t, rig.Patience, "later samples of the same device", func() bool { return odd.count(func() int { return odd.acked["plant/d3"] }) > before+1 })
	if n := strings.Count(gateway.Stderr(), "a sample was set aside"); n != 1 {
		t.Errorf("%d samples were set aside, one is poison", n)
	}
	settle(t, meter, s, devices)
	account(t, meter, s, 0, 0) // the other destination saw nothing of it

	mended.Store(true)
	retry := rig.Start(t, rig.Binary(t), "queue", "retry", "--config", path, "old")
	if code := retry.Wait(t, rig.Patience); code != 0 {
		t.Fatalf("queue retry: exit %d: %s", code, retry.Stderr())
	}
	if text := strings.Join(retry.Lines(), "\n"); !strings.Contains(text, "old: 1 samples are sent again") {
		t.Errorf("queue retry said %q", text)
	}
	select {
	case <-again:
	case <-time.After(20 * time.Second):
		t.Error("the sample set aside did not come again")
	}
}
