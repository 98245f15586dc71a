package mqtt

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// MaxString is the length in bytes that a string in a control packet may have (1.5.4).
const MaxString = 65535

// ValidString tells whether s can stand in a control packet: well-formed UTF-8 [MQTT-1.5.4-1]
// without a null character [MQTT-1.5.4-2], of at most 65,535 bytes.
func ValidString(s string) bool {
	return len(s) <= MaxString && strings.IndexByte(s, 0) < 0 && utf8.ValidString(s)
}

func checkString(s string) error {
	switch {
	case len(s) > MaxString:
		return fmt.Errorf("longer than %d bytes", MaxString)
	case !utf8.ValidString(s):
		return errors.New("not well-formed UTF-8")
	case strings.IndexByte(s, 0) >= 0:
		return errors.New("contains a null character")
	}
	return nil
}

// ValidTopicName tells whether s can be published to: at least one character [MQTT-4.7.3-1], no
// wildcard [MQTT-3.3.2-2], no null character [MQTT-4.7.3-2].
func ValidTopicName(s string) bool {
	return s != "" && ValidString(s) && strings.IndexByte(s, '+') < 0 && strings.IndexByte(s, '#') < 0
}

// CheckTopicName is ValidTopicName that says what is wrong.
func CheckTopicName(s string) error {
	if ValidTopicName(s) {
		return nil
	}
	err := checkString(s)
	switch {
	case s == "":
		err = errors.New("is empty")
	case err == nil:
		err = errors.New("contains a wildcard, + or #")
	}
	return fmt.Errorf("mqtt: topic name %.80q: %w", s, err)
}

// ValidTopicFilter tells whether s can be subscribed to: a topic in which + stands for one whole
// level [MQTT-4.7.1-2] and # as the whole last one for any number [MQTT-4.7.1-1]. A shared
// subscription is checked with its prefix: $share/, a group without wildcards, a filter
// [MQTT-4.8.2-1] [MQTT-4.8.2-2].
func ValidTopicFilter(s string) bool { return CheckTopicFilter(s) == nil }

// CheckTopicFilter is ValidTopicFilter that says what is wrong.
func CheckTopicFilter(s string) error {
	if err := checkTopicFilter(s); err != nil {
		return fmt.Errorf("mqtt: topic filter %.80q: %w", s, err)
	}
	return nil
}

var (
	errEmpty  = errors.New("is empty")
	errHash   = errors.New("# must be the whole of the last level")
	errPlus   = errors.New("+ must be the whole of a level")
	errShare  = errors.New("a shared subscription is $share/group/filter")
	errGroup  = errors.New("the group of a shared subscription must not be empty or hold a wildcard")
	errShared = errors.New("a shared subscription needs a filter after its group")
)

func checkTopicFilter(s string) error {
	if s == "" {
		return errEmpty
	}
	if err := checkString(s); err != nil {
		return err
	}
	if rest, ok := strings.CutPrefix(s, sharePrefix); ok {
		group, filter, found := strings.Cut(rest, "/")
		switch {
		case group == "" || strings.ContainsAny(group, "+#"):
			return errGroup
		case !found:
			return errShare
		case filter == "":
			return errShared
		}
		s = filter
	}
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '#':
			if i != len(s)-1 || i > 0 && s[i-1] != '/' {
				return errHash
			}
		case '+':
			if i > 0 && s[i-1] != '/' || i < len(s)-1 && s[i+1] != '/' {
				return errPlus
			}
		}
	}
	return nil
}

const sharePrefix = "$share/"

// SplitShare takes a shared subscription's filter apart (4.8.2): $share/group/filter gives group
// and filter; any other gives "" and itself.
func SplitShare(filter string) (group, rest string) {
	if s, ok := strings.CutPrefix(filter, sharePrefix); ok {
		if group, rest, ok = strings.Cut(s, "/"); ok {
			return group, rest
		}
	}
	return "", filter
}

// HasWildcard tells whether a filter holds a wildcard.
func HasWildcard(filter string) bool {
	return strings.IndexByte(filter, '+') >= 0 || strings.IndexByte(filter, '#') >= 0
}

// Match tells whether a topic name matches a filter, both valid and the filter without a share
// prefix (4.7). A filter that starts with a wildcard matches no topic that starts with $
// [MQTT-4.7.2-1]. Comparison is byte by byte [MQTT-4.7.3-4].
func Match(filter, name string) bool {
	if filter == "" || name == "" {
		return false
	}
	if name[0] == '$' && (filter[0] == '+' || filter[0] == '#') {
		return false
	}
	for {
		if filter == "#" {
			return true
		}
		f, frest, fmore := strings.Cut(filter, "/")
		n, nrest, nmore := strings.Cut(name, "/")
		if f != "+" && f != n {
			return false
		}
		switch {
		case !fmore:
			return !nmore
		case !nmore:
			return frest == "#" // a/# matches its parent a, too (4.7.1.2)
		}
		filter, name = frest, nrest
	}
}
