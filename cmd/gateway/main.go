// Command gateway reads sensors over Modbus, serial lines and I2C into a disk-backed queue and
// publishes them over MQTT. Each subcommand has a file of its own; this one holds what they share.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"strings"
	"syscall"

	"gateway/adapters/hint"
)

// Exit codes: those of sysexits.h where it has one, so that a service manager can tell a
// configuration that no restart will mend from a fault that one might.
const (
	exitOK      = 0
	exitFailure = 1
	exitUsage   = 64 // EX_USAGE
	exitConfig  = 78 // EX_CONFIG
)

// streams are what a command reads and writes besides files and sockets.
type streams struct {
	in       io.Reader
	out, err io.Writer
}

// A command is one subcommand. run returns nil for success; an *exitError chooses the exit code.
type command struct {
	name    string
	usage   string // what follows the name in the usage line
	summary string // a sentence
	run     func(ctx context.Context, c call) error
}

// A call is one use of a command.
type call struct {
	command
	streams
	args []string
}

// commands are the subcommands in the order in which --help lists them.
func commands() []command {
	return []command{
		demoCommand,
		runCommand,
		brokerCommand,
		checkCommand,
		initCommand,
		i2cCommand,
		modbusCommand,
		passwdCommand,
		planCommand,
		pubCommand,
		queueCommand,
		serialCommand,
		serviceCommand,
		subCommand,
		verifyStreamCommand,
		versionCommand,
	}
}

// An exitError ends the program with a code of its own. Err is nil where all has been said already.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit %d", e.code)
	}
	return e.err.Error()
}
func (e *exitError) Unwrap() error { return e.err }

// A subError is one of a subcommand.
type subError struct {
	name string // "queue ls"
	err  error
}

func (e *subError) Error() string { return e.err.Error() }
func (e *subError) Unwrap() error { return e.err }

// usagef is a fault in how the command was called.
func usagef(format string, args ...any) error {
	return &exitError{exitUsage, fmt.Errorf(format, args...)}
}

func main() {
	// The first signal asks for an orderly stop, the second ends the program at once.
	ctx, stop := signal.NotifyContext(context.Background(), endSignals()...)
	go func() {
		<-ctx.Done()
		stop()
	}()
	os.Exit(Main(ctx, streams{os.Stdin, os.Stdout, os.Stderr}, os.Args[1:]))
}

// endSignals are the signals that ask for an orderly stop. A terminal that is closed does, too, but not where
// nohup says that it shall not.
func endSignals() []os.Signal {
	signals := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) {
		signals = append(signals, syscall.SIGHUP)
	}
	return signals
}

// Main carries out one command line and returns the exit code.
func Main(ctx context.Context, std streams, args []string) int {
	name := "help"
	if len(args) > 0 {
		name, args = args[0], args[1:]
	}
	switch name {
	case "help", "-h", "-help", "--help":
		if len(args) == 0 {
			printCommands(std.out)
			return exitOK
		}
		name, args = args[0], append(args[1:len(args):len(args)], "--help")
	case "-v", "-version", "--version":
		name = versionCommand.name
	}
	var names []string
	for _, c := range commands() {
		if c.name == name {
			return exitCode(std, c, c.run(ctx, call{c, std, args}))
		}
		names = append(names, c.name)
	}
	fmt.Fprintf(std.err, "gateway: there is no command %q%s\nRun 'gateway help' for the list.\n", name, hint.DidYouMean(name, names))
	return exitUsage
}

func printCommands(w io.Writer) {
	fmt.Fprint(w, "gateway reads sensors over Modbus, serial lines and I2C into a disk-backed queue\nand publishes them over MQTT, to a broker of its own and to others upstream.\n\nUsage: gateway COMMAND [flags]\n\n")
	for _, c := range commands() {
		fmt.Fprintf(w, "  %-15s %s\n", c.name, c.summary)
	}
	fmt.Fprint(w, "\nEach command explains itself: gateway help COMMAND\n")
}

func exitCode(std streams, c command, err error) int {
	if err == nil || errors.Is(err, flag.ErrHelp) {
		return exitOK
	}
	name, code := c.name, exitFailure
	var sub *subError
	if errors.As(err, &sub) {
		name, err = sub.name, sub.err
	}
	var exit *exitError
	if errors.As(err, &exit) {
		code, err = exit.code, exit.err
	}
	if err != nil {
		fmt.Fprintf(std.err, "gateway %s: %s\n", name, strings.TrimPrefix(err.Error(), c.name+": "))
		if code == exitUsage {
			fmt.Fprintf(std.err, "Run 'gateway %s --help' for how to use it.\n", name)
		}
	}
	return code
}

