package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"text/tabwriter"

	"gateway/internal/delivery"
)

const aboutLetters = `
A sample that a broker refuses while it takes others is set aside, with the reason, and the rest goes
on. When the reason is mended 'gateway queue retry' sends what was set aside again, for one destination
or for all: a gateway that is running does it within seconds, another at its next start.`

// letterDirs parses a call's flags and returns where the samples of the destinations that it names were
// set aside, or of all, in the order of their names.
func letterDirs(c call) (names []string, dir func(name string) string, err error) {
	q := newQueueFlags(c, aboutLetters)
	if _, err := q.dir(1000); err != nil {
		return nil, nil, err
	}
	dir = func(name string) string { return delivery.LettersDir(q.data, name) }
	if q.f.NArg() > 0 {
		return q.f.Args(), dir, nil
	}
	entries, err := os.ReadDir(filepath.Dir(dir("x")))
	if err != nil && !os.IsNotExist(err) {
		return nil, nil, err
	}
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names, dir, nil
}

func queueRetry(_ context.Context, c call) error {
	names, dir, err := letterDirs(c)
	if err != nil {
		return err
	}
	total := 0
	for _, name := range names {
		n, err := delivery.RetryLetters(dir(name))
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

func queueLetters(_ context.Context, c call) error {
	names, dir, err := letterDirs(c)
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(c.out, 0, 0, 2, ' ', 0)
	n := 0
	for _, name := range names {
		letters, err := delivery.ListLetters(dir(name))
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
