package gateway

import (
	"fmt"
	"slices"
	"strings"

	"gateway/adapters/hint"
	"gateway/config"
	"gateway/internal/format"
)

// Check asks the parts about the configuration what config itself cannot know: whether there is such
// a chip, whether a port exists today. It opens nothing. What it finds is reported through the places
// of cfg's tables. Names of files count from configFile's directory.
func Check(cfg *config.Config, configFile string) {
	if cfg.Broker.Enabled {
		checkBroker(&cfg.Broker, configFile)
		checkPublishing(cfg.Gateway.ID, cfg.Local.At, &cfg.Local.Publishing)
	}
	for i := range cfg.Destinations {
		checkPublishing(cfg.Gateway.ID, cfg.Destinations[i].At, &cfg.Destinations[i].Publishing)
		checkConnection(cfg.Gateway.ID, &cfg.Destinations[i], configFile)
	}
	checkModbus(cfg.Modbus)
	for i := range cfg.Serial {
		checkSerial(&cfg.Serial[i])
	}
	checkOwners(cfg)
	checkPatterns(cfg)
	for i := range cfg.I2C {
		checkI2C(&cfg.I2C[i])
	}
}

// checkPatterns warns of patterns for devices that no device of the file fits: nothing would ever go
// that way, and nobody would notice.
func checkPatterns(cfg *config.Config) {
	names := append(cfg.DeviceNames(), config.ReservedDevice)
	check := func(at config.Place, patterns []string) {
		for _, p := range patterns {
			if slices.ContainsFunc(names, func(name string) bool { return format.Match(p, name) }) {
				continue
			}
			at.Warnf("devices", "devices: no device is called %q%s", p, hint.DidYouMean(p, names))
		}
	}
	publishing := func(at config.Place, p *config.Publishing) {
		check(at, p.Devices)
		for i := range p.Rules {
			check(p.Rules[i].At, p.Rules[i].Devices)
		}
	}
	publishing(cfg.Local.At, &cfg.Local.Publishing)
	for i := range cfg.Destinations {
		publishing(cfg.Destinations[i].At, &cfg.Destinations[i].Publishing)
	}
	for i := range cfg.Reports {
		check(cfg.Reports[i].At, cfg.Reports[i].Devices)
	}
}

// Describe says in a line what a configuration sets up.
func Describe(cfg *config.Config) string {
	var names []string
	if cfg.Broker.Enabled {
		names = append(names, config.LocalDestination)
	}
	for _, d := range cfg.Destinations {
		names = append(names, d.Name)
	}
	return fmt.Sprintf("%s on %s, to %s (%s)",
		count(len(cfg.DeviceNames()), "device"), count(len(cfg.Modbus)+len(cfg.Serial)+len(cfg.I2C), "bus"),
		count(len(names), "destination"), strings.Join(names, ", "))
}

func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	if strings.HasSuffix(noun, "s") {
		return fmt.Sprintf("%d %ses", n, noun)
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
