package redact

import (
	"bytes"
	"encoding/binary"
	"slices"
)

// match is one occurrence of a needle; its border is not yet tested.
type match struct{ start, end, needle int }

const (
	blockBytes = 4
	maxWindow  = 48 // bytes; a wider window fills the table faster than it skips
	minBits    = 13
	maxBits    = 20
)

// searcher finds needles by skipping (Wu and Manber, 1994): it looks at the last
// four bytes of a window; where no needle has them in its own window, the search
// moves on by almost a window. A needle's window lies as near to its end as can
// be, because a value begins as its provider's keys do and ends at random.
type searcher struct {
	needles []needle
	window  int
	by      uint // 32 less the table's bits
	shift   []uint8
	slots   []slot // open addressing by block, a power of two
	links   []link
}

type slot struct {
	block uint32
	first int32 // into links; -1 for an empty slot
}

// link is a needle whose window ends in the block, behind others of the block.
type link struct {
	needle, offset int // of the window's end from the needle's start
	next           int32
}

// newSearchers makes one searcher for long and one for short needles, because
// the shortest needle decides how far a search may skip.
func newSearchers(needles []needle) []searcher {
	var long, short []int
	for i := range needles {
		if len(needles[i].text) >= minLong {
			long = append(long, i)
		} else {
			short = append(short, i)
		}
	}
	var list []searcher
	for _, group := range [][]int{long, short} {
		if len(group) > 0 {
			list = append(list, newSearcher(needles, group))
		}
	}
	return list
}

func newSearcher(needles []needle, group []int) searcher {
	s := searcher{needles: needles, window: maxWindow}
	for _, i := range group {
		s.window = min(s.window, len(needles[i].text))
	}
	bits := uint(minBits)
	for blocks := len(group) * (s.window - blockBytes + 1); bits < maxBits && 1<<bits < 16*blocks; {
		bits++
	}
	s.by = 32 - bits
	s.shift = bytes.Repeat([]byte{uint8(s.window - blockBytes + 1)}, 1<<bits)
	size := 16
	for size < 4*len(group) {
		size *= 2
	}
	s.slots = slices.Repeat([]slot{{first: -1}}, size)
	for _, i := range group {
		s.insert(i)
	}
	return s
}

// insert puts the needle's window where no other one ends in the same block, so
// that values with a common end do not make one long chain.
func (s *searcher) insert(i int) {
	const tries = 32
	text := s.needles[i].text
	end, fewest := len(text), 1<<30
	for e := len(text); e >= max(s.window, len(text)-tries) && fewest > 0; e-- {
		if n := s.chain(block(text, e)); n < fewest {
			end, fewest = e, n
		}
	}
	for e := end - s.window + blockBytes; e <= end; e++ {
		h := hash(block(text, e), s.by)
		s.shift[h] = min(s.shift[h], uint8(end-e))
	}
	at := s.find(block(text, end))
	s.links = append(s.links, link{needle: i, offset: end, next: s.slots[at].first})
	s.slots[at] = slot{block: block(text, end), first: int32(len(s.links) - 1)}
}

// find is the slot of block, or the empty one where it would stand.
func (s *searcher) find(b uint32) int {
	mask := len(s.slots) - 1
	at := int(hash(b, 12)) & mask
	for s.slots[at].first >= 0 && s.slots[at].block != b {
		at = (at + 1) & mask
	}
	return at
}

func (s *searcher) chain(b uint32) int {
	n := 0
	for l := s.slots[s.find(b)].first; l >= 0; l = s.links[l].next {
		n++
	}
	return n
}

func block(text []byte, end int) uint32 {
	return binary.LittleEndian.Uint32(text[end-blockBytes : end])
}

func hash(b uint32, by uint) uint32 { return (b * 0x9E3779B1) >> by }

// search appends every occurrence in text to found.
func (s *searcher) search(text []byte, found []match) []match {
	skip := s.window - blockBytes + 1
	shift, by := s.shift, s.by
	for e := s.window; e <= len(text); {
		b := binary.LittleEndian.Uint32(text[e-blockBytes : e])
		step := int(shift[hash(b, by)])
		// Adding a constant where it is the likely one lets the processor read ahead
		// without waiting for the table.
		if step == skip {
			e += skip
			continue
		}
		if step != 0 {
			e += step
			continue
		}
		found = s.candidates(text, e, b, found)
		e++
	}
	return found
}

func (s *searcher) candidates(text []byte, end int, b uint32, found []match) []match {
	for l := s.slots[s.find(b)].first; l >= 0; l = s.links[l].next {
		link := &s.links[l]
		n := s.needles[link.needle].text
		start := end - link.offset
		if start < 0 || start+len(n) > len(text) {
			continue
		}
		if bytes.Equal(text[start:start+len(n)], n) {
			found = append(found, match{start, start + len(n), link.needle})
		}
	}
	return found
}

// find appends to found every occurrence of every needle, the earliest first and
// of those that begin together the longest first.
func (c *core) find(text []byte, found []match) []match {
	for i := range c.searchers {
		found = c.searchers[i].search(text, found)
	}
	if len(found) > 1 {
		slices.SortFunc(found, func(a, b match) int {
			if a.start != b.start {
				return a.start - b.start
			}
			return b.end - a.end
		})
	}
	return found
}
