package buffer

import "slices"

// A span is a range of sequences, both ends included.
type span struct{ first, last uint64 }

// spans is a set of sequences: ascending, disjoint, never touching.
type spans []span

// at returns the index of the first span that ends at or after seq.
func (s spans) at(seq uint64) int {
	// Acks come close to one end or the other; the sets are short.
	lo, hi := 0, len(s)
	for lo < hi {
		if m := (lo + hi) / 2; s[m].last < seq {
			lo = m + 1
		} else {
			hi = m
		}
	}
	return lo
}

func (s spans) contains(seq uint64) bool {
	i := s.at(seq)
	return i < len(s) && s[i].first <= seq
}

// from returns the first member at or after seq.
func (s spans) from(seq uint64) (uint64, bool) {
	i := s.at(seq)
	if i == len(s) {
		return 0, false
	}
	return max(seq, s[i].first), true
}

func (s spans) count() (n int64) {
	for _, r := range s {
		n += int64(r.last-r.first) + 1
	}
	return n
}

// within returns the members of [first, last].
func (s spans) within(first, last uint64) (out spans) {
	for i := s.at(first); i < len(s) && s[i].first <= last; i++ {
		out = append(out, span{max(first, s[i].first), min(last, s[i].last)})
	}
	return out
}

// missing returns what of [first, last] is not a member.
func (s spans) missing(first, last uint64) (out spans) {
	for i := s.at(first); first <= last; i++ {
		if i == len(s) || s[i].first > last {
			return append(out, span{first, last})
		}
		if s[i].first > first {
			out = append(out, span{first, s[i].first - 1})
		}
		if s[i].last >= last {
			return out
		}
		first = s[i].last + 1
	}
	return out
}

// add makes [first, last] members.
func (s *spans) add(first, last uint64) {
	if first > last {
		return
	}
	i := s.at(first)
	if i > 0 && (*s)[i-1].last+1 == first {
		i--
	}
	j := i
	for j < len(*s) && (*s)[j].first <= last+1 {
		first, last = min(first, (*s)[j].first), max(last, (*s)[j].last)
		j++
	}
	*s = slices.Replace(*s, i, j, span{first, last})
}

// remove makes [first, last] no members.
func (s *spans) remove(first, last uint64) {
	for i := s.at(first); i < len(*s) && (*s)[i].first <= last; {
		r := (*s)[i]
		switch {
		case r.first < first && r.last > last:
			(*s)[i].last = first - 1
			*s = slices.Insert(*s, i+1, span{last + 1, r.last})
			return
		case r.first < first:
			(*s)[i].last = first - 1
			i++
		case r.last > last:
			(*s)[i].first = last + 1
			return
		default:
			*s = slices.Delete(*s, i, i+1)
		}
	}
}
