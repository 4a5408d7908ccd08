// Package redact takes known secret values out of a stream of bytes and puts
// what the agent holds in their place.
//
// A value is found as it is and in base64 (standard and URL-safe, in each of the
// three alignments), in hex, percent-encoded and JSON-escaped, across any border
// of chunks. Matching is literal: a value that is compressed, encrypted, encoded
// twice, reversed, changed in case or wrapped into several lines in the middle of
// its base64 form is not found, and neither is a piece of it.
//
// # What stands there afterwards
//
// A hit becomes the replacement in the same encoding. In base64 the characters
// that depend on the value alone are replaced, so that what stands before and
// after it in the same base64 text keeps its alignment and goes on to decode; of
// the character shared with the byte behind the value only the value's bits are
// exchanged. The character shared with the byte in front stays: it holds at most
// the four upper bits of the value's first byte. A replacement whose length does
// not fit the alignment is filled up with "-".
//
// # A cut end
//
// A text that ends in three quarters or more of a form of a long value (16 bytes
// and up) counts as a hit: a body that was cut off does not give the value away.
//
// # Short values
//
// A value under 8 bytes is not redacted at all (Matcher.Skipped tells), one of 8
// to 15 bytes only where no letter, digit, "-" or "_" stands next to it, in
// whatever encoding. A value of several lines is found as a whole and by each
// line of 16 or more bytes that has no blank in it, its armour lines
// ("-----BEGIN …") apart; a JSON document also by its members that are secret by
// their name.
package redact

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"slices"

	"postern/internal/fail"
	"postern/internal/secret"
)

const (
	minValue = 8  // bytes; a shorter value would be found by chance
	minLong  = 16 // bytes; a shorter value is found at token borders only
	minLine  = 16 // bytes; shorter lines of a value are not looked for by themselves
)

// Known is one value that must not get out, and what stands in its place; the
// mask of package secret where Replacement is empty, because a hit that left no
// trace would join what stands around it, perhaps to the value.
type Known struct {
	Value       secret.Value
	Replacement string
}

// Matcher knows the encoded forms of a set of values. It holds them in plain
// bytes for as long as it lives, behind a closure so that no printer shows them.
// The zero Matcher knows nothing. Safe for concurrent use.
type Matcher struct {
	open    func() *core
	skipped []int
}

// core is the content of a Matcher; it is never changed.
type core struct {
	needles   []needle
	searchers []searcher
	prefixes  prefixes
}

// New builds a Matcher and proves on texts made by other encoders that it finds
// each form of each value; an error means that nothing may pass. Of equal values
// the first replacement counts.
func New(known []Known) (*Matcher, error) {
	m := &Matcher{}
	set := needleSet{byText: map[string]int{}}
	var samples []sample
	for i, k := range known {
		short := false
		_ = k.Value.Reveal(func(b []byte) error {
			value := bytes.TrimSpace(b)
			if short = len(value) < minValue; short {
				return nil
			}
			for _, p := range partsOf(value, []byte(cmp.Or(k.Replacement, secret.Mask))) {
				set.add(p)
				samples = append(samples, samplesOf(p.value)...)
			}
			return nil
		})
		if short {
			m.skipped = append(m.skipped, i)
		}
	}
	if len(set.needles) == 0 {
		return m, nil
	}
	c := &core{needles: set.needles, searchers: newSearchers(set.needles), prefixes: newPrefixes(set.needles)}
	m.open = func() *core { return c }
	if err := m.selfTest(samples); err != nil {
		return nil, fail.New(fail.Internal, "P-E115", "could not prepare the redaction").Wrap(err)
	}
	return m, nil
}

// Empty says whether there is nothing to look for.
func (m *Matcher) Empty() bool { return m == nil || m.open == nil }

// Skipped are the indices, in the list given to New, of the values that are too
// short to be redacted.
func (m *Matcher) Skipped() []int { return slices.Clone(m.skipped) }

// Replace is b with every hit replaced, and the number of hits. It returns b
// itself when nothing was found, else new memory; b is not changed.
func (m *Matcher) Replace(b []byte) ([]byte, int) {
	if m.Empty() || len(b) < minValue {
		return b, 0
	}
	s := stream{core: m.open()}
	s.matches = s.core.find(b, nil)
	if len(s.matches) == 0 {
		if start, _ := s.core.prefixes.cutOff(b, 0); start < 0 {
			return b, 0
		}
	}
	out := s.pass(make([]byte, 0, len(b)+len(b)/8), b, ending)
	if s.hits == 0 {
		return b, 0
	}
	return out, s.hits
}

// String, GoString and Format show the number of forms and nothing else.
func (m *Matcher) String() string {
	if m.Empty() {
		return "redact.Matcher(empty)"
	}
	return fmt.Sprintf("redact.Matcher(%d forms)", len(m.open().needles))
}

// GoString is String.
func (m *Matcher) GoString() string { return m.String() }

// Format is String with every verb.
func (m *Matcher) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, m.String()) }
