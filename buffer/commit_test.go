package buffer_test

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gateway/buffer"
)

// However concurrent callers begin, they come to share their syncs: whoever came during a sync once
// took the place of one who had been served by it, and the two went on in turn.
func TestConcurrentCallersShareEachSync(t *testing.T) {
	for n := 1; n <= 16; n++ {
		synctest.Test(t, func(t *testing.T) {
			const each = 50
			syncs := 0
			commit := buffer.Committer(func() error {
				syncs++
				time.Sleep(4 * time.Millisecond)
				return nil
			})
			var wg sync.WaitGroup
			for i := range n {
				wg.Go(func() {
					time.Sleep(time.Duration(i*i) * 300 * time.Microsecond) // a rhythm of their own at first
					for range each {
						if err := commit(t.Context()); err != nil {
							t.Error(err)
						}
						time.Sleep(10 * time.Microsecond)
					}
				})
			}
			wg.Wait()
			if most := each * 5 / 4; syncs > most+n { // they do not begin nor end together
				t.Errorf("%d callers of %d commits each needed %d syncs", n, each, syncs)
			}
		})
	}
}

func TestACommitIsCoveredByASyncThatBeganAfterIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var written, synced int
		var mu sync.Mutex
		commit := buffer.Committer(func() error {
			mu.Lock()
			upTo := written
			mu.Unlock()
			time.Sleep(time.Millisecond)
			mu.Lock()
			synced = max(synced, upTo)
			mu.Unlock()
			return nil
		})
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				for k := range 100 {
					mu.Lock()
					written++
					mine := written
					mu.Unlock()
					if err := commit(t.Context()); err != nil {
						t.Error(err)
					}
					mu.Lock()
					if synced < mine {
						t.Errorf("write %d is said to be synced, and %d are", mine, synced)
					}
					mu.Unlock()
					time.Sleep(time.Duration((i*7+k*13)%29) * 100 * time.Microsecond)
				}
			})
		}
		wg.Wait()
	})
}
