package main

import (
	"flag"
	"strings"
)

// propertyFlags are the flags that set what mosquitto_pub and mosquitto_sub set with -D, by command and property.
var propertyFlags = map[string]map[string]string{
	"connect": {"session-expiry-interval": "session"},
	"publish": {
		"content-type":             "content-type",
		"correlation-data":         "correlation-data",
		"message-expiry-interval":  "expiry",
		"payload-format-indicator": "utf8",
		"response-topic":           "response-topic",
		"user-property":            "property",
	},
	"will": {"will-delay-interval": "will-delay"},
}

// expandProperties writes -D COMMAND PROPERTY VALUE as the flag of ours that says the same: the flag package has no form
// for a flag with several values.
func expandProperties(f *flag.FlagSet, args []string) (out []string, err error) {
	for i := 0; i < len(args); i++ {
		a := args[i]
		if a == "--" {
			return append(out, args[i:]...), nil
		}
		if a != "-D" {
			out = append(out, a)
			if takesValue(f, a) && i+1 < len(args) {
				i++
				out = append(out, args[i])
			}
			continue
		}
		words := args[i+1:]
		if len(words) < 3 {
			return nil, usagef("-D: write -D COMMAND PROPERTY VALUE, such as -D publish content-type text/plain")
		}
		name := propertyFlags[words[0]][words[1]]
		if name == "" || f.Lookup(name) == nil {
			return nil, usagef("-D %s %s: this command has no such property", words[0], words[1])
		}
		value := words[2]
		i += 3
		if words[1] == "user-property" {
			if len(words) < 4 {
				return nil, usagef("-D %s user-property: write a name and a value", words[0])
			}
			value += "=" + words[3]
			i++
		}
		out = append(out, "--"+name+"="+value)
	}
	return out, nil
}

// takesValue tells whether the argument after this one belongs to it.
func takesValue(f *flag.FlagSet, arg string) bool {
	if len(arg) < 2 || arg[0] != '-' || strings.Contains(arg, "=") {
		return false
	}
	x := f.Lookup(strings.TrimLeft(arg, "-"))
	if x == nil {
		return false
	}
	b, ok := x.Value.(interface{ IsBoolFlag() bool })
	return !ok || !b.IsBoolFlag()
}
