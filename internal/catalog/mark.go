package catalog

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
)

// The mark makes a placeholder recognisable by its text alone, on any machine,
// without a store: scanners and importers must never take one for a key. It
// stands at the end of the last secret run of the text and is made of
//
//	marker   a fixed word in the run's alphabet; it names the layout
//	place    how many characters stand before the marker, and after the mark
//	check    a truncated SHA-256 of all the other characters
//
// so that start and end are known whatever stands around it. A random key of the
// same form is taken for a placeholder with a probability of about
// alphabet^-(marker+place+check):
//
//	letters  3+2+5 of 52  2^-57   (letters, alnum, base64: single change missed 2^-28)
//	lower    3+2+6 of 26  2^-51   (lower-case alphabets:    single change missed 2^-28)
//	hex      4+3+7 of 16  2^-56   (hex:                     single change missed 2^-28)
//	base32   3+1+5 of 32  2^-45   (upper-case base32:       single change missed 2^-25)
type layout struct {
	marker       string
	alphabet     string
	place, check int
	after        int // places for the count of characters behind the mark
}

// MaxMarked is the most characters that a marked text may have.
const MaxMarked = 512

// layouts returns the layouts, the roomiest alphabet first.
func layouts() [4]layout {
	return [4]layout{
		{marker: "pQn", alphabet: upper + lower, place: 2, check: 5, after: 4},
		{marker: "qzp", alphabet: lower, place: 2, check: 6, after: 4},
		{marker: "b05d", alphabet: "0123456789abcdef", place: 3, check: 7, after: 16},
		{marker: "PQ7", alphabet: upper + "234567", place: 1, check: 5, after: 1},
	}
}

func (l layout) length() int { return len(l.marker) + l.place + l.check }

// places is how many values the place field has.
func (l layout) places() int {
	n := 1
	for range l.place {
		n *= len(l.alphabet)
	}
	return n
}

// MarkLength says how many characters the mark takes in a run of alphabet;
// false where none fits.
func MarkLength(alphabet string) (int, bool) {
	l, found := layoutFor(alphabet)
	return l.length(), found
}

func layoutFor(alphabet string) (layout, bool) {
	for _, l := range layouts() {
		if !strings.ContainsFunc(l.alphabet, func(r rune) bool { return !strings.ContainsRune(alphabet, r) }) {
			return l, true
		}
	}
	return layout{}, false
}

// Mark writes the mark over the last characters of the run text[start:end],
// whose alphabet is given. text must be the whole placeholder, otherwise filled.
func Mark(text []byte, start, end int, alphabet string) error {
	l, found := layoutFor(alphabet)
	if !found {
		return fmt.Errorf("no mark fits an alphabet of %d characters", len(alphabet))
	}
	at := end - l.length()
	place := at*l.after + len(text) - end
	if at < start || len(text)-end >= l.after || place >= l.places() || len(text) > MaxMarked {
		return fmt.Errorf("the mark does not fit: run of %d characters in %d", end-start, len(text))
	}
	if slices.ContainsFunc(text, func(b byte) bool { return !markable(b) }) {
		return fmt.Errorf("the text holds a character that a placeholder may not have")
	}
	copy(text[at:], l.marker)
	l.write(text[at+len(l.marker):at+len(l.marker)+l.place], uint64(place))
	l.write(text[end-l.check:end], l.sum(text, end))
	return nil
}

// sum is the check of text, whose check field ends at end.
func (l layout) sum(text []byte, end int) uint64 {
	h := sha256.New()
	h.Write([]byte("postern placeholder 1 " + l.marker + "\n"))
	h.Write(text[:end-l.check])
	h.Write([]byte("\n"))
	h.Write(text[end:])
	return binary.BigEndian.Uint64(h.Sum(nil))
}

// write puts the lowest digits of v in the layout's alphabet into field.
func (l layout) write(field []byte, v uint64) {
	n := uint64(len(l.alphabet))
	for i := len(field) - 1; i >= 0; i-- {
		field[i] = l.alphabet[v%n]
		v /= n
	}
}

func (l layout) read(field []byte) (int, bool) {
	v := 0
	for _, b := range field {
		i := strings.IndexByte(l.alphabet, b)
		if i < 0 {
			return 0, false
		}
		v = v*len(l.alphabet) + i
	}
	return v, true
}

// markable says which characters a placeholder is made of: printable, and safe
// in headers, URL paths and shell words.
func markable(b byte) bool {
	switch {
	case b >= '0' && b <= '9', b >= 'A' && b <= 'Z', b >= 'a' && b <= 'z':
		return true
	}
	return strings.IndexByte("-_.:~+/=", b) >= 0
}

// FindMarked returns where placeholders stand in b, as start and end offsets in
// rising order, not overlapping. Time is linear in len(b): each marker word
// costs one hash of at most MaxMarked bytes.
func FindMarked(b []byte) [][2]int {
	var spans [][2]int
	for _, l := range layouts() {
		for from := 0; ; {
			i := bytes.Index(b[from:], []byte(l.marker))
			if i < 0 {
				break
			}
			at := from + i
			from = at + 1
			if span, ok := l.verify(b, at); ok {
				spans = append(spans, span)
			}
		}
	}
	if len(spans) < 2 {
		return spans
	}
	slices.SortFunc(spans, func(x, y [2]int) int { return x[0] - y[0] })
	kept := spans[:1]
	for _, s := range spans[1:] {
		if s[0] >= kept[len(kept)-1][1] {
			kept = append(kept, s)
		}
	}
	return kept
}

// verify reads the mark whose marker stands at b[at:].
func (l layout) verify(b []byte, at int) ([2]int, bool) {
	end := at + l.length()
	if end > len(b) {
		return [2]int{}, false
	}
	place, ok := l.read(b[at+len(l.marker) : at+len(l.marker)+l.place])
	start, stop := at-place/l.after, end+place%l.after
	if !ok || start < 0 || stop > len(b) || stop-start > MaxMarked {
		return [2]int{}, false
	}
	text := b[start:stop]
	if slices.ContainsFunc(text, func(c byte) bool { return !markable(c) }) {
		return [2]int{}, false
	}
	var want [8]byte
	l.write(want[:l.check], l.sum(text, end-start))
	return [2]int{start, stop}, bytes.Equal(b[end-l.check:end], want[:l.check])
}

// Marked says whether text as a whole is a placeholder: either marked from its
// first to its last character, or an address (scheme://…) whose password or last
// path segment is.
func Marked(text string) bool {
	core, ok := MarkedCore(text)
	return ok && core != ""
}

// MarkedCore is the part of a placeholder that travels in requests: all of it,
// or of an address its marked password or path segment.
func MarkedCore(text string) (string, bool) {
	spans := FindMarked([]byte(text))
	if len(spans) != 1 {
		return "", false
	}
	start, end := spans[0][0], spans[0][1]
	if start == 0 && end == len(text) {
		return text, true
	}
	scheme := strings.Index(text, "://")
	if scheme <= 0 || scheme+3 > start || strings.IndexByte(":/", text[start-1]) < 0 {
		return "", false
	}
	if end < len(text) && strings.IndexByte("@?#/", text[end]) < 0 {
		return "", false
	}
	return text[start:end], true
}
