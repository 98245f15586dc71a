package brokerstore

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"gateway/buffer"
	"gateway/buffer/buffertest"
	"gateway/mqtt"
	"gateway/mqtt/broker"
	"gateway/mqtt/packet"
)

const patience = time.Minute

// run runs a broker over a store; stop ends both.
func run(t *testing.T, s *Store) (b *broker.Broker, stop func()) {
	t.Helper()
	b, err := broker.New(broker.Options{Store: s, SysInterval: -1, SyncWindow: 5 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		b.Run(ctx) // its error is that of a disk that is made to fail
		close(ended)
	}()
	stop = sync.OnceFunc(func() {
		cancel()
		<-ended
		s.Close()
	})
	t.Cleanup(stop)
	return b, stop
}

// A session is a client's connection with a persistent session.
type session struct {
	t       *testing.T
	nc      net.Conn
	rd      *packet.Reader
	present bool
}

func open(t *testing.T, b *broker.Broker) *session {
	t.Helper()
	near, far := net.Pipe()
	b.ServeConn(far)
	s := &session{t: t, nc: near, rd: packet.NewReader(near, 0, nil)}
	near.SetDeadline(time.Now().Add(patience))
	s.send(&packet.Connect{Version: mqtt.V311, ClientID: "keeper"})
	s.present = s.next().(*packet.Connack).SessionPresent
	return s
}

func (s *session) send(p packet.Packet) {
	s.t.Helper()
	b, err := p.Append(nil, mqtt.V311)
	if err == nil {
		_, err = s.nc.Write(b)
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *session) next() packet.Packet {
	s.t.Helper()
	f, err := s.rd.Next()
	if err != nil {
		s.t.Fatal(err)
	}
	p, err := packet.Decode(f, mqtt.V311)
	if err != nil {
		s.t.Fatal(err)
	}
	return p
}

func (s *session) subscribe(filter string) {
	s.t.Helper()
	s.send(&packet.Subscribe{ID: 1, Subscriptions: []mqtt.Subscription{{Filter: filter, QoS: 1}}})
	if _, ok := s.next().(*packet.Suback); !ok {
		s.t.Fatal("no SUBACK")
	}
}

func publish(t *testing.T, b *broker.Broker, i int, done func(error)) {
	t.Helper()
	if err := b.Publish(t.Context(), &mqtt.Message{Topic: "t", Payload: []byte(strconv.Itoa(i)), QoS: 1}, done); err != nil {
		t.Fatal(err)
	}
}

// Whatever a power cut takes: what was said to be done is there, in order and once; so is the session.
func TestWhatWasDoneSurvivesAPowerCut(t *testing.T) {
	for seed := range uint64(30) {
		fate := buffertest.Fate(seed % 3)
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			disk := buffertest.NewDisk(seed)
			b, stop := run(t, New("/broker", disk, nil))
			s := open(t, b)
			s.subscribe("t")
			s.send(&packet.Disconnect{})
			const n = 60
			var mu sync.Mutex
			var done [n]bool
			half := make(chan struct{})
			for i := range n {
				publish(t, b, i, func(err error) {
					mu.Lock()
					defer mu.Unlock()
					done[i] = err == nil
					if i == n/2 {
						close(half)
					}
				})
			}
			<-half
			mu.Lock()
			certain := done
			mu.Unlock()
			after := disk.Crash(fate, seed)
			stop()

			b, _ = run(t, New("/broker", after, nil))
			s = open(t, b)
			if !s.present {
				t.Fatal("the session is lost")
			}
			publish(t, b, n, func(error) {})
			last := -1
			for last != n {
				p, ok := s.next().(*packet.Publish)
				if !ok {
					t.Fatal("no PUBLISH")
				}
				i, _ := strconv.Atoi(string(p.Payload))
				if i <= last {
					t.Fatalf("message %d after %d", i, last)
				}
				for lost := last + 1; lost < i; lost++ {
					if lost < n && certain[lost] {
						t.Fatalf("message %d was done and is lost", lost)
					}
				}
				last = i
				s.send(&packet.Puback{ID: p.ID})
			}
		})
	}
}

// A full disk holds up what must be on it, and nothing else; when there is room again all is made up for.
func TestAFullDiskIsMadeUpFor(t *testing.T) {
	disk := buffertest.NewDisk(1)
	b, _ := run(t, New("/broker", disk, nil))
	s := open(t, b)
	s.subscribe("t")
	disk.Fault(func(_ int, op buffertest.Op, _ string) error {
		if op == buffertest.Write || op == buffertest.Create {
			return syscall.ENOSPC
		}
		return nil
	})
	done := make(chan error, 1)
	publish(t, b, 1, func(err error) { done <- err })
	if p := s.next().(*packet.Publish); string(p.Payload) != "1" {
		t.Fatalf("got %q", p.Payload)
	}
	select {
	case err := <-done:
		t.Fatalf("done (%v) with nothing on the disk", err)
	default:
	}
	disk.Fault(nil)
	select {
	case err := <-done:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(patience):
		t.Fatal("not done although there is room again")
	}
	b, _ = run(t, New("/broker", disk.Crash(buffertest.Lost, 1), nil))
	s = open(t, b)
	if p, ok := s.next().(*packet.Publish); !ok || string(p.Payload) != "1" {
		t.Errorf("got %+v", p)
	}
}

func TestOneProcessAtATime(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "broker")
	run(t, New(dir, nil, nil))
	_, err := broker.New(broker.Options{Store: New(dir, nil, nil)})
	if locked, ok := errors.AsType[*buffer.ErrLocked](err); !ok || !strings.Contains(err.Error(), dir) {
		t.Errorf("a second broker on the same directory: %v, %v", err, locked)
	}
}

func TestNothingBeforeReplay(t *testing.T) {
	s := New(t.TempDir(), nil, nil)
	for name, err := range map[string]error{"Append": s.Append(nil), "Sync": s.Sync(), "Snapshot": s.Snapshot(nil)} {
		if err == nil {
			t.Errorf("%s works before Replay", name)
		}
	}
	if s.Size() != 0 || s.Close() != nil {
		t.Error("a store that was never opened has a size or cannot be closed")
	}
}

// A store whose last process is about to be gone, killed a moment ago, opens when it is.
func TestADyingProcessIsWaitedFor(t *testing.T) {
	dir := t.TempDir()
	none := func([]byte) error { return nil }
	old := New(dir, nil, nil)
	if err := old.Replay(none); err != nil {
		t.Fatal(err)
	}
	next := New(dir, nil, nil)
	opened := make(chan error, 1)
	go func() { opened <- next.Replay(none) }()
	if err := old.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-opened; err != nil {
		t.Fatal(err)
	}
	next.Close()
}
