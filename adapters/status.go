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

// Traffic is what has gone over a bus of requests and answers; zero for others.
type Traffic struct {
	Exchanges uint64 // requests sent
	Late      uint64 // answers thrown away because they were to a request that had been given up
	Stray     uint64 // bytes thrown away that were nobody's answer
	Out, In   uint64 // bytes
}
