package broker

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"

	"gateway/mqtt"
)

// A record of the store is a sequence of operations that take effect together. Each begins with a byte;
// numbers are varints (encoding/binary's Uvarint), strings and bytes have their length before them.
//
//	session      1  session, client identifier, user name, expiry in seconds
//	end          2  session
//	subscribe    3  session, filter, options, subscription identifier
//	unsubscribe  4  session, filter
//	message      5  message, count, and for each session that is owed it:
//	                session, flags, count of subscription identifiers, identifiers, and the filter of the
//	                shared subscription that it is owed by, where the flags announce that
//	done         6  session, message number
//	incoming     7  session, packet identifier
//	forgotten    8  session, packet identifier
//	sent         9  session, message number, packet identifier
//	released    10  session, message number
//	retained    11  message; without payload: the topic has none
//	owed        12  message number, session, flags, count, identifiers, filter, packet identifier, state
//	left        13  session, the time when its connection ended; while it has one there is none
//	will        14  session, client identifier, user name, delay in seconds, seconds that it is of use plus 1
//	                (0: for ever), message
//	executed    15  message number of a will: it was published, or will not be
//	clock       16  time, boot, nanoseconds since that
//
// A time is that of the broker in nanoseconds, which goes on over restarts (snapshot.go, resume).
// A message is: number, flags, topic, payload, and what the flags announce: the time when it expires and the
// seconds that it lived until then, content type,
// response topic, correlation data, count of user properties and their names and values. Sessions
// and messages have numbers that are never used again. Operations on what is not there have no effect,
// and a message that a session has already is not added again: a snapshot is taken while the broker
// works, so the log behind it repeats some of it.
const (
	opSession     = 1
	opEnd         = 2
	opSubscribe   = 3
	opUnsubscribe = 4
	opMessage     = 5
	opDone        = 6
	opIncoming    = 7
	opForgotten   = 8
	opSent        = 9
	opReleased    = 10
	opRetained    = 11
	opOwed        = 12
	opLeft        = 13
	opWill        = 14
	opExecuted    = 15
	opClock       = 16
)

// Flags of a message.
const (
	msgRetain = 1 << (iota + 2) // the low two bits are the QoS
	msgUTF8
	msgExpiry
	msgContentType
	msgResponseTopic
	msgCorrelation
)
const (
	msgUser   = 1 << 8
	msgBytes  = 1 << 9  // payload format indicator 0
	msgNoType = 1 << 10 // an empty content type
)

func appendUint(b []byte, n uint64) []byte { return binary.AppendUvarint(b, n) }

func appendNum(b []byte, op byte, n uint64) []byte { return appendUint(append(b, op), n) }

func appendID(b []byte, id uint16) []byte { return appendUint(b, uint64(id)) }

func appendString[S string | []byte](b []byte, s S) []byte {
	return append(appendUint(b, uint64(len(s))), s...)
}

func appendSession(b []byte, s *session) []byte {
	b = appendString(appendNum(b, opSession, s.num), s.id)
	user := ""
	if c := s.ident.Load(); c != nil {
		user = c.Username
	}
	return appendUint(appendString(b, user), uint64(s.expiry))
}

func appendSubscription(b []byte, num uint64, q *mqtt.Subscription, id uint32) []byte {
	opt := uint64(q.QoS)
	if q.NoLocal {
		opt |= 4
	}
	if q.RetainAsPublished {
		opt |= 8
	}
	return appendUint(appendUint(appendString(appendNum(b, opSubscribe, num), q.Filter), opt), uint64(id))
}

func appendWill(b []byte, num uint64, w *will) []byte {
	b = appendString(appendString(appendNum(b, opWill, num), w.client.ID), w.client.Username)
	b = appendUint(b, uint64(w.delay/time.Second))
	if w.m.HasExpiry {
		b = appendUint(b, uint64(w.seconds)+1)
	} else {
		b = appendUint(b, 0)
	}
	m := *w.m
	m.expires = 0 // that begins when it is published
	return appendMessage(b, &m, w.seq)
}

func appendClock(b []byte, now int64, uptime func() (string, time.Duration)) []byte {
	boot, up := "", time.Duration(0)
	if uptime != nil {
		boot, up = uptime()
	}
	return appendUint(appendString(appendNum(b, opClock, uint64(now)), boot), uint64(up))
}

func appendMessage(b []byte, m *message, seq uint64) []byte {
	flags := uint64(m.QoS)
	set := func(on bool, flag uint64) {
		if on {
			flags |= flag
		}
	}
	set(m.Retain, msgRetain)
	set(m.PayloadUTF8, msgUTF8)
	set(m.expires != 0, msgExpiry)
	set(m.ContentType != "", msgContentType)
	set(m.ResponseTopic != "", msgResponseTopic)
	set(m.CorrelationData != nil, msgCorrelation)
	set(len(m.User) > 0, msgUser)
	set(m.saysBytes, msgBytes)
	set(m.saysNoType, msgNoType)
	b = appendUint(appendUint(b, seq), flags)
	b = appendString(appendString(b, m.Topic), m.Payload)
	if flags&msgExpiry != 0 {
		b = appendUint(appendUint(b, uint64(m.expires)), uint64(m.Expiry))
	}
	if flags&msgContentType != 0 {
		b = appendString(b, m.ContentType)
	}
	if flags&msgResponseTopic != 0 {
		b = appendString(b, m.ResponseTopic)
	}
	if flags&msgCorrelation != 0 {
		b = appendString(b, m.CorrelationData)
	}
	if flags&msgUser != 0 {
		b = appendUint(b, uint64(len(m.User)))
		for i := range m.User {
			b = appendString(appendString(b, m.User[i].Name), m.User[i].Value)
		}
	}
	return b
}

