package config

import (
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"

	"github.com/BurntSushi/toml"
)

// Load reads the configuration file at path. It reports everything that is wrong at once: the
// problems come in the order of their lines, and the configuration is usable only if none of them
// is an error. What an adapter alone can know (is there such a chip?) is not checked here but by the
// wiring, which reports through the Place of each table into the same Problems.
func Load(path string) (*Config, *Problems) {
	p := &Problems{file: path}
	src, err := os.ReadFile(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		p.add(0, Error, "", "there is no such file; name yours with --config FILE")
		return nil, p
	case err != nil:
		p.add(0, Error, "", fmt.Sprintf("cannot be read: %v", errors.Unwrap(err)))
		return nil, p
	}
	return parse(string(src), p)
}

// Parse is Load for a configuration that is already in memory; name stands for the file in messages.
func Parse(name, src string) (*Config, *Problems) {
	return parse(src, &Problems{file: name})
}

func parse(src string, p *Problems) (*Config, *Problems) {
	var tree map[string]any
	if _, err := toml.Decode(src, &tree); err != nil {
		var syntax toml.ParseError
		if errors.As(err, &syntax) {
			what := "not TOML: " + syntax.Message
			if strings.HasPrefix(syntax.Message, "invalid escape") {
				what += "; write text that has backslashes in single quotes"
			}
			p.add(syntax.Position.Line, Error, "", what)
		} else {
			p.add(0, Error, "", "not TOML: "+err.Error())
		}
		return nil, p
	}
	p.lines = keyLines(src)
	cfg := &Config{}
	root := Place{problems: p}
	decode(reflect.ValueOf(cfg).Elem(), tree, root)
	p.decoded = true
	cfg.check()
	return cfg, p
}
