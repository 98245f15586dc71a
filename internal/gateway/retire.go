package gateway

import (
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"gateway/config"
	"gateway/internal/atomicfile"
)

// announced is what is retained at each destination, as far as it is ours: what this configuration may
// announce, and what an earlier one did and has not been cleared yet. A file remembers it, for a broker
// keeps the state of a device that is no more for ever.
type announced map[string][]string

func announcedPath(data string) string { return filepath.Join(data, "announced") }

// readAnnounced returns nothing where there is nothing, or nothing that can be read: what was announced
// before is left as it is then.
func readAnnounced(path string) (announced, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var a announced
	if err == nil {
		err = json.Unmarshal(data, &a)
	}
	return a, err
}

func (a announced) write(path string) error {
	data, err := json.Marshal(a)
	if err != nil {
		return err
	}
	return atomicfile.Write(path, data)
}

// stale returns what was announced below a gateway's id and is not among the topics of now. What stands
// below another id may be another gateway's by now.
func (a announced) stale(destination, id string, now []string) (topics []string) {
	for _, t := range a[destination] {
		if strings.HasPrefix(t, id+"/") && !slices.Contains(now, t) {
			topics = append(topics, t)
		}
	}
	return topics
}

// retire has each destination clear what is retained there of devices and buses that left the
// configuration. The buses and destinations must be there.
func (g *Gateway) retire() {
	path := announcedPath(g.o.Config.Gateway.Data)
	before, err := readAnnounced(path)
	if err != nil {
		g.log.Warn("what was announced before cannot be read; it stays as it is at the brokers", "file", path, "err", err)
	}
	g.announced = announced{}
	for _, d := range g.destinations {
		if d.announcer == nil {
			continue
		}
		topics := g.announces(d)
		for _, t := range before.stale(d.name, g.o.Config.Gateway.ID, topics) {
			d.announcer.Clear(t)
			topics = append(topics, t)
		}
		slices.Sort(topics)
		g.announced[d.name] = topics
	}
	if !reflect.DeepEqual(g.announced, before) {
		g.keepAnnounced()
	}
}

func (g *Gateway) keepAnnounced() {
	if err := g.announced.write(announcedPath(g.o.Config.Gateway.Data)); err != nil {
		g.log.Warn("what is announced cannot be written; of devices that leave the configuration something may stay at the brokers", "err", err)
	}
}

// cleared forgets what has been cleared since it was last called.
func (g *Gateway) cleared() {
	some := false
	for _, d := range g.destinations {
		if d.announcer == nil {
			continue
		}
		for _, t := range d.announcer.Cleared() {
			g.announced[d.name] = slices.DeleteFunc(g.announced[d.name], func(s string) bool { return s == t })
			some = true
		}
	}
	if some {
		g.keepAnnounced()
	}
}

// announces are the topics that this configuration may announce at a destination.
func (g *Gateway) announces(d *destination) []string {
	topics := map[string]bool{g.ownTopic("state"): true, g.ownTopic("account"): true}
	for _, b := range g.buses {
		s := b.Status()
		for _, x := range s.Devices {
			if d.gets(x.Device) {
				topics[g.stateTopic(x.Device)] = true
				topics[g.busTopic(s.Bus)] = true
			}
		}
	}
	return slices.Collect(maps.Keys(topics))
}

// ownTopic is a topic of the gateway's own.
func (g *Gateway) ownTopic(name string) string {
	return g.o.Config.Gateway.ID + "/" + config.ReservedDevice + "/" + name
}

// stateTopic says whether a device answers.
func (g *Gateway) stateTopic(device string) string {
	return g.o.Config.Gateway.ID + "/" + device + "/state"
}

// busTopic says how a bus fares.
func (g *Gateway) busTopic(bus string) string { return g.ownTopic("bus/" + bus) }
