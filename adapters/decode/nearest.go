package decode

// Nearest returns which of the names is closest to a mistyped one, if any is close enough to be what
// was meant: at most a third of its letters inserted, dropped, replaced or exchanged with a neighbour.
func Nearest(typed string, names []string) (string, bool) {
	best, bestDistance := "", len(typed)/3+1
	for _, n := range names {
		if d := distance(typed, n); d < bestDistance {
			best, bestDistance = n, d
		}
	}
	return best, best != ""
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
