package redact

import (
	"bytes"
	"slices"
)

// prefixes answers whether a text may end in the beginning of a needle.
type prefixes struct {
	sorted   [][]byte // the needles' texts, sorted
	order    []int    // of each, its index among the needles
	long     []bool   // of each, whether its value is a long one
	longest  int
	inside   [256]bool    // bytes that stand in some needle
	pairs    [1024]uint64 // bit set of the pairs of bytes that stand in some needle
	starts   []uint64     // bit set over hashes of the first four bytes
	startsBy uint
}

func newPrefixes(needles []needle) prefixes {
	p := prefixes{startsBy: 20}
	p.order = make([]int, len(needles))
	for i := range needles {
		p.order[i] = i
	}
	slices.SortFunc(p.order, func(a, b int) int { return bytes.Compare(needles[a].text, needles[b].text) })
	for p.startsBy > 10 && 1<<(32-p.startsBy) < 32*len(needles) {
		p.startsBy--
	}
	p.starts = make([]uint64, 1<<(32-p.startsBy-6))
	for _, i := range p.order {
		n := needles[i]
		p.sorted, p.long = append(p.sorted, n.text), append(p.long, !n.short)
		p.longest = max(p.longest, len(n.text))
		for k, c := range n.text {
			p.inside[c] = true
			if k > 0 {
				p.pairs[uint(n.text[k-1])<<2|uint(c)>>6] |= 1 << (c & 63)
			}
		}
		h := hash(block(n.text, blockBytes), p.startsBy)
		p.starts[h>>6] |= 1 << (h & 63)
	}
	return p
}

// under is the first position at or behind from where text ends in a true
// beginning of a needle, or -1.
func (p *prefixes) under(text []byte, from int) int {
	first := max(from, len(text)-p.longest+1)
	start := len(text) - 1
	if start < first || !p.inside[text[start]] {
		return -1
	}
	for start > first && p.pairs[uint(text[start-1])<<2|uint(text[start])>>6]&(1<<(text[start]&63)) != 0 {
		start--
	}
	for i := start; i < len(text); i++ {
		if len(text)-i >= blockBytes {
			h := hash(block(text, i+blockBytes), p.startsBy)
			if p.starts[h>>6]&(1<<(h&63)) == 0 {
				continue
			}
		}
		tail := text[i:]
		for at := p.first(tail); at < len(p.sorted) && bytes.HasPrefix(p.sorted[at], tail); at++ {
			if len(p.sorted[at]) > len(tail) {
				return i
			}
		}
	}
	return -1
}

// first is the index of the first needle that is not less than tail.
func (p *prefixes) first(tail []byte) int {
	low, high := 0, len(p.sorted)
	for low < high {
		mid := int(uint(low+high) >> 1)
		if bytes.Compare(p.sorted[mid], tail) < 0 {
			low = mid + 1
		} else {
			high = mid
		}
	}
	return low
}

// cutOff is the first position at or behind from where text ends in three
// quarters or more of a long value's needle, and which that is; -1 without.
func (p *prefixes) cutOff(text []byte, from int) (start, needle int) {
	for i := p.under(text, from); i >= 0; i = p.under(text, i+1) {
		tail := text[i:]
		for at := p.first(tail); at < len(p.sorted) && bytes.HasPrefix(p.sorted[at], tail); at++ {
			if n := len(p.sorted[at]); p.long[at] && len(tail) < n && 4*len(tail) >= 3*n {
				return i, p.order[at]
			}
		}
	}
	return -1, 0
}
