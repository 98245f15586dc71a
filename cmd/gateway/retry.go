package main

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"text/tabwriter"

	"gateway/internal/delivery"
)

// letterDirs returns the stores of the destinations named, or of all.
func letterDirs(c call, args []string, data, path string) (map[string]string, error) {
	if data == "" {
		cfg, err := loadConfig(c, path)
		if err != nil {
			return nil, err
		}
		data = cfg.Gateway.Data
	}
	dirs := map[string]string{}
	for _, name := range args {
		dirs[name] = delivery.LettersDir(data, name)
	}
	if len(args) > 0 {
		return dirs, nil
	}
	entries, err := os.ReadDir(filepath.Dir(delivery.LettersDir(data, "x")))
	if err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	for _, e := range entries {
		if e.Type()&fs.ModeType == fs.ModeDir {
			dirs[e.Name()] = delivery.LettersDir(data, e.Name())
		}
	}
	return dirs, nil
}

// runQueueRetry is 'gateway queue retry' and, with list, 'gateway queue letters'.
func runQueueRetry(_ context.Context, c call, args []string, list bool) error {
	c.args = args
	c.usage = "retry [--config FILE | --data DIR] [DESTINATION...]"
	c.summary = "Send the samples again that a broker refused and that were set aside."
	if list {
		c.usage = "letters [--config FILE | --data DIR] [DESTINATION...]"
		c.summary = "List the samples that a broker refused and that were set aside."
	}
	f := c.flags(`
A sample that a broker refuses while it takes others is set aside, with the reason, and the rest goes
on. When the reason is mended 'gateway queue retry' sends what was set aside again, for one destination
or for all: a gateway that is running does it within seconds, another at its next start.`)
	path := f.String("config", defaultConfig, "the configuration `file`, which names the data directory")
	data := f.String("data", "", "the data `directory`")
	if err := c.parse(f, 0, 1000); err != nil {
		return err
	}
	dirs, err := letterDirs(c, f.Args(), *data, *path)
	if err != nil {
		return err
	}
	if list {
		return listLetters(c, dirs)
	}
	total := 0
	for name, dir := range dirs {
		n, err := delivery.RetryLetters(dir)
		if err != nil {
			return err
		}
		total += n
		if n > 0 {
			fmt.Fprintf(c.out, "%s: %d samples are sent again\n", name, n)
		}
	}
	if total == 0 {
		fmt.Fprintln(c.out, "no sample was set aside")
	}
	return nil
}

func listLetters(c call, dirs map[string]string) error {
	w := tabwriter.NewWriter(c.out, 0, 0, 2, ' ', 0)
	n := 0
	for name, dir := range dirs {
		letters, err := delivery.ListLetters(dir)
		if err != nil {
			return err
		}
		for _, l := range letters {
			if n++; n == 1 {
				fmt.Fprintln(w, "DESTINATION\tSAMPLE\tBYTES\tREASON")
			}
			fmt.Fprintf(w, "%s\t%016x/%d\t%d\t%s\n", name, l.ID.Epoch, l.ID.Seq, len(l.Data), l.Reason)
		}
	}
	if n == 0 {
		fmt.Fprintln(w, "no sample was set aside")
	}
	return w.Flush()
}
