package gateway

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"gateway/config"
	"gateway/mqtt"
	"gateway/mqtt/broker"
)

// Every key of the table [broker] that is not a file's name reaches the broker, also with the values that the
// broker's own options understand as "the default".
func TestEveryBrokerOptionArrives(t *testing.T) {
	one := mqtt.AtLeastOnce
	for name, c := range map[string]struct {
		table string
		want  broker.Options
	}{
		"all": {`
listen = ["127.0.0.1:1", "ws://127.0.0.1:2", "unix:/run/x.sock"]
anonymous = "always"
sync = "3s"
server_keep_alive = "40s"
max_packet_size = "1 KiB"
max_payload = 500
receive_maximum = 7
topic_alias_maximum = 8
max_qos = 1
retain_available = false
wildcard_subscriptions = false
shared_subscriptions = false
allow_empty_client_id = false
max_session_expiry = "1h"
response_information = "answers/"
sys_interval = "5s"
[broker.limits]
connections = 11
pending_connections = 12
connect_timeout = "13s"
write_timeout = "14s"
sessions = 15
inflight = 16
queued_messages = 17
queued_bytes = 18
queued_bytes_total = 19
subscriptions = 20
subscriptions_total = 21
topic_levels = 22
retained_messages = 23
retained_bytes = 24
`, broker.Options{
			Listen:    []broker.Listener{{Network: "tcp", Address: "127.0.0.1:1"}, {Network: "tcp", Address: "127.0.0.1:2", WebSocket: true}, {Network: "unix", Address: "/run/x.sock"}},
			Anonymous: broker.AnonymousAlways, SyncWindow: 3 * time.Second,
			ServerKeepAlive: 40, MaxPacketSize: 1024, MaxPayload: 500, ReceiveMaximum: 7, TopicAliasMaximum: 8, MaxQoS: &one,
			NoRetain: true, NoWildcards: true, NoShared: true, NoEmptyClientID: true,
			MaxSessionExpiry: time.Hour, ResponseInfoPrefix: "answers/", SysInterval: 5 * time.Second,
			Limits: broker.Limits{
				Connections: 11, Pending: 12, ConnectTimeout: 13 * time.Second, WriteTimeout: 14 * time.Second,
				Sessions: 15, Inflight: 16, QueuedMessages: 17, QueuedBytes: 18, QueuedBytesTotal: 19, Subscriptions: 20,
				SubscriptionsAll: 21, TopicLevels: 22, Retained: 23, RetainedBytes: 24,
			},
		}},
		"zeros": {`
anonymous = "never"
sync = "always"
topic_alias_maximum = 0
sys_interval = "0s"
`, broker.Options{Anonymous: broker.AnonymousNever, SyncWindow: -1, NoTopicAlias: true, SysInterval: -1}},
	} {
		t.Run(name, func(t *testing.T) {
			cfg, problems := config.Parse("gateway.toml", "[broker]"+c.table)
			if problems.Failed() {
				t.Fatal(problems)
			}
			got, err := brokerOptions(&cfg.Broker, BrokerEnv{})
			if err != nil {
				t.Fatal(err)
			}
			ignore := []cmp.Option{cmpopts.IgnoreFields(broker.Options{}, "Uptime", "PortHolder")}
			if name == "zeros" { // the rest are defaults, which are the configuration's
				ignore = append(ignore, cmpopts.IgnoreFields(broker.Options{}, "Listen", "Limits", "MaxPacketSize", "ReceiveMaximum", "MaxQoS"))
			}
			if diff := cmp.Diff(c.want, got, ignore...); diff != "" {
				t.Errorf("options (-want +got):\n%s", diff)
			}
		})
	}
}
