// Package mqttbroker has foreign clients use the gateway's broker.
package mqttbroker

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"gateway/e2e/rig"
)

// A broker is the program `gateway broker` at work.
type broker struct {
	port int
	data string
	proc *rig.Process
	t    testing.TB
}

func newBroker(t testing.TB) *broker {
	b := &broker{port: rig.FreePort(t), data: t.TempDir(), t: t}
	b.start()
	return b
}

func (b *broker) addr() string { return fmt.Sprintf("127.0.0.1:%d", b.port) }

func (b *broker) start() {
	b.t.Helper()
	b.proc = rig.Start(b.t, rig.Binary(b.t), "broker", "--listen", b.addr(), "--data", b.data)
	rig.AwaitTCP(b.t, b.addr(), rig.Patience)
}

const patience = rig.Patience

// pub publishes with mosquitto_pub and waits for its end.
func (b *broker) pub(args ...string) {
	b.t.Helper()
	args = append([]string{"-h", "127.0.0.1", "-p", strconv.Itoa(b.port)}, args...)
	if out, err := exec.Command(rig.Need(b.t, "mosquitto_pub", "mosquitto-clients"), args...).CombinedOutput(); err != nil {
		b.t.Fatalf("mosquitto_pub %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// A subscriber is mosquitto_sub at work. It also tells what it sends and receives, which is not among its Lines.
type subscriber struct{ *rig.Process }

// Lines returns what the messages so far were printed as.
func (s subscriber) Lines() []string {
	return slices.DeleteFunc(s.Process.Lines(), func(l string) bool {
		return strings.HasPrefix(l, "Client ") || strings.HasPrefix(l, "Subscribed (")
	})
}

// sub starts mosquitto_sub, which has subscribed when sub returns.
func (b *broker) sub(args ...string) subscriber {
	b.t.Helper()
	args = append([]string{"-oL", rig.Need(b.t, "mosquitto_sub", "mosquitto-clients"), "-d", "-h", "127.0.0.1", "-p", strconv.Itoa(b.port)}, args...)
	p := rig.Start(b.t, rig.Need(b.t, "stdbuf", "coreutils"), args...)
	p.Await(b.t, patience, "SUBACK", rig.HasLine("received SUBACK"))
	return subscriber{p}
}

func versions(t *testing.T, test func(t *testing.T, v string)) {
	for _, v := range []string{"mqttv31", "mqttv311", "mqttv5"} {
		t.Run(v, func(t *testing.T) { test(t, v) })
	}
}

func TestMosquittoClientsAtEachQoS(t *testing.T) {
	b := newBroker(t)
	versions(t, func(t *testing.T, v string) {
		for _, qos := range []string{"0", "1", "2"} {
			topic := "t/" + v + "/" + qos
			b.pub("-V", v, "-t", topic, "-q", qos, "-r", "-m", "retained") // proves the subscription, too
			sub := b.sub("-V", v, "-t", topic, "-q", qos, "-C", "11", "-F", "%q %r %p")
			sub.Await(t, patience, "the retained message", rig.HasLine(qos+" 1 retained"))
			for i := range 10 {
				message := fmt.Sprint("live ", i)
				b.pub("-V", v, "-t", topic, "-q", qos, "-m", message)
				// Nothing tells a publisher of QoS 0 that its message came before the next one's.
				sub.Await(t, patience, message, rig.HasLine(message))
			}
			if code := sub.Wait(t, patience); code != 0 {
				t.Errorf("mosquitto_sub: exit %d", code)
			}
			for i := range 10 {
				if got := sub.Lines()[i+1]; got != fmt.Sprintf("%s 0 live %d", qos, i) {
					t.Errorf("message %d is %q", i, got)
				}
			}
		}
	})
}

func TestMosquittoRequestAndResponse(t *testing.T) {
	b := newBroker(t)
	responder := b.sub("-V", "mqttv5", "-t", "ask", "-C", "1", "-F", "%R %D")
	rr := rig.Start(t, rig.Need(t, "mosquitto_rr", "mosquitto-clients"), "-V", "mqttv5", "-h", "127.0.0.1", "-p", strconv.Itoa(b.port), "-t", "ask", "-e", "answer", "-m", "question", "-D", "publish", "correlation-data", "42")
	if code := responder.Wait(t, patience); code != 0 || responder.Lines()[0] != "answer 42" {
		t.Fatalf("the request: exit %d, %q", code, responder.Lines())
	}
	b.pub("-V", "mqttv5", "-t", "answer", "-m", "reply", "-D", "publish", "correlation-data", "42")
	if code := rr.Wait(t, patience); code != 0 || len(rr.Lines()) == 0 || rr.Lines()[0] != "reply" {
		t.Errorf("mosquitto_rr: exit %d, %q", code, rr.Lines())
	}
}

func TestWillOfAKilledMosquittoSub(t *testing.T) {
	b := newBroker(t)
	versions(t, func(t *testing.T, v string) {
		watch := b.sub("-V", v, "-t", "will", "-C", "1")
		mortal := b.sub("-V", v, "-t", "x", "--will-topic", "will", "--will-payload", "gone", "--will-qos", "1")
		mortal.Kill()
		if watch.Wait(t, patience) != 0 || watch.Lines()[0] != "gone" {
			t.Errorf("watcher got %q", watch.Lines())
		}
	})
}

// A session with its queue survives kill -9 of the broker.
func TestQueuedMessagesSurviveAKilledBroker(t *testing.T) {
	b := newBroker(t)
	versions(t, func(t *testing.T, v string) {
		session := []string{"-V", v, "-i", "keeper", "-c", "-t", "q/#", "-q", "2"}
		b.sub(append(session, "-E")...).Wait(t, patience)
		for i := range 20 {
			b.pub("-V", v, "-t", "q/"+fmt.Sprint(i), "-q", fmt.Sprint(1+i%2), "-m", fmt.Sprint(i))
		}
		b.pub("-V", v, "-t", "kept", "-q", "1", "-r", "-m", v)
		b.proc.Kill()
		b.start()
		sub := b.sub(append(session, "-C", "20")...)
		if code := sub.Wait(t, patience); code != 0 {
			t.Fatalf("mosquitto_sub: exit %d with %q", code, sub.Lines())
		}
		// mosquitto_sub shows a message of QoS 2 when its handshake is over, so the two qualities have an
		// order each.
		next := [2]int{0, 1}
		for _, line := range sub.Lines() {
			n, err := strconv.Atoi(line)
			if err != nil || n != next[n%2] {
				t.Fatalf("got %q", sub.Lines())
			}
			next[n%2] += 2
		}
		kept := b.sub("-V", v, "-t", "kept", "-C", "1")
		if kept.Wait(t, patience) != 0 || kept.Lines()[0] != v {
			t.Errorf("retained: %q", kept.Lines())
		}
		clean := []string{"-V", v, "-i", "keeper", "-t", "q/#", "-E"}
		b.sub(clean...).Wait(t, patience)
	})
}

// run has a script of another language do its work against the broker; it prints ok at the end.
func (b *broker) run(dir, name string, args ...string) {
	b.t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	p := rig.StartCmd(b.t, cmd)
	if code := p.Wait(b.t, 2*patience); code != 0 || len(p.Lines()) == 0 || p.Lines()[len(p.Lines())-1] != "ok" {
		b.t.Fatalf("%s: exit %d\n%s\n%s", name, code, strings.Join(p.Lines(), "\n"), p.Stderr())
	}
}

func TestPahoPython(t *testing.T) {
	b := newBroker(t)
	script, err := filepath.Abs("testdata/paho_client.py")
	if err != nil {
		t.Fatal(err)
	}
	b.run(t.TempDir(), rig.Need(t, "/usr/bin/python3", "python3-paho-mqtt"), script, strconv.Itoa(b.port))
}

// The version of mqtt from npm that was tried.
const npmVersion = "5.14.1"

func TestMQTTjs(t *testing.T) {
	b := newBroker(t)
	dir := t.TempDir()
	script, err := os.ReadFile("testdata/mqtt.mjs")
	if err != nil {
		t.Fatal(err)
	}
	rig.Write(t, dir, "mqtt.mjs", string(script))
	rig.Write(t, dir, "package.json", `{"private": true}`)
	install := exec.Command(rig.Need(t, "npm", "npm"), "install", "--silent", "--no-audit", "--no-fund", "--fetch-retries", "5", "mqtt@"+npmVersion)
	install.Dir = dir
	if out, err := install.CombinedOutput(); err != nil {
		t.Fatalf("npm install: %v\n%s", err, out)
	}
	b.run(dir, rig.Need(t, "node", "nodejs"), "mqtt.mjs", strconv.Itoa(b.port))
}