// longFlag finds a flag with a name of more than a letter in the flag package's list: one dash or two are
// the same to it, but two are what people write.
var longFlag = regexp.MustCompile(`(?m)^  -(\w[\w-])`)

// flags returns the flag set of a command. Its --help prints the summary, the usage line, the flags
// and notes, and ends the command with success.
func (c call) flags(notes string) *flag.FlagSet {
	f := flag.NewFlagSet(c.name, flag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.Usage = func() {
		fmt.Fprintf(c.out, "%s\n\nUsage: gateway %s\n", c.summary, strings.TrimSpace(c.name+" "+c.usage))
		any := false
		f.VisitAll(func(*flag.Flag) { any = true })
		if any {
			fmt.Fprintln(c.out, "\nFlags:")
			var list strings.Builder
			f.SetOutput(&list)
			f.PrintDefaults()
			f.SetOutput(io.Discard)
			fmt.Fprint(c.out, longFlag.ReplaceAllString(list.String(), "  --$1"))
		}
		if notes != "" {
			fmt.Fprintf(c.out, "\n%s\n", strings.TrimSpace(notes))
		}
	}
	return f
}

// parse parses the call's flags; what is left over must be at least least and at most most arguments.
func (c call) parse(f *flag.FlagSet, least, most int) error {
	if err := parseFlags(f, c.args); err != nil {
		return err
	}
	switch n := f.NArg(); {
	case n < least:
		return usagef("an argument is missing: gateway %s %s", c.name, c.usage)
	case n > most && f.Lookup("config") != nil && strings.HasSuffix(f.Arg(most), ".toml"):
		return usagef("unexpected argument %q; say --config %s", f.Arg(most), f.Arg(most))
	case n > most:
		return usagef("unexpected argument %q", f.Arg(most))
	}
	return nil
}

// parseMixed is parse for flags that may also stand between and behind the arguments, where none of these begins with
// a dash; "--" ends the flags.
func (c call) parseMixed(f *flag.FlagSet) error {
	arguments := []string{"--"}
	for args := c.args; len(args) > 0; {
		if err := parseFlags(f, args); err != nil {
			return err
		}
		parsed := len(args) - f.NArg()
		ended := parsed > 0 && args[parsed-1] == "--"
		if args = f.Args(); ended {
			arguments = append(arguments, args...)
			break
		}
		if len(args) > 0 {
			arguments = append(arguments, args[0])
			args = args[1:]
		}
	}
	return f.Parse(arguments)
}

// parseFlags parses flags as far as they go. The flag package would print all of the help at each
// mistake; here it is printed where it is asked for.
func parseFlags(f *flag.FlagSet, args []string) error {
	help := f.Usage
	f.Usage = func() {}
	err := f.Parse(args)
	f.Usage = help
	switch {
	case errors.Is(err, flag.ErrHelp), err != nil && len(args) == 1 && args[0] == "-h": // where -h wants a host, too
		help()
		return flag.ErrHelp
	case err != nil:
		return usagef("%s%s", flagInText.ReplaceAllString(err.Error(), "$1 --$2"), nearFlag(f, err))
	}
	return nil
}

// flagInText finds such a flag in what the flag package says of a mistake.
var flagInText = regexp.MustCompile(`(flag|not defined:|argument:) -(\w[\w-])`)

// nearFlag is a hint where an unknown flag looks like one that there is.
func nearFlag(f *flag.FlagSet, err error) string {
	_, typed, unknown := strings.Cut(err.Error(), "not defined: -")
	if !unknown {
		return ""
	}
	var names []string
	f.VisitAll(func(known *flag.Flag) { names = append(names, known.Name) })
	if near, ok := hint.Nearest(typed, names); ok {
		return fmt.Sprintf("; did you mean --%s?", near)
	}
	return ""
}

// dispatch carries out the subcommand that the call names, or lists them; their names begin with the
// command's.
func (c call) dispatch(ctx context.Context, subcommands []command) error {
	if len(c.args) > 0 {
		var names []string
		for _, sub := range subcommands {
			short := strings.TrimPrefix(sub.name, c.name+" ")
			if short == c.args[0] {
				if err := sub.run(ctx, call{sub, c.streams, c.args[1:]}); err != nil {
					return &subError{sub.name, err}
				}
				return nil
			}
			names = append(names, short)
		}
		if !strings.HasPrefix(c.args[0], "-") {
			return usagef("there is no %q%s", c.args[0], hint.OneOf(c.args[0], names))
		}
	}
	fmt.Fprintf(c.out, "%s\n\n", c.summary)
	for _, sub := range subcommands {
		fmt.Fprintf(c.out, "  gateway %s\n      %s\n", strings.TrimSpace(sub.name+" "+sub.usage), sub.summary)
	}
	if len(c.args) == 0 {
		return &exitError{exitUsage, nil}
	}
	return nil
}
