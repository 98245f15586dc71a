package adapters

// A Reason says in a word or two why a reading is bad or stale. It is published as it stands, so
// it is part of the interface to users: short, lowercase, stable. Adapters may add a detail that
// stays the same from cycle to cycle ("exception 2"), never one that changes.
type Reason string

// The reasons that all adapters share.
const (
	ReasonTimeout     Reason = "timeout"      // the device did not answer in time
	ReasonNoAck       Reason = "no ack"       // I2C: nobody acknowledged the address
	ReasonAbsent      Reason = "absent"       // the port, bus or host is not there
	ReasonChecksum    Reason = "checksum"     // the answer came damaged
	ReasonProtocol    Reason = "protocol"     // the answer does not follow the protocol
	ReasonBusy        Reason = "busy"         // the device asked for patience
	ReasonRefused     Reason = "refused"      // the device answered with an error
	ReasonRange       Reason = "out of range" // outside the valid range of the configuration or the datasheet
	ReasonSentinel    Reason = "sentinel"     // the device's own mark for "no value"
	ReasonNotFinite   Reason = "not finite"   // NaN or an infinity
	ReasonParse       Reason = "parse"        // the text or bytes are not of the expected form
	ReasonNotReady    Reason = "not ready"    // the device has not measured yet
	ReasonBackoff     Reason = "backoff"      // not asked in this cycle, after failures before
	ReasonOverrange   Reason = "overrange"    // the sensor is saturated
	ReasonUnsupported Reason = "unsupported"  // the device has no such point
)
