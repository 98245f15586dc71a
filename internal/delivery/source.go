package delivery

import (
	"context"

	"gateway/buffer"
	"gateway/mqtt"
)

// A Publisher takes messages for a broker: our client, or the broker in this process. Publish never
// waits for the acknowledgement. If it returns nil, done is called exactly once, from any
// goroutine, perhaps before Publish has returned: with nil when the broker acknowledged the message
// (QoS 0: when it was written), with a *mqtt.ReasonError when the broker refused it, with another
// error when it was given back. The message may be used anew after that.
type Publisher interface {
	Publish(ctx context.Context, m *mqtt.Message, done func(error)) error
}

// A Withdrawer is a Publisher that can give back all that is not acknowledged; done is called for
// each with an error that is no *mqtt.ReasonError.
type Withdrawer interface {
	Withdraw()
}

// A Reconnecter is a Publisher that can leave a broker for a reason and find it, or another, anew.
type Reconnecter interface {
	Reconnect(why error)
}

// ID names a record of the queue.
type ID = buffer.ID

// delivered is what a Source counts beside its cursor: samples, and the messages that carried them.
func delivered(samples, messages int) buffer.Tally {
	return buffer.Tally{uint64(samples), uint64(messages)}
}

// A Source is a consumer of the queue; *buffer.Consumer is one.
type Source interface {
	TryNext(buffer.Lane) (buffer.Record, bool, error) // the next record of a lane, if there is one; valid until the next call
	Ready() <-chan struct{}                           // gives a token after anything that can make TryNext succeed
	Ack(ID)                                           // in any order
	AckAll(buffer.Tally, ...ID)                       // the same, and counts what was delivered
	Defer()                                           // what is unread in the live lane moves to the backfill lane
	Depth() (live, backfill int64)                    // records not acknowledged
}
