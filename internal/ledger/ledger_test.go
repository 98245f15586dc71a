package ledger

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gateway/adapters"
	"gateway/buffer"
)

// sink remembers records as text, and may refuse.
type sink struct {
	mu     sync.Mutex
	refuse bool
	got    []string
}

func (s *sink) Offer(x adapters.Sample) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refuse {
		return false
	}
	var parts []string
	for _, r := range x.Readings {
		parts = append(parts, x.Schema.Points[r.Point].Name+"="+r.Value.String())
	}
	s.got = append(s.got, x.Schema.Device+": "+strings.Join(parts, " "))
	return true
}

func start(t *testing.T, s *sink, path string) *Ledger {
	t.Helper()
	began := time.Now()
	l, err := New(Options{Sink: s, Path: path, Now: func() adapters.Instant { return adapters.Instant(time.Since(began)) },
		Time: func(m Moment) string { return fmt.Sprintf("T+%v", time.Duration(m.At)) }})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- l.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return l
}

func id(seq uint64) buffer.ID { return buffer.ID{Epoch: 0xab, Seq: seq} }

func want(t *testing.T, s *sink, lines ...string) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if got, want := strings.Join(s.got, "\n"), strings.Join(lines, "\n"); got != want {
		t.Errorf("\n got %s\nwant %s", got, want)
	}
	s.got = nil
}

func TestTheFirstLossIsToldAtOnceAndAStormIsGathered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sink{}
		l := start(t, s, "")
		l.Lost(Loss{Destination: "cloud", Reason: "queue full", Count: 3, First: id(1), Last: id(3)})
		time.Sleep(1100 * time.Millisecond)
		synctest.Wait()
		want(t, s, "gateway: event=loss destination=cloud reason=queue full count=3 epoch=00000000000000ab first=1 last=3")
		for i := uint64(4); i < 100; i++ {
			l.Lost(Loss{Destination: "cloud", Reason: "queue full", Count: 1, First: id(i), Last: id(i)})
		}
		l.Lost(Loss{Destination: "cloud", Reason: "queue full", Count: 1, First: id(200), Last: id(200)})
		l.Lost(Loss{Destination: "cloud", Reason: "power cut", Open: true, First: id(201)})
		l.Lost(Loss{Device: "boiler", Reason: Overflow, Count: 1, From: Moment{1, 5}, To: Moment{1, 5}})
		l.Lost(Loss{Device: "boiler", Reason: Overflow, Count: 1, From: Moment{1, 9}, To: Moment{1, 9}})
		time.Sleep(10 * time.Second)
		synctest.Wait()
		want(t, s,
			"gateway: event=loss destination=cloud reason=queue full count=96 epoch=00000000000000ab first=4 last=99",
			"gateway: event=loss destination=cloud reason=queue full count=1 epoch=00000000000000ab first=200 last=200",
			"gateway: event=loss destination=cloud reason=power cut epoch=00000000000000ab first=201 open=true",
			"gateway: event=loss device=boiler reason=overflow count=2 from=T+5ns to=T+9ns")
	})
}

func TestAStormOfSingleLossesIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sink{}
		l := start(t, s, "")
		for i := range uint64(10_000) {
			l.Lost(Loss{Destination: "cloud", Reason: "damaged", Count: 1, First: id(2*i + 1), Last: id(2*i + 1)})
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if len(s.got) != maxRanges {
			t.Errorf("%d records", len(s.got))
		}
		if last := s.got[len(s.got)-1]; !strings.Contains(last, fmt.Sprintf("count=%d", 10_000-maxRanges+1)) || !strings.Contains(last, "last=19999") {
			t.Error(last)
		}
		if n := l.Totals().Destinations["cloud"].Lost["damaged"]; n != 10_000 {
			t.Errorf("%d in the totals", n)
		}
	})
}

func TestARecordThatTheQueueRefusesIsToldLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sink{refuse: true}
		l := start(t, s, "")
		l.Lost(Loss{Device: "a", Reason: Overflow, Count: 1})
		l.Lost(Loss{Device: "b", Reason: Overflow, Count: 1})
		time.Sleep(30 * time.Second)
		synctest.Wait()
		l.Lost(Loss{Device: "b", Reason: Overflow, Count: 2})
		s.mu.Lock()
		s.refuse = false
		s.mu.Unlock()
		time.Sleep(30 * time.Second)
		synctest.Wait()
		want(t, s, "gateway: event=loss device=a reason=overflow count=1", "gateway: event=loss device=b reason=overflow count=3")
	})
}

// A crash comes when it likes: what was noted and kept is told by the next run, once.
func TestALossThatWasKeptIsToldAfterACrash(t *testing.T) {
	path := filepath.Join(t.TempDir(), "account")
	full := Loss{Destination: "cloud", Reason: "queue full", Count: 3, First: id(1), Last: id(3)}
	crashed, err := New(Options{Path: path, Sink: &sink{}, Now: func() adapters.Instant { return 0 }})
	if err != nil {
		t.Fatal(err)
	}
	crashed.Lost(full)
	if err := crashed.Keep(); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		s := &sink{}
		l := start(t, s, path)
		l.Lost(full) // the queue does not know that it was noted
		time.Sleep(2 * time.Second)
		synctest.Wait()
		want(t, s, "gateway: event=loss destination=cloud reason=queue full count=3 epoch=00000000000000ab first=1 last=3")
		if n := l.Totals().Destinations["cloud"].Lost["queue full"]; n != 3 {
			t.Errorf("%d lost, not 3", n)
		}
	})
}

// A topic that a broker never takes loses a sample a second: that must not be a record a second.
func TestLossesThatGoOnAreGathered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sink{}
		l := start(t, s, "")
		for i := uint64(1); i <= 300; i++ { // 147 s
			l.Lost(Loss{Destination: "cloud", Reason: SetAside, Count: 1, First: id(i), Last: id(i)})
			time.Sleep(490 * time.Millisecond)
		}
		synctest.Wait()
		s.mu.Lock()
		defer s.mu.Unlock()
		if len(s.got) != 15 { // after 1 s, 11 s, ... 141 s
			t.Errorf("%d records, not one in ten seconds", len(s.got))
		}
	})
}

// Records are the oldest samples of an outage sooner or later: the bound that takes them must not take
// what they tell.
func TestARecordThatIsLostItselfIsToldAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "account")
	tell := func(l *Ledger, x Loss, as buffer.ID) {
		l.Lost(x)
		time.Sleep(11 * time.Second)
		synctest.Wait()
		l.Queued(as)
	}
	synctest.Test(t, func(t *testing.T) {
		s := &sink{}
		l := start(t, s, path)
		tell(l, Loss{Destination: "cloud", Reason: "queue full", Count: 10, First: id(1), Last: id(10)}, id(15))
		want(t, s, "gateway: event=loss destination=cloud reason=queue full count=10 epoch=00000000000000ab first=1 last=10")
		tell(l, Loss{Destination: "cloud", Reason: "queue full", Count: 10, First: id(11), Last: id(20)}, id(30))
		want(t, s, "gateway: event=loss destination=cloud reason=queue full count=20 epoch=00000000000000ab first=1 last=20")
		tell(l, Loss{Destination: "other", Reason: "queue full", Count: 40, First: id(1), Last: id(40)}, id(41))
		want(t, s, "gateway: event=loss destination=other reason=queue full count=40 epoch=00000000000000ab first=1 last=40")
	})
	synctest.Test(t, func(t *testing.T) { // it is known after a restart, too
		s := &sink{}
		l := start(t, s, path)
		tell(l, Loss{Destination: "cloud", Reason: "queue full", Count: 20, First: id(21), Last: id(40)}, id(50))
		want(t, s, "gateway: event=loss destination=cloud reason=queue full count=40 epoch=00000000000000ab first=1 last=40")
		tell(l, Loss{Destination: "cloud", Reason: "power cut", First: buffer.ID{Epoch: 0xab, Seq: 45}, Open: true}, id(60))
		want(t, s, "gateway: event=loss destination=cloud reason=queue full count=40 epoch=00000000000000ab first=1 last=40",
			"gateway: event=loss destination=cloud reason=power cut epoch=00000000000000ab first=45 open=true")
	})
}

