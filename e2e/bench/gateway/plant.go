package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"gateway/e2e/load"
)

// A plant is all that is around the gateway: devices, an upstream broker behind a link, and who listens
// there.
type plant struct {
	r         *result
	binary    string
	conf      string
	meter     *load.Meter
	mosquitto func()
	proxy     *load.Proxy
	sub       *load.Subscriber
}

func newPlant(ctx context.Context, dir, binary string, r *result, more string) (_ *plant, err error) {
	p := &plant{r: r, binary: binary}
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	if p.meter, err = load.NewMeter(); err != nil {
		return nil, err
	}
	for i := range r.silent {
		p.meter.Mute(byte(r.devices - i))
	}
	stop, url, err := startMosquitto(ctx, dir)
	if err != nil {
		return nil, err
	}
	p.mosquitto = stop
	if p.proxy, err = load.NewProxy(strings.TrimPrefix(url, "mqtt://")); err != nil {
		return nil, err
	}
	p.sub, err = load.NewSubscriber(url, "counter", "plant", func(device string, n int, at time.Time) {
		unit, _ := strconv.Atoi(strings.TrimPrefix(device, "d"))
		r.mu.Lock()
		defer r.mu.Unlock()
		if answered, ok := p.meter.Answered(byte(unit), n); ok && r.measuring {
			r.latency = append(r.latency, at.Sub(answered))
		}
	})
	if err != nil {
		return nil, err
	}
	data, err := os.MkdirTemp(dir, "data-")
	if err != nil {
		return nil, err
	}
	local, err := freePort()
	if err != nil {
		return nil, err
	}
	p.conf = filepath.Join(data, "gateway.toml")
	text := load.Config("plant", data, p.meter.Addr(), r.devices, r.readings, "1s", "1s",
		fmt.Sprintf("[broker]\nlisten = [\"127.0.0.1:%d\"]\n\n[[destination]]\nname = \"cloud\"\nurl = %q\n%s\n", local, p.proxy.URL(), more))
	return p, os.WriteFile(p.conf, []byte(text), 0o600)
}

func (p *plant) close() {
	if p.sub != nil {
		p.sub.Close()
	}
	if p.proxy != nil {
		p.proxy.Close()
	}
	if p.mosquitto != nil {
		p.mosquitto()
	}
	if p.meter != nil {
		p.meter.Close()
	}
}

// A process is a gateway that runs.
type process struct {
	*exec.Cmd
	began time.Time
	ended chan error
}

// patience is how long a process may take to start or to stop.
const patience = time.Minute

// start starts the gateway and waits for its first reading.
func (p *plant) start(ctx context.Context) (*process, error) {
	g := &process{Cmd: exec.Command(p.binary, "run", "--config", p.conf, "--log", "warn"), began: time.Now(), ended: make(chan error, 1)}
	g.Stderr = os.Stderr
	came := p.sub.Came()
	if err := g.Start(); err != nil {
		return nil, err
	}
	go func() { g.ended <- g.Wait() }()
	if err := wait(ctx, g.ended, patience, func() bool { return p.sub.Came() > came }); err != nil {
		g.kill()
		return nil, fmt.Errorf("no reading came: %w", err)
	}
	return g, nil
}

// kill ends the process as a crash does.
func (g *process) kill() {
	g.Process.Kill()
	g.ended <- <-g.ended // whoever asks later finds it, too
}

// stop ends the process in order.
func (g *process) stop() error {
	g.Process.Signal(os.Interrupt)
	select {
	case err := <-g.ended:
		g.ended <- err
		return nil
	case <-time.After(patience):
		return errors.New("the gateway did not stop")
	}
}

// settle waits for what is still under way, and counts what was lost and what came twice.
func (p *plant) settle(ctx context.Context) {
	r := p.r
	total := r.sum(p.meter)
	_ = wait(ctx, nil, 3*time.Second, func() bool { return p.sub.Came() >= total }) // what has not come is counted below
	for i := 1; i <= r.devices; i++ {
		n := p.meter.Polls(byte(i))
		came, again := p.sub.Tally(fmt.Sprintf("d%d", i), n)
		r.lost += n - came
		r.twice += again
	}
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// startMosquitto starts Debian's broker and returns how to end it.
func startMosquitto(ctx context.Context, dir string) (stop func(), url string, err error) {
	port, err := freePort()
	if err != nil {
		return nil, "", err
	}
	conf := filepath.Join(dir, fmt.Sprintf("mosquitto-%d.conf", port))
	text := fmt.Sprintf("listener %d 127.0.0.1\nallow_anonymous true\nuser root\nlog_type none\nmax_queued_messages 0\n", port)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		return nil, "", err
	}
	cmd := exec.CommandContext(ctx, "mosquitto", "-c", conf)
	if err := cmd.Start(); err != nil {
		return nil, "", fmt.Errorf("apt-get install mosquitto: %w", err)
	}
	stop = func() {
		cmd.Process.Kill()
		cmd.Wait()
	}
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	listens := func() bool {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
		}
		return err == nil
	}
	if err := wait(ctx, nil, patience, listens); err != nil {
		stop()
		return nil, "", fmt.Errorf("mosquitto does not listen: %w", err)
	}
	return stop, "mqtt://" + addr, nil
}
