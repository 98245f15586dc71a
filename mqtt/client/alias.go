package client

// aliases are the topic aliases of what one connection publishes (3.3.2.3.4). A server may take very few of
// them, Mosquitto ten, and then they are for the topics that come often: one gets an alias when it is
// published for the second time, for what is announced once would only use it up.
type aliases struct {
	max  int               // as the server said [MQTT-3.2.2-17]; 0: it takes none
	of   map[string]uint16 // 0: published once
	used int
}

// maxOnce bounds how many topics are remembered that were published once.
const maxOnce = 1024

func newAliases(max int) aliases { return aliases{max: max, of: map[string]uint16{}} }

// next returns the alias to publish a topic with, 0 for none, and whether the server knows it already.
func (a *aliases) next(topic string) (alias uint16, known bool) {
	if a.max == 0 || len(topic) <= 3 { // an alias takes three bytes itself
		return 0, false
	}
	alias, seen := a.of[topic]
	switch {
	case alias > 0:
		return alias, true
	case seen && a.used < a.max:
		return uint16(a.used + 1), false
	}
	return 0, false
}

// sent notes that a topic goes to the server with what next said.
func (a *aliases) sent(topic string, alias uint16) {
	if a.used >= a.max || int(alias) > 0 && int(alias) <= a.used || len(topic) <= 3 {
		return
	}
	if len(a.of)-a.used >= maxOnce {
		a.forget()
	}
	a.of[topic] = alias
	if a.used = max(a.used, int(alias)); a.used == a.max {
		a.forget() // there is none left for them
	}
}

// forget forgets the topics that were published once.
func (a *aliases) forget() {
	for topic, alias := range a.of {
		if alias == 0 {
			delete(a.of, topic)
		}
	}
}