// Flags of what is owed.
const (
	owedRetain = 1 << (iota + 2) // the low two bits are the QoS
	owedShared
)

func appendOwed(b []byte, num uint64, qos mqtt.QoS, retain bool, ids []uint32, group *shareGroup) []byte {
	flags := uint64(qos)
	if retain {
		flags |= owedRetain
	}
	if group != nil {
		flags |= owedShared
	}
	b = appendUint(appendUint(appendUint(b, num), flags), uint64(len(ids)))
	for _, id := range ids {
		b = appendUint(b, uint64(id))
	}
	if group != nil {
		b = appendString(b, group.filter)
	}
	return b
}

// errRecord says that a record is not of this form.
var errRecord = errors.New("broker: record is damaged or of a later version")

// A recordReader takes a record apart. After a failure everything it returns is zero.
type recordReader struct {
	b   []byte
	err error
}

func (r *recordReader) fail() {
	if r.err == nil {
		r.err = fmt.Errorf("%w (%d bytes are left)", errRecord, len(r.b))
	}
	r.b = nil
}

func (r *recordReader) uint() uint64 {
	n, used := binary.Uvarint(r.b)
	if used <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[used:]
	return n
}

// time reads a time or a duration in nanoseconds.
func (r *recordReader) time() int64 {
	n := r.uint()
	if n > math.MaxInt64/2 {
		r.fail()
		return 0
	}
	return int64(n)
}

func (r *recordReader) op() byte {
	b := r.b[0]
	r.b = r.b[1:]
	return b
}

func (r *recordReader) bytes() []byte {
	n := r.uint()
	if n > uint64(len(r.b)) {
		r.fail()
		return nil
	}
	b := r.b[:n:n]
	r.b = r.b[n:]
	return b
}

func (r *recordReader) string() string { return string(r.bytes()) }

// count reads how many things of at least one byte each follow.
func (r *recordReader) count() int {
	n := r.uint()
	if n > uint64(len(r.b)) {
		r.fail()
		return 0
	}
	return int(n)
}

// will reads whose will it is and the will.
func (r *recordReader) will() (num uint64, w *will) {
	num = r.uint()
	w = &will{client: &Client{ID: r.string(), Username: r.string()}}
	w.delay = time.Duration(min(r.uint(), never)) * time.Second
	expiry := r.uint()
	w.m = r.message()
	w.seq = w.m.seq
	if expiry > 0 {
		w.m.HasExpiry, w.seconds = true, uint32(expiry-1)
	}
	return num, w
}

func (r *recordReader) message() *message {
	m := &message{seq: r.uint()}
	flags := r.uint()
	m.QoS = mqtt.QoS(flags & 3)
	m.Retain = flags&msgRetain != 0
	m.PayloadUTF8 = flags&msgUTF8 != 0
	m.saysBytes, m.saysNoType = flags&msgBytes != 0, flags&msgNoType != 0
	m.Topic = r.string()
	m.Payload = append([]byte(nil), r.bytes()...)
	if flags&msgExpiry != 0 {
		m.expires = r.time()
		m.HasExpiry, m.Expiry = true, uint32(r.uint())
	}
	if flags&msgContentType != 0 {
		m.ContentType = r.string()
	}
	if flags&msgResponseTopic != 0 {
		m.ResponseTopic = r.string()
	}
	if flags&msgCorrelation != 0 {
		m.CorrelationData = append([]byte{}, r.bytes()...)
	}
	if flags&msgUser != 0 {
		n := r.count()
		for range n {
			name := r.string()
			m.User = append(m.User, mqtt.UserProperty{Name: name, Value: r.string()})
		}
	}
	if !mqtt.ValidTopicName(m.Topic) || m.QoS > mqtt.ExactlyOnce {
		r.fail()
	}
	return m
}

// owed reads to whom and how a message is owed, and the filter of the shared subscription by which it is, if any.
func (r *recordReader) owed() (num uint64, d *delivery, share string) {
	num = r.uint()
	flags := r.uint()
	d = &delivery{qos: mqtt.QoS(flags & 3), retain: flags&owedRetain != 0}
	n := r.count()
	for range n {
		d.ids = append(d.ids, uint32(r.uint()))
	}
	if flags&owedShared != 0 {
		share = r.string()
	}
	if d.qos == 0 || d.qos > mqtt.ExactlyOnce {
		r.fail()
	}
	return num, d, share
}
