package broker

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"gateway/mqtt"
	"gateway/mqtt/packet"
)

// A machine is where a broker is restarted: its store, and which boot it is and for how long.
type machine struct {
	store  *memStore
	boot   string
	booted time.Time
}

func (m *machine) uptime() (string, time.Duration) { return m.boot, time.Since(m.booted) }

// runs is one run of a broker on the machine, within a bubble of fake time; how is one of endings.
func (m *machine) runs(t *testing.T, how string, work func(b *Broker)) {
	t.Helper()
	b, stop := startStop(t, Options{Store: m.store, Uptime: m.uptime})
	work(b)
	m.store = endings[how](m.store, stop)
	stop()
}

// down lets time pass without a broker; with reboot the machine is away, too.
func (m *machine) down(d time.Duration, reboot bool) {
	time.Sleep(d)
	if reboot {
		m.boot, m.booted = m.boot+"'", time.Now()
	}
}

// What expires does so by the time that the broker runs, and over a restart by the time that the machine does:
// the intervals do not begin anew.
func TestExpiryGoesOnOverARestart(t *testing.T) {
	for how := range endings {
		for name, c := range map[string]struct {
			reboot          bool
			run, down, then time.Duration // run, be down, run again
			gone            bool
		}{
			"in time":                           {false, 30 * time.Minute, 30 * time.Minute, 30 * time.Minute, false},
			"runs too long":                     {false, 60 * time.Minute, 0, 60 * time.Minute, true},
			"down for too long":                 {false, 10 * time.Minute, 100 * time.Minute, 0, true},
			"down for unknown time":             {true, 10 * time.Minute, 1000 * time.Minute, 10 * time.Minute, false},
			"runs too long, but for the reboot": {true, 60 * time.Minute, 1000 * time.Minute, 60 * time.Minute, true},
		} {
			for _, snapshot := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s, %s, snapshot %t", how, name, snapshot), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						m := &machine{store: &memStore{}, boot: "first", booted: time.Now()}
						brief := func(p *packet.Connect) {
							p.CleanStart = false
							p.Properties.SetSessionExpiry(6000)
						}
						expiring := func(p *packet.Publish) { p.Properties.SetMessageExpiry(6000) }
						m.runs(t, how, func(b *Broker) {
							s, _ := piped(t, b, mqtt.V5, "brief", brief)
							s.leave()
							s, _ = piped(t, b, mqtt.V5, "long", persistent)
							s.subscribed("queued", 1)
							s.leave()
							pub, _ := piped(t, b, mqtt.V5, "pub")
							pub.publish("queued", "x", 1, expiring)
							pub.publish("retained", "x", 1, expiring, asRetained)
							if snapshot {
								if err := b.journal.snapshot(); err != nil {
									t.Fatal(err)
								}
							}
							time.Sleep(c.run)
							synctest.Wait()
						})
						m.down(c.down, c.reboot)
						m.runs(t, "stop", func(b *Broker) {
							time.Sleep(c.then)
							synctest.Wait()
							if _, ack := piped(t, b, mqtt.V5, "brief", brief); ack.SessionPresent == c.gone {
								t.Errorf("the session is there: %t", ack.SessionPresent)
							}
							left := func(p *peer, topic string) {
								t.Helper()
								if c.gone {
									p.silence()
								} else if m := p.message(topic, "x"); m.Properties.MessageExpiry == 0 || m.Properties.MessageExpiry > 5400 {
									t.Errorf("%s says that it lives for another %d s", topic, m.Properties.MessageExpiry)
								}
							}
							s, _ := piped(t, b, mqtt.V5, "long", persistent)
							left(s, "queued")
							s, _ = piped(t, b, mqtt.V5, "late")
							s.subscribed("retained", 0)
							left(s, "retained")
						})
					})
				})
			}
		}
	}
}

