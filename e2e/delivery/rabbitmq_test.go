package delivery

import (
	"testing"

	"gateway/e2e/load"
	"gateway/e2e/rig"
	"gateway/internal/delivery"
)

// RabbitMQ acknowledges what it has put into its queues, on disk, so that a kill costs nothing that was
// acknowledged; it speaks 3.1.1 only, which the gateway finds out.
func TestRabbitMQIsKilledAndNothingIsLost(t *testing.T) {
	rabbit := rig.NewRabbitMQ(t)
	s, err := load.NewSubscriber(rabbit.URL(), "counter", "plant", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	p := newPipe(t, 64, delivery.OldestFirst, rabbit.URL())
	p.putPairs(500)
	rig.Eventually(t, rig.Patience, "the first samples", func() bool { return s.Came() > 100 })
	rabbit.Kill() // while samples are in flight
	p.putPairs(500)
	rabbit.Start()
	p.drain(rig.Patience)
	p.whole(s)
}
