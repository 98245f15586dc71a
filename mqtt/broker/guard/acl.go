package guard

import (
	"fmt"
	"log/slog"
	"strings"

	"gateway/mqtt"
	"gateway/mqtt/broker"
)

// An ACL is an access control list: a file in the manner of Mosquitto's, read line by line. Empty
// lines and those that begin with # do not count.
//
//	# for clients without a user name
//	topic read public/#
//
//	user alice
//	topic readwrite plant/#
//	topic deny plant/secret/#
//
//	client panel-7
//	topic write panel/state
//
//	all
//	pattern readwrite home/%u/#
//	pattern write devices/%c/#
//
// The lines before the first user, client or all are for anonymous clients; the others for the user, the client
// identifier or everybody named last, and all that apply to a client count together. "topic" and
// "pattern" have an access (read, write, readwrite, which is meant where none stands, or deny) and a topic
// filter, which may have spaces. In a pattern %u stands for the user name and %c for the client
// identifier; a pattern applies to everybody wherever it stands, but not to a client whose name would be empty or
// hold one of + # /.
//
// What no line allows is refused, and a deny wins. A message is published where a write line matches its
// topic and received where a read line does; a subscription is accepted where some message that it
// asks for could be received.
type ACL struct {
	file *watched[*rules]
	seen int // the version that Changed knows
}

// rules are the lines by whom they are for.
type rules struct {
	anonymous []rule
	all       []rule
	users     map[string][]rule
	clients   map[string][]rule
}

type rule struct {
	read, write, deny bool
	filter            string
	pattern           bool
}

// OpenACL reads an access control list.
func OpenACL(path string, log *slog.Logger) (*ACL, error) {
	file, err := watch(path, log, parseACL)
	if err != nil {
		return nil, err
	}
	return &ACL{file: file, seen: file.version}, nil
}

// Changed tells whether the file was read again since the last call. The broker asks now and then.
func (a *ACL) Changed() bool {
	a.file.get()
	a.file.mu.Lock()
	defer a.file.mu.Unlock()
	changed := a.file.version != a.seen
	a.seen = a.file.version
	return changed
}

func parseACL(data []byte) (*rules, error) {
	r := &rules{users: make(map[string][]rule), clients: make(map[string][]rule)}
	add := func(x rule) { r.anonymous = append(r.anonymous, x) }
	for i, line := range strings.Split(string(data), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		word, rest, _ := strings.Cut(line, " ")
		rest = strings.TrimSpace(rest)
		fail := func(format string, args ...any) (*rules, error) {
			return nil, fmt.Errorf("line %d: "+format, append([]any{i + 1}, args...)...)
		}
		switch word {
		case "user":
			if rest == "" {
				return fail("user has no name")
			}
			add = func(x rule) { r.users[rest] = append(r.users[rest], x) }
		case "client":
			if rest == "" {
				return fail("client has no identifier")
			}
			add = func(x rule) { r.clients[rest] = append(r.clients[rest], x) }
		case "all":
			if rest != "" {
				return fail("nothing can follow all")
			}
			add = func(x rule) { r.all = append(r.all, x) }
		case "topic", "pattern":
			x, err := parseRule(rest, word == "pattern")
			if err != nil {
				return fail("%w", err)
			}
			if x.pattern {
				r.all = append(r.all, x)
			} else {
				add(x)
			}
		default:
			return fail("%q is not one of user, client, all, topic, pattern", word)
		}
	}
	return r, nil
}

func parseRule(s string, pattern bool) (rule, error) {
	x := rule{read: true, write: true, pattern: pattern, filter: s}
	if word, rest, found := strings.Cut(s, " "); found {
		rest = strings.TrimSpace(rest)
		switch word {
		case "read":
			x.write, x.filter = false, rest
		case "write":
			x.read, x.filter = false, rest
		case "readwrite":
			x.filter = rest
		case "deny":
			x.deny, x.filter = true, rest
		}
	}
	if err := mqtt.CheckTopicFilter(x.filter); err != nil {
		return x, err
	}
	return x, nil
}

// Allow implements broker.Authorizer.
func (a *ACL) Allow(c *broker.Client, access broker.Access, topic string) bool {
	return a.file.get().allow(c, access, topic)
}

func (r *rules) allow(c *broker.Client, access broker.Access, topic string) bool {
	own := r.anonymous
	if c.Username != "" {
		own = r.users[c.Username]
	}
	allowed := false
	for _, list := range [...][]rule{own, r.clients[c.ID], r.all} {
		for i := range list {
			x := &list[i]
			if !x.deny && allowed || !x.deny && !x.permits(access) {
				continue
			}
			filter, applies := x.of(c)
			if !applies {
				continue
			}
			switch {
			case x.deny && access == broker.Subscribe:
				// Refused only where nothing is left of what is asked for; the messages are judged one by one.
				if covers(filter, topic) {
					return false
				}
			case access == broker.Subscribe:
				allowed = overlap(filter, topic)
			case mqtt.Match(filter, topic):
				if x.deny {
					return false
				}
				allowed = true
			}
		}
	}
	return allowed
}

func (x *rule) permits(a broker.Access) bool {
	if a == broker.Publish {
		return x.write
	}
	return x.read
}

// of returns the filter for a client.
func (x *rule) of(c *broker.Client) (filter string, applies bool) {
	if !x.pattern {
		return x.filter, true
	}
	filter = x.filter
	for _, v := range [...][2]string{{"%u", c.Username}, {"%c", c.ID}} {
		if !strings.Contains(x.filter, v[0]) {
			continue
		}
		if v[1] == "" || strings.ContainsAny(v[1], "+#/") {
			return "", false
		}
		filter = strings.ReplaceAll(filter, v[0], v[1])
	}
	return filter, true
}

// overlap tells whether there is a topic that both filters match.
func overlap(a, b string) bool {
	system := func(s string) bool { return s[0] == '$' }
	wild := func(s string) bool { return s[0] == '+' || s[0] == '#' }
	if a == "" || b == "" || system(a) && wild(b) || system(b) && wild(a) {
		return false
	}
	for {
		x, arest, amore := strings.Cut(a, "/")
		y, brest, bmore := strings.Cut(b, "/")
		switch {
		case x == "#" || y == "#":
			return true
		case x != y && x != "+" && y != "+":
			return false
		case !amore && !bmore:
			return true
		case !amore:
			return brest == "#"
		case !bmore:
			return arest == "#"
		}
		a, b = arest, brest
	}
}

// covers tells whether every topic that b matches is matched by a.
func covers(a, b string) bool {
	if a == "" || b == "" || (a[0] == '+' || a[0] == '#') && b[0] == '$' {
		return false
	}
	for {
		x, arest, amore := strings.Cut(a, "/")
		y, brest, bmore := strings.Cut(b, "/")
		switch {
		case x == "#":
			return true
		case y == "#":
			return false
		case x != "+" && x != y:
			return false
		case !bmore:
			return !amore || arest == "#"
		case !amore:
			return false
		}
		a, b = arest, brest
	}
}
