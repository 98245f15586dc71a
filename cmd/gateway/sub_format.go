package main

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"gateway/mqtt"
)

// A messageFormat appends a message as it is to be printed, without the line end.
type messageFormat func(b []byte, m *mqtt.Message, now time.Time) ([]byte, error)

// parseFormat reads what --format asks for: text, json, or a template.
func parseFormat(s string, verbose bool) (messageFormat, error) {
	switch {
	case s == "text" && verbose:
		return template("%t %p")
	case s == "text":
		return appendPayload, nil
	case s == "json":
		return appendJSON(jsonMessage), nil
	case strings.ContainsAny(s, `%\`):
		return template(s)
	}
	return nil, fmt.Errorf("is none of text, json, and no template such as '%%t %%p'")
}

// verbs are what a template can show of a message; the letters are those of mosquitto_sub.
var verbs = map[byte]messageFormat{
	't': func(b []byte, m *mqtt.Message, _ time.Time) ([]byte, error) { return append(b, m.Topic...), nil },
	'p': appendPayload,
	'x': func(b []byte, m *mqtt.Message, _ time.Time) ([]byte, error) {
		return hex.AppendEncode(b, m.Payload), nil
	},
	'X': func(b []byte, m *mqtt.Message, _ time.Time) ([]byte, error) {
		return append(b, strings.ToUpper(hex.EncodeToString(m.Payload))...), nil
	},
	'l': func(b []byte, m *mqtt.Message, _ time.Time) ([]byte, error) {
		return strconv.AppendInt(b, int64(len(m.Payload)), 10), nil
	},
	'q': func(b []byte, m *mqtt.Message, _ time.Time) ([]byte, error) { return append(b, '0'+byte(m.QoS)), nil },
	'r': func(b []byte, m *mqtt.Message, _ time.Time) ([]byte, error) { return appendBit(b, m.Retain), nil },
	'I': func(b []byte, _ *mqtt.Message, now time.Time) ([]byte, error) {
		return now.AppendFormat(b, "2006-01-02T15:04:05-0700"), nil
	},
	'U': func(b []byte, _ *mqtt.Message, now time.Time) ([]byte, error) {
		return fmt.Appendf(b, "%d.%09d", now.Unix(), now.Nanosecond()), nil
	},
	'j': appendJSON(mosquittoText),
	'J': appendJSON(mosquittoValue),
	'C': func(b []byte, m *mqtt.Message, _ time.Time) ([]byte, error) { return append(b, m.ContentType...), nil },
	'D': func(b []byte, m *mqtt.Message, _ time.Time) ([]byte, error) {
		return append(b, m.CorrelationData...), nil
	},
	'E': func(b []byte, m *mqtt.Message, _ time.Time) ([]byte, error) {
		if !m.HasExpiry {
			return b, nil
		}
		return strconv.AppendUint(b, uint64(m.Expiry), 10), nil
	},
	'F': func(b []byte, m *mqtt.Message, _ time.Time) ([]byte, error) {
		if !m.PayloadUTF8 {
			return b, nil
		}
		return append(b, '1'), nil
	},
	'R': func(b []byte, m *mqtt.Message, _ time.Time) ([]byte, error) {
		return append(b, m.ResponseTopic...), nil
	},
	'P': func(b []byte, m *mqtt.Message, _ time.Time) ([]byte, error) {
		for i, u := range m.User {
			if i > 0 {
				b = append(b, ' ')
			}
			b = append(append(append(b, u.Name...), ':'), u.Value...)
		}
		return b, nil
	},
}

// escapes are the characters that a template writes with a backslash.
var escapes = map[byte]byte{'n': '\n', 't': '\t', 'r': '\r', '0': 0, 'a': '\a', 'e': 0x1b, 'v': '\v', '\\': '\\'}

// template reads a format in the manner of mosquitto_sub -F: text with verbs, %% and escapes.
func template(s string) (messageFormat, error) {
	var parts []messageFormat
	literal := func(c string) {
		parts = append(parts, func(b []byte, _ *mqtt.Message, _ time.Time) ([]byte, error) { return append(b, c...), nil })
	}
	for s != "" {
		at := strings.IndexAny(s, `%\`)
		if at < 0 {
			at = len(s)
		}
		if at > 0 {
			literal(s[:at])
		}
		if at == len(s) {
			break
		}
		if at+1 == len(s) {
			return nil, fmt.Errorf("ends after %q", s[at:])
		}
		kind, c := s[at], s[at+1]
		verb, escape := verbs[c], escapes[c]
		switch {
		case kind == '%' && c == '%':
			literal("%")
		case kind == '%' && verb != nil:
			parts = append(parts, verb)
		case kind == '\\' && (escape != 0 || c == '0'):
			literal(string(rune(escape)))
		default:
			return nil, fmt.Errorf("%s is none of %%t %%p %%x %%X %%l %%q %%r %%I %%U %%j %%J %%C %%D %%E %%F %%R %%P %%%% and \\n \\t \\r \\0 \\a \\e \\v \\\\", s[at:at+2])
		}
		s = s[at+2:]
	}
	return func(b []byte, m *mqtt.Message, now time.Time) (_ []byte, err error) {
		for _, part := range parts {
			if b, err = part(b, m, now); err != nil {
				return b, err
			}
		}
		return b, nil
	}, nil
}

func appendPayload(b []byte, m *mqtt.Message, _ time.Time) ([]byte, error) {
	return append(b, m.Payload...), nil
}

func appendBit(b []byte, on bool) []byte {
	if on {
		return append(b, '1')
	}
	return append(b, '0')
}

func appendJSON[T any](of func(*mqtt.Message, time.Time) T) messageFormat {
	return func(b []byte, m *mqtt.Message, now time.Time) ([]byte, error) {
		j, err := json.Marshal(of(m, now))
		return append(b, j...), err
	}
}

type printedMessage struct {
	Time            time.Time           `json:"time"`
	Topic           string              `json:"topic"`
	Payload         *string             `json:"payload,omitempty"`
	PayloadBase64   string              `json:"payload_base64,omitempty"`
	QoS             mqtt.QoS            `json:"qos"`
	Retain          bool                `json:"retain"`
	Expiry          *uint32             `json:"expiry,omitempty"`
	ContentType     string              `json:"content_type,omitempty"`
	ResponseTopic   string              `json:"response_topic,omitempty"`
	CorrelationData string              `json:"correlation_data_base64,omitempty"`
	User            []map[string]string `json:"properties,omitempty"`
}

func jsonMessage(m *mqtt.Message, now time.Time) printedMessage {
	out := printedMessage{Time: now, Topic: m.Topic, QoS: m.QoS, Retain: m.Retain, ContentType: m.ContentType, ResponseTopic: m.ResponseTopic,
		CorrelationData: base64.StdEncoding.EncodeToString(m.CorrelationData), User: userProperties(m)}
	if s := string(m.Payload); utf8.ValidString(s) {
		out.Payload = &s
	} else {
		out.PayloadBase64 = base64.StdEncoding.EncodeToString(m.Payload)
	}
	if m.HasExpiry {
		out.Expiry = &m.Expiry
	}
	return out
}

func userProperties(m *mqtt.Message) (out []map[string]string) {
	for _, u := range m.User {
		out = append(out, map[string]string{u.Name: u.Value})
	}
	return out
}

// A mosquittoMessage has the names and types that mosquitto_sub 2.1 gives.
type mosquittoMessage struct {
	Time       string               `json:"tst"`
	Topic      string               `json:"topic"`
	QoS        mqtt.QoS             `json:"qos"`
	Retain     bool                 `json:"retain"`
	Length     int                  `json:"payloadlen"`
	Properties *mosquittoProperties `json:"properties,omitempty"`
	Payload    any                  `json:"payload"`
}

type mosquittoProperties struct {
	Format          uint8               `json:"payload-format-indicator,omitempty"`
	Expiry          *uint32             `json:"message-expiry-interval,omitempty"`
	ContentType     string              `json:"content-type,omitempty"`
	ResponseTopic   string              `json:"response-topic,omitempty"`
	CorrelationData string              `json:"correlation-data,omitempty"`
	User            []map[string]string `json:"user-properties,omitempty"`
}

// mosquittoText is a message with its payload as a text.
func mosquittoText(m *mqtt.Message, now time.Time) mosquittoMessage {
	out := mosquittoMessage{Time: now.Format("2006-01-02T15:04:05.000000-0700"), Topic: m.Topic, QoS: m.QoS, Retain: m.Retain, Length: len(m.Payload)}
	if len(m.Payload) > 0 {
		out.Payload = string(m.Payload)
	}
	if m.PayloadUTF8 || m.HasExpiry || m.ContentType != "" || m.ResponseTopic != "" || m.CorrelationData != nil || len(m.User) > 0 {
		p := &mosquittoProperties{ContentType: m.ContentType, ResponseTopic: m.ResponseTopic, CorrelationData: string(m.CorrelationData), User: userProperties(m)}
		if m.PayloadUTF8 {
			p.Format = 1
		}
		if m.HasExpiry {
			p.Expiry = &m.Expiry
		}
		out.Properties = p
	}
	return out
}

// mosquittoValue is a message whose payload is JSON, as a part of the whole; what is none stays a text.
func mosquittoValue(m *mqtt.Message, now time.Time) mosquittoMessage {
	out := mosquittoText(m, now)
	if json.Valid(m.Payload) {
		out.Payload = json.RawMessage(m.Payload)
	}
	return out
}