func TestADestinationThatRefusesOurRecordsIsNotToldOfIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sink{}
		l := start(t, s, "")
		l.Lost(Loss{Destination: "cloud", Reason: SetAside, Count: 1, First: id(1), Last: id(1)})
		time.Sleep(11 * time.Second)
		synctest.Wait()
		l.Queued(id(2))
		s.got = nil
		l.Lost(Loss{Destination: "cloud", Reason: SetAside, Count: 1, First: id(2), Last: id(2)})
		time.Sleep(time.Minute)
		synctest.Wait()
		want(t, s)
		if n := l.Totals().Destinations["cloud"].Lost[SetAside]; n != 2 {
			t.Errorf("%d in the totals, not 2", n)
		}
	})
}

func TestARecordThatTheQueueDidNotTakeIsOfferedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sink{}
		l := start(t, s, "")
		l.Lost(Loss{Device: "a", Reason: Refused, Count: 1})
		time.Sleep(2 * time.Second)
		synctest.Wait()
		l.NotQueued()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		record := "gateway: event=loss device=a reason=queue refused count=1"
		want(t, s, record, record)
	})
}

func TestRecordsInMindAreBounded(t *testing.T) {
	l, err := New(Options{Sink: &sink{}, Now: func() adapters.Instant { return 0 }})
	if err != nil {
		t.Fatal(err)
	}
	for i := uint64(1); i <= 1000; i++ {
		l.remember(record{Loss{Destination: "cloud", Reason: "queue full", Count: 1, First: id(i), Last: id(i)}, id(2000 + i)})
	}
	if len(l.told) != maxTold {
		t.Errorf("%d records in mind", len(l.told))
	}
	retold, _ := l.untell(&Loss{Destination: "cloud", First: id(2001), Last: id(2001), Count: 1})
	if len(retold) != 1 || retold[0].Count != 1000-maxTold+1 || retold[0].First != id(1) {
		t.Errorf("with the oldest %+v would be told again", retold)
	}
}

func TestTheRangeOfAStormHoldsAllOfIt(t *testing.T) {
	var l losses
	for i := range uint64(100) {
		seq := 1000 - 2*i // the backfill lane is behind the live one
		l.add(Loss{Destination: "cloud", Reason: "damaged", Count: 1, First: id(seq), Last: id(seq)})
	}
	if last := l[len(l)-1]; len(l) != maxRanges || last.First != id(802) || last.Count != 100-maxRanges+1 {
		t.Errorf("%d ranges, the last %+v", len(l), last)
	}
}

func TestWhatArrivesAfterAllIsNoLossInTheTotals(t *testing.T) {
	path := filepath.Join(t.TempDir(), "account")
	synctest.Test(t, func(t *testing.T) {
		l := start(t, &sink{}, path)
		l.Lost(Loss{Destination: "cloud", Reason: "queue full", Count: 100, First: id(1), Last: id(100)})
		l.Late("cloud", "queue full", 64)
		if n := l.Totals().Destinations["cloud"].Lost["queue full"]; n != 36 {
			t.Errorf("%d lost", n)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		if n := start(t, &sink{}, path).Totals().Destinations["cloud"].Lost["queue full"]; n != 36 {
			t.Errorf("%d lost after a restart", n)
		}
	})
}

func TestTotalsGoOnAfterARestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "account")
	for run := range uint64(3) {
		synctest.Test(t, func(t *testing.T) {
			s := &sink{}
			l := start(t, s, path)
			l.Watch("cloud", Tally{}, func() Counts { return Counts{Delivered: 10, Messages: 20, Waiting: 5} })
			l.Lost(Loss{Destination: "cloud", Reason: "queue full", Count: 2, First: id(10*run + 1), Last: id(10*run + 2)})
			l.Lost(Loss{Reason: Overflow, Count: 1})
			time.Sleep(20 * time.Second)
			tot := l.Totals()
			c := tot.Destinations["cloud"]
			if c.Delivered != 10*(run+1) || c.Messages != 20*(run+1) || c.Waiting != 5 || c.Lost["queue full"] != 2*(run+1) || tot.Lost[Overflow] != run+1 {
				t.Errorf("run %d: %s", run, tot.JSON())
			}
		})
	}
}

