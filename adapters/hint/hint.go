// Package hint says what somebody who mistyped a name may have meant, for the end of a message. It is
// generic over kinds of names, so that whoever has a list of them need not make strings of it.
package hint

import (
	"fmt"
	"slices"
	"strings"
)

// DidYouMean returns `; did you mean "x"?` for the nearest of the names, or "" where none is near.
func DidYouMean[S ~string](typed S, names []S) string {
	if near, ok := Nearest(typed, names); ok {
		return fmt.Sprintf("; did you mean %q?", near)
	}
	return ""
}

// OneOf is DidYouMean, and where no name is near it returns all of them: "; there are a, b and c".
func OneOf[S ~string](typed S, names []S) string {
	if near := DidYouMean(typed, names); near != "" {
		return near
	}
	return "; there are " + List(names)
}

// List returns the names as a sentence has them: "a, b and c".
func List[S ~string](names []S) string {
	if len(names) < 2 {
		return join(names)
	}
	last := len(names) - 1
	return join(names[:last]) + " and " + string(names[last])
}

func join[S ~string](names []S) string {
	s := make([]string, len(names))
	for i, n := range names {
		s[i] = string(n)
	}
	return strings.Join(s, ", ")
}

// Nearest returns the name that is closest to a mistyped one, if any is close enough to be what was
// meant: at most a third of its letters, and three, inserted, dropped, replaced or exchanged with a
// neighbour, in whatever case. Of names that are equally close it is the first in the alphabet.
func Nearest[S ~string](typed S, names []S) (near S, ok bool) {
	if len(typed) < 2 {
		return "", false
	}
	limit := min(max(1, len(typed)/3), 3)
	for _, n := range slices.Sorted(slices.Values(names)) {
		if d := distance(strings.ToLower(string(typed)), strings.ToLower(string(n))); d <= limit {
			near, ok, limit = n, true, d-1
		}
	}
	return near, ok
}

// distance is the optimal string alignment distance: Levenshtein's, with exchanged neighbours as one.
func distance(a, b string) int {
	before, prev, cur := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		cur[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			cur[j] = min(prev[j]+1, cur[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				cur[j] = min(cur[j], before[j-2]+1)
			}
		}
		before, prev, cur = prev, cur, before
	}
	return prev[len(b)]
}
