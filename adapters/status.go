package adapters

// DeviceState tells whether a device answers.
type DeviceState uint8

const (
	Unknown DeviceState = iota // not asked yet
	Online
	Offline
)

func (s DeviceState) String() string {
	switch s {
	case Online:
		return "online"
	case Offline:
		return "offline"
	}
	return "unknown"
}

// DeviceStatus is how one device fares.
type DeviceStatus struct {
	Device   string
	State    DeviceState
	Since    Instant // when State was entered
	Err      string  // why it is offline, for people; empty when online
	Polls    uint64  // cycles begun; for a device that talks by itself: frames taken
	Failures uint64  // cycles that gave no good reading
	Overruns uint64  // cycles skipped because the bus was still busy
}

// BusStatus is how one bus and its devices fare.
type BusStatus struct {
	Bus     string
	Open    bool   // the port, bus or connection is usable
	Err     string // why it is not, for people
	Beat    uint64 // counts the turns of the bus loop: a loop that is alive moves it at least once in 10 s
	Refused uint64 // samples the sink did not take
	Traffic Traffic
	Devices []DeviceStatus
}

// Traffic is what has gone over a bus since the start. What a kind of bus does not know is zero: there
// are no requests where devices talk by themselves, and the kernel's I2C knows no stray bytes.
type Traffic struct {
	Opened     uint64 // times that the port or the connection was opened
	Exchanges  uint64 // requests sent; on I2C: transactions
	Unanswered uint64 // of them: no answer came in time; on I2C: or nobody acknowledged the address
	Damaged    uint64 // answers and frames with a wrong checksum, and what followed no protocol
	Late       uint64 // answers thrown away because they were to a request that had been given up
	Stray      uint64 // bytes thrown away that were nobody's answer
	Out, In    uint64 // bytes
}
