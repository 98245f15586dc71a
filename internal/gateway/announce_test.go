package gateway

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"gateway/adapters"
)

// What docs/messages.md shows of a bus is what is published of one that fares so.
func TestWhatIsToldOfABusIsAsDocumented(t *testing.T) {
	s := adapters.BusStatus{
		Bus: "meters", Open: true,
		Traffic: adapters.Traffic{Opened: 2, Exchanges: 1840, Unanswered: 3, Damaged: 1, Stray: 7, Out: 14720, In: 38577},
		Devices: []adapters.DeviceStatus{
			{Device: "boiler", State: adapters.Online, Polls: 920},
			{Device: "feed-in", State: adapters.Offline, Polls: 920, Failures: 3, Err: "modbus: no answer in time"},
		},
	}
	doc, err := os.ReadFile(filepath.Join("..", "..", "docs", "messages.md"))
	if err != nil {
		t.Fatal(err)
	}
	for block := range strings.SplitSeq(string(doc), "```json") {
		block, _, _ = strings.Cut(block, "```")
		var shown, got any
		if !strings.Contains(block, `"unanswered"`) {
			continue
		}
		if err := json.Unmarshal([]byte(block), &shown); err != nil {
			t.Fatal(err)
		}
		text := busMessage(s, func(string) bool { return true }).json()
		if err := json.Unmarshal([]byte(text), &got); err != nil || !reflect.DeepEqual(got, shown) {
			t.Errorf("got %s, shown is %s", text, block)
		}
		return
	}
	t.Error("docs/messages.md does not show what is told of a bus")
}

// A destination that gets one device's samples learns nothing of the others.
func TestABusIsToldOnlyOfDevicesThatGoThere(t *testing.T) {
	s := adapters.BusStatus{Bus: "meters", Devices: []adapters.DeviceStatus{{Device: "boiler"}, {Device: "secret"}}}
	d := destination{devices: []string{"boil*"}}
	if text := busMessage(s, d.gets).json(); !strings.Contains(text, "boiler") || strings.Contains(text, "secret") {
		t.Error(text)
	}
}
