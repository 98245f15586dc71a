package gateway

import (
	"fmt"
	"strings"

	"gateway/config"
)

// Check asks the parts about the configuration what config itself cannot know: whether there is such
// a chip, whether a port exists today. It opens nothing. What it finds is reported through the places
// of cfg's tables. Names of files count from configFile's directory.
func Check(cfg *config.Config, configFile string) {
	if cfg.Broker.Enabled {
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
	for i := range cfg.I2C {
		checkI2C(&cfg.I2C[i])
	}
}

// Describe says in a line what a configuration sets up.
func Describe(cfg *config.Config) string {
	var devices, destinations int
	var names []string
	for _, b := range cfg.Modbus {
		devices += len(b.Devices)
	}
	for _, b := range cfg.Serial {
		devices += len(b.Devices)
	}
	for _, b := range cfg.I2C {
		devices += len(b.Devices)
	}
	if cfg.Broker.Enabled {
		names = append(names, config.LocalDestination)
	}
	for _, d := range cfg.Destinations {
		names = append(names, d.Name)
	}
	destinations = len(names)
	return fmt.Sprintf("%s on %s, to %s (%s)",
		count(devices, "device"), count(len(cfg.Modbus)+len(cfg.Serial)+len(cfg.I2C), "bus"),
		count(destinations, "destination"), strings.Join(names, ", "))
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
