package client

import (
	"fmt"
	"testing"
)

func (a *aliases) publish(topic string) (alias uint16, known bool) {
	alias, known = a.next(topic)
	a.sent(topic, alias)
	return alias, known
}

// Mosquitto takes ten.
func TestAliasesAreForTopicsThatComeOften(t *testing.T) {
	a := newAliases(10)
	for i := range 20 {
		if alias, _ := a.publish(fmt.Sprint("announced/", i)); alias != 0 {
			t.Fatalf("announced/%d has an alias after it came once", i)
		}
	}
	for round := range 3 {
		for i := range 10 {
			alias, known := a.publish(fmt.Sprint("sample/", i))
			if want := round > 0; (alias > 0) != want || known != (round > 1) || alias > 10 {
				t.Errorf("round %d, topic %d: alias %d, known %t", round, i, alias, known)
			}
		}
	}
	for range 2 {
		if alias, _ := a.publish("announced/0"); alias != 0 {
			t.Errorf("alias %d, above what the server takes", alias)
		}
	}
	if len(a.of) != 10 {
		t.Errorf("%d topics are remembered that will have no alias", len(a.of)-10)
	}
}

func TestTopicsThatComeOnceTakeNoMemoryForEver(t *testing.T) {
	a := newAliases(10)
	for i := range 10 * maxOnce {
		a.publish(fmt.Sprint("topic/", i))
	}
	if len(a.of) > maxOnce {
		t.Errorf("%d topics", len(a.of))
	}
}

// An alias takes three bytes itself.
func TestAShortTopicHasNoAlias(t *testing.T) {
	a := newAliases(10)
	for range 3 {
		if alias, _ := a.publish("a/b"); alias != 0 {
			t.Error("alias", alias)
		}
	}
}
