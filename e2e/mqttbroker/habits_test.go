package mqttbroker

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"reflect"
	"strings"
	"testing"

	"gateway/e2e/rig"
)

// Scripts that call mosquitto_pub and mosquitto_sub do with `gateway pub` and `gateway sub` in their place: the same
// flags give the same output.
func TestOurCommandsTakeMosquittosFlags(t *testing.T) {
	b := newBroker(t)
	type command struct{ pub, sub []string }
	theirs := command{[]string{rig.Need(t, "mosquitto_pub", "mosquitto-clients")}, []string{rig.Need(t, "mosquitto_sub", "mosquitto-clients")}}
	ours := command{[]string{rig.Binary(t), "pub"}, []string{rig.Binary(t), "sub"}}
	run := func(command []string, args ...string) string {
		t.Helper()
		args = append(append(command[1:len(command):len(command)], "-h", "127.0.0.1", "-p", fmt.Sprint(b.port), "-V", "mqttv5"), args...)
		out, err := exec.Command(command[0], args...).CombinedOutput()
		if err != nil {
			t.Fatalf("%s %q: %v\n%s", command[0], args, err, out)
		}
		return string(out)
	}
	for i, publisher := range []command{theirs, ours} {
		topic := fmt.Sprintf("habits/%d", i)
		run(publisher.pub, "-t", topic+"/a", "-q", "1", "-r", "-m", `{"n":1}`,
			"-D", "publish", "content-type", "application/json", "-D", "publish", "user-property", "k", "v", "-D", "publish", "user-property", "k", "w",
			"-D", "publish", "correlation-data", "42", "-D", "publish", "response-topic", "re", "-D", "publish", "payload-format-indicator", "1")
		run(publisher.pub, "-t", topic+"/b", "-q", "2", "-r", "-m", "a text")
		for _, c := range []struct {
			filter, count string
			args          []string
		}{
			{"#", "2", []string{"-v"}},
			{"#", "2", []string{"-N"}},
			{"#", "2", []string{"-F", `%t %q %r %l %p %x %X %% \t%C %R %D %F %P`}},
			{"#", "1", []string{"-v", "-T", "+/+/a"}},
			{"#", "2", []string{"-v", "--retained-only"}},
			{"a", "1", []string{"-F", "%j"}},
			{"a", "1", []string{"-F", "%J"}},
		} {
			args := append([]string{"-t", topic + "/" + c.filter, "-C", c.count, "-W", "60"}, c.args...)
			want, got := run(theirs.sub, args...), run(ours.sub, args...)
			if same := want == got || strings.HasPrefix(got, "{") && reflect.DeepEqual(object(t, want), object(t, got)); !same {
				t.Errorf("%q: mosquitto_sub prints\n%s\nand gateway sub\n%s", args, want, got)
			}
		}
	}
}

// object returns a line of JSON without what differs from one run to the next, and between Debian's mosquitto_sub and
// version 2.1: there the retain flag is a number, and a user property's name stands once.
func object(t *testing.T, line string) (o map[string]any) {
	t.Helper()
	if err := json.Unmarshal([]byte(line), &o); err != nil {
		t.Fatalf("%v in %s", err, line)
	}
	if when, ok := o["tst"].(string); !ok || !strings.HasPrefix(when, "20") {
		t.Errorf("the time is %q", when)
	}
	delete(o, "tst")
	o["retain"] = o["retain"] == true || o["retain"] == 1.0
	delete(o["properties"].(map[string]any), "user-properties")
	return o
}
