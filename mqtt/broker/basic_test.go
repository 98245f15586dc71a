package broker

import (
	"fmt"
	"testing"

	"gateway/mqtt"
	"gateway/mqtt/packet"
)

var versions = []mqtt.Version{mqtt.V31, mqtt.V311, mqtt.V5}

// [MQTT-4.5.0-1] [MQTT-3.8.4-8] [MQTT-3.3.4-1] [MQTT-3.3.1-3] [MQTT-3.3.2-3] [MQTT-2.2.1-4]
// [MQTT-3.1.4-5] [MQTT-3.2.0-1] [MQTT-3.2.0-2] [MQTT-3.8.4-1] [MQTT-3.8.4-2] [MQTT-3.8.4-7]
// [MQTT-3.1.3-5] [MQTT-3.12.4-1] [MQTT-2.2.1-6]
func TestDeliversAtEachQoSBetweenVersions(t *testing.T) {
	b := start(t, Options{})
	for _, from := range versions {
		for _, to := range versions {
			for sent := mqtt.AtMostOnce; sent <= mqtt.ExactlyOnce; sent++ {
				for granted := mqtt.AtMostOnce; granted <= mqtt.ExactlyOnce; granted++ {
					t.Run(fmt.Sprintf("v%d qos %d to v%d qos %d", from, sent, to, granted), func(t *testing.T) {
						sub := join(t, b, to, "sub")
						sub.subscribed("a/+/c", granted)
						pub := join(t, b, from, "pub")
						pub.publish("a/b/c", "hello", sent, func(p *packet.Publish) { p.Dup = sent > 0 }) // as if it came again
						m := sub.message("a/b/c", "hello")
						if want := min(sent, granted); m.QoS != want || m.Dup || m.Retain {
							t.Errorf("got qos %d dup %t retain %t, want qos %d", m.QoS, m.Dup, m.Retain, want)
						}
						switch m.QoS {
						case mqtt.AtLeastOnce:
							sub.send(&packet.Puback{ID: m.ID})
						case mqtt.ExactlyOnce:
							sub.send(&packet.Pubrec{ID: m.ID})
							if r := expect[*packet.Pubrel](sub); r.ID != m.ID {
								t.Errorf("PUBREL of %d, want %d", r.ID, m.ID)
							}
							sub.send(&packet.Pubcomp{ID: m.ID})
						}
						sub.silence()
						pub.leave()
						sub.leave()
					})
				}
			}
		}
	}
}

// A client that publishes to itself has the answer to its message before the message: Paho's suite, for one, takes
// what it published for lost if it leaves in between.
func TestTheAnswerComesBeforeTheEcho(t *testing.T) {
	for _, v := range []mqtt.Version{mqtt.V311, mqtt.V5} {
		for _, o := range []Options{{}, {Store: new(memStore)}} {
			b := start(t, o)
			c := join(t, b, v, "c", func(p *packet.Connect) {
				if p.CleanStart = v == mqtt.V5; v == mqtt.V5 {
					p.Properties.SetSessionExpiry(60)
				}
			})
			c.subscribed("t", 2)
			if o.Store == nil { // which what is forwarded at QoS 1 need not wait for
				c.send(&packet.Publish{Topic: "t", QoS: 1, ID: 7})
				expect[*packet.Puback](c)
				c.send(&packet.Puback{ID: c.message("t", "").ID})
			}
			c.send(&packet.Publish{Topic: "t", QoS: 2, ID: 8})
			expect[*packet.Pubrec](c)
			echo := c.message("t", "")
			c.send(&packet.Pubrel{ID: 8}, &packet.Pubrec{ID: echo.ID})
			expect[*packet.Pubcomp](c)
			expect[*packet.Pubrel](c)
		}
	}
}