// A crash comes after the file was last written, and to where the cursor was when it was last written.
func TestWhatTheQueueCountedIsInTheTotalsAfterACrash(t *testing.T) {
	kept := `{"version":1,"lost":{},"destinations":{"cloud":{"delivered":1000,"messages":500,"lost":{}}},"tallies":{"cloud":{"delivered":90,"messages":45}}}`
	for name, c := range map[string]struct {
		file  string
		found Tally
		want  Tally
	}{
		"the file is behind":          {kept, Tally{100, 50}, Tally{1010, 505}},
		"the cursor is behind":        {kept, Tally{88, 44}, Tally{998, 499}},
		"the queue was begun anew":    {kept, Tally{}, Tally{1000, 500}},
		"the file was begun anew":     {`{"version":1,"lost":{},"destinations":{}}`, Tally{100, 50}, Tally{100, 50}},
		"the file has no tallies yet": {`{"version":1,"lost":{},"destinations":{"cloud":{"delivered":1000,"messages":500,"lost":{}}}}`, Tally{}, Tally{1000, 500}},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "account")
			for run := range uint64(3) { // of which each delivers ten in five messages, and writes the file at its end
				if run == 0 {
					if err := os.WriteFile(path, []byte(c.file), 0o600); err != nil {
						t.Fatal(err)
					}
				}
				l, err := New(Options{Path: path, Sink: &sink{}, Now: func() adapters.Instant { return 0 }})
				if err != nil {
					t.Fatal(err)
				}
				found := Tally{c.found.Delivered + 10*run, c.found.Messages + 5*run}
				l.Watch("cloud", found, func() Counts { return Counts{Delivered: 10, Messages: 5} })
				want := Tally{c.want.Delivered + 10*(run+1), c.want.Messages + 5*(run+1)}
				if a := l.Totals().Destinations["cloud"]; a.Delivered != want.Delivered || a.Messages != want.Messages {
					t.Errorf("run %d: %d samples in %d messages, want %+v", run, a.Delivered, a.Messages, want)
				}
				if err := l.Keep(); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

func TestUnreadableTotalsAreSetAside(t *testing.T) {
	for name, content := range map[string]string{"cut": `{"version":1,"lo`, "later": `{"version":2,"lost":{},"destinations":{}}`, "other": `[]`,
		"without an account": `{"version":1,"lost":{},"destinations":{"cloud":null}}`} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "account")
			if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			l, err := New(Options{Path: path, Sink: &sink{}, Now: func() adapters.Instant { return 0 }})
			if l == nil || err == nil {
				t.Fatal(l, err)
			}
			if got, err := os.ReadFile(path + ".unreadable"); err != nil || string(got) != content {
				t.Errorf("%q, %v", got, err)
			}
			if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
				t.Error("the unreadable file is still there")
			}
		})
	}
}

func TestTotalsAreWrittenSeldomUnlessSomethingIsLost(t *testing.T) {
	path := filepath.Join(t.TempDir(), "account")
	synctest.Test(t, func(t *testing.T) {
		var delivered uint64
		l := start(t, &sink{}, path)
		var mu sync.Mutex
		l.Watch("cloud", Tally{}, func() Counts {
			mu.Lock()
			defer mu.Unlock()
			delivered++ // something new at every look
			return Counts{Delivered: delivered}
		})
		writes, last := 0, ""
		look := func(d time.Duration) {
			for range d / time.Second {
				time.Sleep(time.Second)
				synctest.Wait()
				if b, _ := os.ReadFile(path); string(b) != last {
					writes, last = writes+1, string(b)
				}
			}
		}
		look(10 * time.Minute)
		if writes < 9 || writes > 11 {
			t.Errorf("written %d times in ten quiet minutes", writes)
		}
		writes = 0
		l.Lost(Loss{Destination: "cloud", Reason: "queue full", Count: 1})
		look(11 * time.Second)
		if writes != 1 || !strings.Contains(last, "queue full") {
			t.Errorf("written %d times within 11 s of a loss: %s", writes, last)
		}
	})
}
