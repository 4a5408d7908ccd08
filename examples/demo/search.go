package main

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"net/url"
	"strings"
	"unicode/utf16"
)

// needle is one form of a text that is looked for.
type needle struct {
	name string // of the text, as people know it
	form string
	text []byte
}

// least is how many bytes of a form are enough to be sure, and how many the
// search is keyed by.
const least = 8

// forms are the ways in which a text may lie somewhere.
func forms(name, text string) []needle {
	b := []byte(text)
	lower := hex.EncodeToString(b)
	list := []needle{
		{name, "plain", b},
		{name, "hex", []byte(lower)},
		{name, "hex", []byte(strings.ToUpper(lower))},
		{name, "percent", []byte(url.QueryEscape(text))},
		{name, "percent", []byte(url.PathEscape(text))},
		{name, "percent", []byte(percentAll(lower))},
		{name, "percent", []byte(percentAll(strings.ToUpper(lower)))},
		{name, "UTF-16", wide(text)},
	}
	for _, alphabet := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
		for phase := range 3 {
			list = append(list, needle{name, "base64", inBase64(alphabet, b, phase)})
		}
	}
	var distinct []needle
	seen := map[string]bool{}
	for _, n := range list {
		if !seen[string(n.text)] && len(n.text) >= least {
			seen[string(n.text)] = true
			distinct = append(distinct, n)
		}
	}
	return distinct
}

func percentAll(inHex string) string {
	var b strings.Builder
	for i := 0; i < len(inHex); i += 2 {
		b.WriteString("%" + inHex[i:i+2])
	}
	return b.String()
}

func wide(text string) []byte {
	var b []byte
	for _, unit := range utf16.Encode([]rune(text)) {
		b = binary.LittleEndian.AppendUint16(b, unit)
	}
	return b
}

// inBase64 is the part of a text's base64 form that does not depend on what
// stands before and behind it, where phase bytes of a group stand before it.
func inBase64(alphabet *base64.Encoding, text []byte, phase int) []byte {
	encoded := alphabet.EncodeToString(append(make([]byte, phase), text...))
	first := (phase*8 + 5) / 6
	whole := (phase + len(text)) * 8 / 6
	return []byte(encoded[first:whole])
}

// searcher looks for many needles in one pass.
type searcher struct {
	starts  [1 << 16]bool         // the first two bytes of a needle
	by      map[[least]byte][]int // needles by their first bytes
	needles []needle
	longest int
}

func newSearcher(needles []needle) *searcher {
	s := &searcher{by: map[[least]byte][]int{}, needles: needles}
	for i, n := range needles {
		s.starts[binary.LittleEndian.Uint16(n.text)] = true
		key := [least]byte(n.text)
		s.by[key] = append(s.by[key], i)
		s.longest = max(s.longest, len(n.text))
	}
	return s
}

// in calls hit for each needle in b.
func (s *searcher) in(b []byte, hit func(needle)) {
	for i := 0; i+least <= len(b); i++ {
		if !s.starts[binary.LittleEndian.Uint16(b[i:])] {
			continue
		}
		for _, n := range s.by[[least]byte(b[i:])] {
			if bytes.HasPrefix(b[i:], s.needles[n].text) {
				hit(s.needles[n])
			}
		}
	}
}

// through is in for what a reader gives. It returns how many bytes were read.
func (s *searcher) through(r io.Reader, hit func(needle)) (int64, error) {
	buffer := make([]byte, 1<<20)
	kept, total := 0, int64(0)
	for {
		n, err := io.ReadAtLeast(r, buffer[kept:], 1)
		total += int64(n)
		s.in(buffer[:kept+n], hit)
		// What could be the beginning of a needle is looked at again; a whole one
		// is shorter than the longest plus one and may be reported twice.
		keep := min(kept+n, s.longest-1)
		copy(buffer, buffer[kept+n-keep:kept+n])
		kept = keep
		if err == io.EOF {
			return total, nil
		}
		if err != nil {
			return total, err
		}
	}
}

// findings are what was found, and how much was looked at.
type findings struct {
	values   []string // "OPENAI_API_KEY, base64, in the memory of node"
	controls int      // placeholders, which the agent does hold
	files    int
	bytes    int64
	maps     int
	programs []string // whose environment and memory were looked at
	seen     map[string]bool
}

// controlForm marks what the agent is meant to hold. A search that finds none of
// it was blind.
const controlForm = "placeholder"

func (f *findings) at(place string) func(needle) {
	return func(n needle) {
		if n.form == controlForm {
			f.controls++
			return
		}
		text := fmt.Sprintf("%s, %s, in %s", n.name, n.form, place)
		if f.seen == nil {
			f.seen = map[string]bool{}
		}
		if !f.seen[text] {
			f.seen[text] = true
			f.values = append(f.values, text)
		}
	}
}
