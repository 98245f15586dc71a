// Package delivery tests the way from the queue to brokers that we did not write, through links that
// stall, drop and delay.
package delivery

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"gateway/e2e/load"
	"gateway/e2e/rig"
)

// The full lengths of the issue: go test ./delivery -outage 60s
var outage = flag.Duration("outage", 8*time.Second, "how long the broker is away")

const devices, readings = 10, 20

// patient is a device's timeout. What the meter has answered it has counted: where the machine stands still for as long
// as a timeout is otherwise, the gateway would give up an answer that is already there.
const patient = "20s"

// plant is a meter with ten devices and a gateway's configuration that publishes to url.
func plant(t *testing.T, url, more string) (*load.Meter, string) {
	t.Helper()
	meter, err := load.NewMeter()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(meter.Close)
	broker := fmt.Sprintf("\n[broker]\nlisten = [\"127.0.0.1:%d\"]\n", rig.FreePort(t))
	return meter, load.Config("plant", rig.DataDir(t), meter.Addr(), devices, readings, "1s", patient,
		broker+fmt.Sprintf("\n[[destination]]\nname = \"cloud\"\nurl = %q\n%s", url, more))
}

func subscribe(t *testing.T, url string) *load.Subscriber {
	t.Helper()
	s, err := load.NewSubscriber(url, "counter", "plant", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// polls is the sum of all devices' polls.
func polls(m *load.Meter) (n int) {
	for i := range devices {
		n += m.Polls(byte(i + 1))
	}
	return n
}

// settle waits until every poll that was answered before it was called has arrived.
func settle(t *testing.T, m *load.Meter, s *load.Subscriber, missing int) {
	t.Helper()
	rig.Eventually(t, rig.Patience, "three polls of each device", func() bool { return polls(m) >= 3*devices })
	n := polls(m)
	rig.Eventually(t, rig.Patience, fmt.Sprintf("arrival of %d polls", n), func() bool { return s.Came() >= n-missing })
}

// account fails the test for anything lost: a poll beyond those that a kill may catch between the
// wire and the queue, or any sample of the chain. What was polled before it was called may yet
// arrive, for polls go on while a backlog is delivered.
func account(t *testing.T, m *load.Meter, s *load.Subscriber, perDevice, mostTwice int) {
	t.Helper()
	var polled, came, again [devices]int
	for i := range devices {
		polled[i] = m.Polls(byte(i + 1))
	}
	whole := func() bool {
		ok := true
		for i := range devices {
			came[i], again[i] = s.Tally(fmt.Sprintf("d%d", i+1), polled[i])
			ok = ok && polled[i]-came[i] <= perDevice
		}
		return ok
	}
	for deadline := time.Now().Add(rig.Patience); !whole() && time.Now().Before(deadline); {
		time.Sleep(20 * time.Millisecond)
	}
	twice := 0
	for i := range devices {
		twice += again[i]
		if lost := polled[i] - came[i]; lost > perDevice {
			t.Errorf("d%d: %d of %d polls did not arrive", i+1, lost, polled[i])
		}
	}
	r := s.Report()
	t.Logf("%v; %d polls twice", &r, twice)
	if len(r.Gaps) > 0 {
		t.Errorf("the chain has gaps: %+v", r.Gaps)
	}
	if twice > mostTwice {
		t.Errorf("%d arrived twice, at most %d may", twice, mostTwice)
	}
}

func TestAnOutageLosesNothing(t *testing.T) {
	mosquitto := rig.NewMosquitto(t, "")
	meter, conf := plant(t, mosquitto.URL(), `order = "oldest-first"`)
	s := subscribe(t, mosquitto.URL())
	rig.Gateway(t, conf)
	settle(t, meter, s, devices)
	mosquitto.Stop()
	time.Sleep(*outage)
	mosquitto.Start()
	back := time.Now()
	settle(t, meter, s, devices)
	t.Logf("all there %v after the broker's return", time.Since(back).Round(10*time.Millisecond))
	account(t, meter, s, 0, 64)
	if r := s.Report(); r.Reordered > 0 {
		t.Errorf("%d out of order", r.Reordered)
	}
}

func TestAnOutageWithAKillOfTheGatewayLosesNothingThatWasQueued(t *testing.T) {
	mosquitto := rig.NewMosquitto(t, "")
	meter, conf := plant(t, mosquitto.URL(), "")
	s := subscribe(t, mosquitto.URL())
	gateway := rig.Gateway(t, conf)
	settle(t, meter, s, devices)
	mosquitto.Stop()
	time.Sleep(*outage / 2)
	gateway.Kill()
	rig.Gateway(t, conf)
	time.Sleep(*outage / 2)
	mosquitto.Start()
	settle(t, meter, s, 3*devices)
	// The window, and what was acknowledged since the cursors were noted last.
	account(t, meter, s, 1, 64+5*devices)
}

// What the account says was delivered is what arrived, each sample once: what a crash has sent again is counted
// once, and what was delivered before it is not forgotten. What is waiting in the end may have arrived.
func TestTheAccountIsWhatArrivedThroughKillsOfTheGateway(t *testing.T) {
	mosquitto := rig.NewMosquitto(t, "")
	_, conf := plant(t, mosquitto.URL(), "")
	s := subscribe(t, mosquitto.URL())
	gateway := rig.Gateway(t, conf)
	lives := func(n int) { // each begins an epoch, of which three polls of each device are to arrive
		rig.Eventually(t, 30*time.Second, fmt.Sprintf("samples of the gateway's life %d", n), func() bool {
			r := s.Report()
			return r.Epochs == n && s.Came() >= n*3*devices
		})
	}
	for kills := range 3 {
		lives(kills + 1)
		gateway.Kill()
		gateway = rig.Gateway(t, conf)
	}
	lives(4)
	if code := gateway.Stop(t, 20*time.Second); code != 0 {
		t.Errorf("it ended with %d: %s", code, gateway.Stderr())
	}
	var account struct {
		Destinations map[string]struct {
			Delivered, Waiting uint64
			Lost               map[string]uint64
		}
	}
	_, data, _ := strings.Cut(conf, "data = ")
	dir, err := strconv.QuotedPrefix(data)
	if err == nil {
		dir, err = strconv.Unquote(dir)
	}
	if err != nil {
		t.Fatal(err)
	}
	kept, err := os.ReadFile(filepath.Join(dir, "account"))
	if err == nil {
		err = json.Unmarshal(kept, &account)
	}
	if err != nil {
		t.Fatal(err)
	}
	cloud := account.Destinations["cloud"]
	rig.Eventually(t, 10*time.Second, fmt.Sprintf("arrival of the %d that were delivered", cloud.Delivered), func() bool {
		r := s.Report()
		return r.Samples >= cloud.Delivered
	})
	if r := s.Report(); r.Samples > cloud.Delivered+cloud.Waiting || len(cloud.Lost) > 0 {
		t.Errorf("%d samples arrived; the account: %+v", r.Samples, cloud)
	}
}

func TestABrokerThatIsAwayAtTheStartCostsNothing(t *testing.T) {
	mosquitto := rig.NewMosquitto(t, "")
	meter, conf := plant(t, mosquitto.URL(), "")
	s := subscribe(t, mosquitto.URL())
	mosquitto.Stop()
	began := time.Now()
	rig.Gateway(t, conf)
	rig.Eventually(t, rig.Patience, "first polls", func() bool { return polls(meter) >= devices })
	t.Logf("first polls after %v", time.Since(began).Round(time.Millisecond))
	time.Sleep(3 * time.Second)
	mosquitto.Start()
	settle(t, meter, s, devices)
	account(t, meter, s, 0, 64)
}

// A cable that is cut sends no RST: only the keep alive notices.
func TestACutCableIsNoticedWithinOneAndAHalfKeepAlives(t *testing.T) {
	mosquitto := rig.NewMosquitto(t, "")
	proxy, err := load.NewProxy(strings.TrimPrefix(mosquitto.URL(), "mqtt://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(proxy.Close)
	meter, conf := plant(t, proxy.URL(), `keep_alive = "8s"`)
	s := subscribe(t, mosquitto.URL())
	rig.Gateway(t, conf)
	settle(t, meter, s, devices)
	before, pauses := proxy.Accepted(), rig.WatchPauses(t)
	proxy.Stall(true)
	cut := time.Now()
	rig.Eventually(t, rig.Patience, "new connection", func() bool { return proxy.Accepted() > before })
	// And at most 250 ms until it is dialled anew.
	if took := pauses.Between(cut, time.Now()); took > 13*time.Second {
		t.Errorf("noticed after %v, keep alive 8s", took)
	} else {
		t.Logf("noticed after %v", took.Round(time.Millisecond))
	}
	proxy.Drop(false)
	proxy.Stall(false)
	settle(t, meter, s, devices)
	account(t, meter, s, 0, 128)
}

// quiet is for how long nothing comes when a verify-stream ends: the gateway has ended, and not been slow.
const quiet = "10s"

// morePolls waits until each device has been polled so many times more.
func morePolls(t *testing.T, m *load.Meter, times int) {
	t.Helper()
	n := polls(m) + times*devices
	rig.Eventually(t, rig.Patience, fmt.Sprintf("%d more polls of each device", times), func() bool { return polls(m) >= n })
}

// What a user proves with on his own broker: the command sees a whole stream as whole.
func TestVerifyStreamFindsNothingMissingThroughAnOutage(t *testing.T) {
	mosquitto := rig.NewMosquitto(t, "")
	proxy := proxyTo(t, mosquitto.URL())
	meter, conf := plant(t, proxy.URL(), "")
	verify := rig.Start(t, rig.Binary(t), "verify-stream", "--url", mosquitto.URL(), "--quiet", quiet, "plant/#")
	gateway := rig.Gateway(t, conf)
	morePolls(t, meter, 3)
	proxy.Stall(true)
	proxy.Drop(false)
	morePolls(t, meter, 2)
	proxy.Stall(false)
	morePolls(t, meter, 4)
	gateway.Stop(t, rig.Patience)
	if code := verify.Wait(t, rig.Patience); code != 0 {
		t.Errorf("exit %d: %s", code, verify.Stderr())
	}
	text := strings.Join(verify.Lines(), "\n")
	t.Log(text)
	if !strings.Contains(text, "0 gaps") || !strings.Contains(text, "on 10 topics") || !strings.Contains(text, "nothing is missing") {
		t.Error("the report says otherwise")
	}
}

// Whatever the format, the command follows the chain: in the payload, packed or not, or by the user
// properties. The links break meanwhile, and one destination gets a point only that is not in every
// sample.
func TestVerifyStreamReadsEveryFormat(t *testing.T) {
	formats := map[string]string{
		"json":    "",
		"packed":  "compression = \"zstd\"\nbatch = { samples = 5 }",
		"value":   "format = \"value\"\ntopic = \"value/{gateway}/{device}/{point}\"",
		"influx":  "format = \"influx\"",
		"lines":   "format = \"influx\"\ncompression = \"gzip\"\nbatch = { samples = 5 }",
		"senml":   "format = \"senml\"",
		"cbor":    "format = \"senml-cbor\"\nbatch = { samples = 5 }",
		"compact": "format = \"cbor\"",
		"both":    "format = \"cbor\"\ncompression = \"zstd\"\nbatch = { samples = 5 }",
		"written": "format = \"template\"\ntemplate = \"{{.Device}} {{.Seq}}\"",
		"part":    "points = [\"r2\"]",
	}
	mosquitto := rig.NewMosquitto(t, "")
	proxy := proxyTo(t, mosquitto.URL())
	meter, err := load.NewMeter()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(meter.Close)
	conf := load.Config("plant", rig.DataDir(t), meter.Addr(), devices, 4, "100ms", patient, "[broker]\nenabled = false\n\n[[report]]\npoints = [\"r2\"]\ndeadband = 3\n")
	verifiers := map[string]*rig.Process{}
	for name, more := range formats {
		if !strings.Contains(more, "topic") {
			more += fmt.Sprintf("\ntopic = \"%s/{gateway}/{device}\"", name)
		}
		conf += destination(name, proxy.URL(), more+"\nannounce = false")
		verifiers[name] = rig.Start(t, rig.Binary(t), "verify-stream", "--url", mosquitto.URL(), "--quiet", quiet, name+"/#")
	}
	gateway := rig.Gateway(t, conf)
	for range 3 {
		morePolls(t, meter, 20)
		proxy.Drop(false)
	}
	morePolls(t, meter, 30)
	gateway.Stop(t, rig.Patience)
	for name, v := range verifiers {
		if code := v.Wait(t, rig.Patience); code != 0 {
			t.Errorf("%s: exit %d: %s", name, code, v.Stderr())
		}
		text := strings.Join(v.Lines(), "\n")
		t.Logf("%s: %s", name, text)
		if !strings.Contains(text, "0 gaps") || !strings.Contains(text, "nothing is missing") || strings.Contains(text, "name none before them") {
			t.Errorf("%s: the report says otherwise", name)
		}
	}
}