// A session that has a connection does not age, and of one that lost it in a crash the interval begins with that: not with
// an earlier loss.
func TestAConnectedSessionDoesNotAge(t *testing.T) {
	for how := range endings {
		for _, snapshot := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, snapshot %t", how, snapshot), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					m := &machine{store: &memStore{}, boot: "first", booted: time.Now()}
					brief := func(p *packet.Connect) {
						p.CleanStart = false
						p.Properties.SetSessionExpiry(100)
					}
					m.runs(t, how, func(b *Broker) {
						s, _ := piped(t, b, mqtt.V5, "brief", brief)
						s.leave()
						time.Sleep(50 * time.Second)
						s, _ = piped(t, b, mqtt.V5, "brief", brief)
						time.Sleep(1000 * time.Second)
						s.silence()
						if snapshot {
							if err := b.journal.snapshot(); err != nil {
								t.Fatal(err)
							}
						}
						time.Sleep(2 * time.Second)
						synctest.Wait()
					})
					m.down(50*time.Second, false)
					m.runs(t, "stop", func(b *Broker) {
						s, ack := piped(t, b, mqtt.V5, "brief", brief)
						if !ack.SessionPresent {
							t.Error("expired 50 s after its connection was lost, of 100")
						}
						s.leave()
					})
				})
			})
		}
	}
}

// A broker that crashes has broken all connections: the wills of its clients are published when it is back, once,
// also of clients whose sessions ended with it. A will whose client said DISCONNECT is not.
func TestWillsSurviveACrash(t *testing.T) {
	for _, how := range []string{"kill -9", "power cut"} {
		for _, snapshot := range []bool{false, true} {
			t.Run(how, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					m := &machine{store: &memStore{}, boot: "first", booted: time.Now()}
					watching := func(b *Broker) *peer {
						s, _ := piped(t, b, mqtt.V5, "watch", persistent)
						return s
					}
					m.runs(t, how, func(b *Broker) {
						watching(b).subscribed("will/+", 1)
						piped(t, b, mqtt.V5, "brief", willOf("will/brief", "x", func(w *packet.Will) { w.Properties.SetWillDelay(5) }))
						piped(t, b, mqtt.V311, "old", persistent, willOf("will/old", "x"))
						p, _ := piped(t, b, mqtt.V5, "left", persistent, willOf("will/left", "x"))
						p.leave()
						p, _ = piped(t, b, mqtt.V5, "back", persistent, willOf("will/back", "never", func(w *packet.Will) { w.Properties.SetWillDelay(5) }))
						p.drop()
						synctest.Wait()
						piped(t, b, mqtt.V5, "back", persistent, willOf("will/back", "x"))
						if snapshot {
							if err := b.journal.snapshot(); err != nil {
								t.Fatal(err)
							}
						}
						time.Sleep(2 * time.Second) // until all is synced
						synctest.Wait()
					})
					m.runs(t, "stop", func(b *Broker) {
						s := watching(b)
						for _, topic := range []string{"will/brief", "will/old", "will/back"} {
							s.send(&packet.Puback{ID: s.message(topic, "x").ID})
						}
						s.silence()
					})
					m.runs(t, "stop", func(b *Broker) { watching(b).silence() })
				})
			})
		}
	}
}

// The delay of a will goes on over a restart: who comes back in time has none [MQTT-3.1.3-9].
func TestWillDelayGoesOnOverARestart(t *testing.T) {
	for how := range endings {
		for name, c := range map[string]struct {
			back time.Duration // when the client comes back after the restart; 0: not at all
			want time.Duration // when the will comes after it; 0: not at all
		}{
			"back in time": {5 * time.Second, 0},
			"too late":     {0, 7 * time.Second},
		} {
			t.Run(how+", "+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					m := &machine{store: &memStore{}, boot: "first", booted: time.Now()}
					m.runs(t, how, func(b *Broker) {
						p, _ := piped(t, b, mqtt.V5, "mortal", persistent, willOf("will", "x", func(w *packet.Will) { w.Properties.SetWillDelay(10) }))
						p.drop()
						time.Sleep(2 * time.Second)
						synctest.Wait()
					})
					m.down(time.Second, false)
					m.runs(t, "stop", func(b *Broker) {
						watch, _ := piped(t, b, mqtt.V5, "watch")
						watch.subscribed("will", 0)
						began := time.Now()
						if c.back > 0 {
							time.AfterFunc(c.back, func() { piped(t, b, mqtt.V5, "mortal", persistent) })
						}
						_, err := watch.next(time.Minute)
						if came := err == nil; came != (c.want != 0) || came && time.Since(began).Round(time.Second) != c.want {
							t.Errorf("a will came: %t, after %s", came, time.Since(began))
						}
					})
				})
			})
		}
	}
}

