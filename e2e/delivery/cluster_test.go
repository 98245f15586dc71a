package delivery

import (
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"gateway/e2e/load"
	"gateway/e2e/rig"
	"gateway/internal/delivery"
)

// startCluster starts three NATS nodes with JetStream and an MQTT listener each, and returns them with
// their MQTT URLs.
func startCluster(t *testing.T) (nodes []*server.Server, urls []string) {
	t.Helper()
	var routes, ports []int
	for range 3 {
		routes = append(routes, rig.FreePort(t))
		ports = append(ports, rig.FreePort(t))
	}
	var all []string
	for _, port := range routes {
		all = append(all, fmt.Sprintf("nats://127.0.0.1:%d", port))
	}
	for i := range 3 {
		o := &server.Options{
			ServerName: fmt.Sprintf("n%d", i+1), Host: "127.0.0.1", Port: server.RANDOM_PORT,
			JetStream: true, StoreDir: t.TempDir(), NoSigs: true, NoLog: true,
			Cluster: server.ClusterOpts{Name: "c", Host: "127.0.0.1", Port: routes[i]},
			Routes:  server.RoutesFromStr(all[0] + "," + all[1] + "," + all[2]),
			MQTT:    server.MQTTOpts{Host: "127.0.0.1", Port: ports[i], AckWait: 5 * time.Second},
		}
		s, err := server.NewServer(o)
		if err != nil {
			t.Fatal(err)
		}
		s.Start()
		t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
		nodes, urls = append(nodes, s), append(urls, fmt.Sprintf("mqtt://127.0.0.1:%d", ports[i]))
	}
	rig.Eventually(t, rig.Patience, "cluster with a leader", func() bool {
		leader := false
		for _, s := range nodes {
			leader = leader || s.JetStreamIsLeader()
			if !s.JetStreamIsCurrent() || s.NumRoutes() < 2 {
				return false
			}
		}
		return leader
	})
	return nodes, urls
}

// NATS acknowledges a QoS 1 message when a majority of the stream's replicas has it.
func TestANodeOfAClusterIsKilledAndNothingIsLost(t *testing.T) {
	nodes, urls := startCluster(t)
	s, err := load.NewSubscriber(urls[2], "counter", "plant", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	p := newPipe(t, 64, delivery.OldestFirst, urls...)
	p.putPairs(500)
	rig.Eventually(t, rig.Patience, "the first samples", func() bool { return s.Came() > 100 })
	on := p.d.Status().URL
	if on != urls[0] {
		t.Logf("connected to %s, not to the first", on)
	}
	nodes[0].Shutdown() // while samples are in flight
	p.putPairs(500)
	p.drain(rig.Patience)
	if st := p.d.Status(); st.URL == urls[0] {
		t.Errorf("still at %s", st.URL)
	} else {
		t.Logf("went on at %s, %d messages may have come twice", st.URL, st.Retransmitted)
	}
	p.whole(s)
}