// After a crash a client is sent again what it had not acknowledged, with the same identifiers and DUP
// [MQTT-4.4.0-1] [MQTT-3.3.1-1], and nothing of what it had.
func TestAcknowledgedMessagesStayAcknowledgedAfterACrash(t *testing.T) {
	for _, snapshot := range []bool{false, true} {
		store := &memStore{}
		b, stop := startStop(t, Options{Store: store, SyncWindow: time.Hour})
		sub := join(t, b, mqtt.V311, "sub", persistent)
		sub.subscribed("t", 1)
		pub := join(t, b, mqtt.V311, "pub")
		ids := map[string]uint16{}
		for _, m := range []string{"one", "two", "three"} {
			pub.publish("t", m, 1)
			ids[m] = sub.message("t", m).ID
		}
		sub.send(&packet.Puback{ID: ids["one"]}, &packet.Puback{ID: ids["three"]})
		sub.silence() // the acknowledgements have been handled
		if snapshot {
			if err := b.journal.snapshot(); err != nil {
				t.Fatal(err)
			}
		}
		crashed := store.crash(false)
		stop()

		b = start(t, Options{Store: crashed})
		sub = join(t, b, mqtt.V311, "sub", persistent)
		if m := sub.message("t", "two"); m.ID != ids["two"] || !m.Dup {
			t.Errorf("snapshot %t: came again with identifier %d and dup %t, want %d and true", snapshot, m.ID, m.Dup, ids["two"])
		}
		sub.silence()
	}
}

// Sessions, messages and wills have numbers that are never used again, also after a restart: the store tells them apart
// by these.
func TestNumbersGoOnOverRestarts(t *testing.T) {
	for _, snapshot := range []bool{false, true} {
		store := &memStore{}
		run := func(id, payload string) *Broker {
			b := start(t, Options{Store: store})
			sub := join(t, b, mqtt.V5, id, persistent)
			sub.subscribed("t", 1)
			sub.leave()
			mortal := func(when string) {
				p := join(t, b, mqtt.V5, id+when, persistent, willOf("will", id, func(w *packet.Will) { w.Properties.SetWillDelay(1000) }))
				p.drop()
				until(t, "it is gone", func() bool { return b.Stats().Connected == 0 })
			}
			mortal("before")
			pub := join(t, b, mqtt.V5, "pub")
			pub.publish("t", payload, 1)
			pub.leave()
			mortal("after")
			if snapshot {
				if err := b.journal.snapshot(); err != nil {
					t.Fatal(err)
				}
			}
			b.journal.sync()
			return b
		}
		run("one", "first")
		store = store.crash(false)
		run("two", "second")
		store = store.crash(false)
		b := start(t, Options{Store: store})
		if n := len(b.journal.wills.all); n != 4 {
			t.Errorf("snapshot %t: %d wills are left, want 4", snapshot, n)
		}
		for id, want := range map[string][]string{"one": {"first", "second"}, "two": {"second"}} {
			sub := join(t, b, mqtt.V5, id, persistent)
			for _, payload := range want {
				sub.message("t", payload)
			}
			sub.silence()
		}
	}
}

// A will that waits in a persistent session's queue is a message like others: acknowledged, it does not come
// again after a restart.
func TestAnAcknowledgedWillDoesNotComeAgain(t *testing.T) {
	store := &memStore{}
	b, stop := startStop(t, Options{Store: store})
	sub := join(t, b, mqtt.V5, "sub", persistent)
	sub.subscribed("will", 1)
	sub.leave()
	join(t, b, mqtt.V5, "mortal", willOf("will", "x")).drop()
	until(t, "the will waits", func() bool { return b.Stats().QueuedBytes > 0 })
	sub = join(t, b, mqtt.V5, "sub", persistent)
	sub.send(&packet.Puback{ID: sub.message("will", "x").ID})
	sub.silence()
	stop()
	b = start(t, Options{Store: store})
	join(t, b, mqtt.V5, "sub", persistent).silence()
}

// Wherever a power cut takes the records off, also while a snapshot is written, a will comes, and once: what
// publishes it ends it.
func TestAWillComesOnceWhereverThePowerIsCut(t *testing.T) {
	once := func(t *testing.T, store *memStore) {
		t.Helper()
		sub := join(t, start(t, Options{Store: store}), mqtt.V5, "sub", persistent)
		sub.message("will", "x")
		sub.silence()
	}
	prepare := func(t *testing.T, store Store) (b *Broker, mortal *peer) {
		b = start(t, Options{Store: store})
		sub := join(t, b, mqtt.V5, "sub", persistent)
		sub.subscribed("will", 1)
		sub.leave()
		return b, join(t, b, mqtt.V5, "mortal", willOf("will", "x"))
	}
	published := func(t *testing.T, b *Broker) {
		until(t, "the will is in the log", func() bool { return b.Stats().QueuedBytes > 0 && b.Stats().Connected == 0 && !b.journal.noted.Load() })
	}
	t.Run("anywhere", func(t *testing.T) {
		store := &memStore{}
		b, mortal := prepare(t, store)
		before := len(store.crash(false).recs)
		mortal.drop()
		published(t, b)
		for all := store.crash(false).recs; before <= len(all); before++ {
			once(t, &memStore{recs: slices.Clone(all[:before]), synced: before})
		}
	})
	t.Run("snapshot", func(t *testing.T) {
		store := &lateStore{}
		b, mortal := prepare(t, store)
		b.journal.sync()
		defer store.holdSyncs()()
		store.during = func() {
			mortal.drop()
			published(t, b)
		}
		if err := b.journal.snapshot(); err != nil {
			t.Fatal(err)
		}
		once(t, store.crash(true))
		once(t, store.crash(false))
	})
}

// What a member of a shared subscription was owed goes to another when its session ends (4.8.2), over a restart, too,
// and also where the session ends while the broker is away.
func TestSharedMessagesGoToAnotherAfterARestart(t *testing.T) {
	for how := range endings {
		for _, away := range []time.Duration{time.Second, 200 * time.Second} {
			for _, snapshot := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s, away for %s, snapshot %t", how, away, snapshot), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						m := &machine{store: &memStore{}, boot: "first", booted: time.Now()}
						m.runs(t, how, func(b *Broker) {
							one, _ := piped(t, b, mqtt.V5, "one", func(p *packet.Connect) {
								p.CleanStart = false
								p.Properties.SetSessionExpiry(100)
							})
							one.subscribed("$share/g/t", 1)
							pub, _ := piped(t, b, mqtt.V5, "pub")
							pub.publish("t", "unacknowledged", 1)
							one.message("t", "unacknowledged")
							one.drop()
							synctest.Wait()
							pub.publish("t", "waits", 1)
							two, _ := piped(t, b, mqtt.V5, "two", persistent)
							two.subscribed("$share/g/t", 1)
							two.leave()
							if snapshot {
								if err := b.journal.snapshot(); err != nil {
									t.Fatal(err)
								}
							}
							time.Sleep(2 * time.Second)
							synctest.Wait()
						})
						m.down(away, false)
						m.runs(t, how, func(b *Broker) {
							time.Sleep(100 * time.Second)
							synctest.Wait()
							if s := b.Stats(); s.Sessions != 1 || s.ExpiredSessions != 1 {
								t.Errorf("%d sessions, %d expired, want one each", s.Sessions, s.ExpiredSessions)
							}
							time.Sleep(2 * time.Second)
							synctest.Wait()
						})
						m.runs(t, "stop", func(b *Broker) {
							two, _ := piped(t, b, mqtt.V5, "two", persistent)
							got := map[string]int{}
							for range 2 {
								got[string(expect[*packet.Publish](two).Payload)]++
							}
							two.silence()
							if got["waits"] != 1 || got["unacknowledged"] != 1 {
								t.Errorf("got %v", got)
							}
						})
					})
				})
			}
		}
	}
}
