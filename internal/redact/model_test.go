package redact

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"postern/internal/secret"
)

// naive is what the package promises, without skipping and without chunks.
func naive(m *Matcher, in []byte) (out []byte, hits int) {
	needles := m.open().needles
	var last rest
	whole := text{now: in}
	literal := func(c byte) {
		if last.bits > 0 {
			c, last = last.exchange(c), rest{}
		}
		out = append(out, c)
	}
	pos := 0
	for i := 0; i < len(in); {
		best := -1
		for k := range needles {
			n := &needles[k]
			if bytes.HasPrefix(in[i:], n.text) && (best < 0 || len(n.text) > len(needles[best].text)) &&
				(!n.short || whole.bordered(n, i, i+len(n.text))) {
				best = k
			}
		}
		if best < 0 {
			i++
			continue
		}
		for _, c := range in[pos:i] {
			literal(c)
		}
		out, last = append(out, needles[best].replacement...), needles[best].rest
		hits++
		i += len(needles[best].text)
		pos = i
	}
	for i := pos; i < len(in); i++ {
		for _, n := range needles {
			if tail := in[i:]; !n.short && len(tail) < len(n.text) && 4*len(tail) >= 3*len(n.text) && bytes.HasPrefix(n.text, tail) {
				for _, c := range in[pos:i] {
					literal(c)
				}
				return append(out, firstWith(m, tail).replacement...), hits + 1
			}
		}
	}
	for _, c := range in[pos:] {
		literal(c)
	}
	return out, hits
}

// firstWith is the least needle of a long value that tail is most of.
func firstWith(m *Matcher, tail []byte) needle {
	var best *needle
	needles := m.open().needles
	for k := range needles {
		n := &needles[k]
		if !n.short && len(tail) < len(n.text) && 4*len(tail) >= 3*len(n.text) && bytes.HasPrefix(n.text, tail) &&
			(best == nil || bytes.Compare(n.text, best.text) < 0) {
			best = n
		}
	}
	return *best
}

// drawMatcher makes values that overlap one another as often as can be.
func drawMatcher(t *rapid.T) *Matcher {
	of := rapid.SampledFrom([]string{"ab", "ab/", "abc+ \"", "aB%\\é-_"}).Draw(t, "alphabet")
	value := rapid.StringOfN(rapid.RuneFrom([]rune(of)), 8, 40, 60)
	values := rapid.SliceOfN(value, 1, 5).Draw(t, "values")
	if rapid.Bool().Draw(t, "nested") {
		values = append(values, values[0]+values[len(values)-1], values[0][:len(values[0])/2]+values[0])
	}
	if rapid.Bool().Draw(t, "lines") {
		values = append(values, values[0]+"\n"+strings.Repeat(values[0], 3)+"\n"+values[0])
	}
	var known []Known
	for _, v := range values {
		replacement := rapid.StringMatching(`[XYZ]{0,30}`).Draw(t, "replacement")
		known = append(known, Known{Value: secret.New([]byte(v)), Replacement: replacement})
	}
	m, err := New(known)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// drawText mixes forms, beginnings of forms and what may stand between them.
func drawText(t *rapid.T, m *Matcher) []byte {
	if m.Empty() {
		return []byte(rapid.String().Draw(t, "text"))
	}
	needles := m.open().needles
	var out []byte
	for range rapid.IntRange(0, 12).Draw(t, "pieces") {
		n := needles[rapid.IntRange(0, len(needles)-1).Draw(t, "needle")].text
		switch rapid.IntRange(0, 3).Draw(t, "piece") {
		case 0, 1:
			out = append(out, n...)
		case 2:
			from := rapid.IntRange(0, len(n)-1).Draw(t, "from")
			out = append(out, n[from:rapid.IntRange(from, len(n)).Draw(t, "to")]...)
		case 3:
			between := rapid.SampledFrom([]string{" ", "\n", "a", "A", "%3D", "%41", `\n`, `\u0041`, "\x1b[31m", "==", "Zm", "\x00"})
			out = append(out, between.Draw(t, "between")...)
		}
	}
	return out
}

func drawChunks(t *rapid.T, in []byte) [][]byte {
	var chunks [][]byte
	for len(in) > 0 {
		n := rapid.IntRange(1, min(len(in), rapid.SampledFrom([]int{1, 3, 20, 1000}).Draw(t, "most"))).Draw(t, "chunk")
		chunks, in = append(chunks, in[:n]), in[n:]
	}
	return chunks
}

func TestAnyChunkingGivesWhatTheModelGives(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := drawMatcher(t)
		in := drawText(t, m)
		if m.Empty() {
			t.Skip("all values are short")
		}
		want, wantHits := naive(m, in)
		s := m.Stream()
		var got []byte
		for _, chunk := range drawChunks(t, in) {
			got = s.Write(got, chunk)
		}
		got = s.Close(got)
		if diff := cmp.Diff(string(want), string(got)); diff != "" || s.Hits() != wantHits {
			t.Errorf("stream: %d hits, want %d (-want +got):\n%s", s.Hits(), wantHits, diff)
		}
		whole, hits := m.Replace(in)
		if diff := cmp.Diff(string(want), string(whole)); diff != "" || hits != wantHits {
			t.Errorf("whole: %d hits, want %d (-want +got):\n%s", hits, wantHits, diff)
		}
	})
}

func TestNoLongFormComesOutWholeWhateverIsFlushed(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := drawMatcher(t)
		in := drawText(t, m)
		if m.Empty() {
			t.Skip("all values are short")
		}
		// A replacement may end in the byte that a form begins with, and join what
		// was sent without it to the form. Here no form holds what is put in.
		for i := range m.open().needles {
			n := &m.open().needles[i]
			n.replacement, n.rest = bytes.Repeat([]byte{0}, 1+len(n.replacement)), rest{}
		}
		s := m.Stream()
		var got []byte
		for _, chunk := range drawChunks(t, in) {
			got = s.Write(got, chunk)
			if rapid.Bool().Draw(t, "flush") {
				got = s.Flush(got)
			}
		}
		got = s.Close(got)
		for _, n := range m.open().needles {
			if !n.short && bytes.Contains(got, n.text) {
				t.Errorf("%q stands in %q", n.text, got)
			}
		}
	})
}

// What is held is the beginning of a form and nothing more.
func TestHoldsOnlyTheBeginningOfAForm(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := drawMatcher(t)
		in := drawText(t, m)
		if m.Empty() {
			t.Skip("all values are short")
		}
		s := m.Stream()
		for _, chunk := range drawChunks(t, in) {
			s.Write(nil, chunk)
		}
		held := s.open().held
		if len(held) == 0 {
			return
		}
		for _, n := range m.open().needles {
			if bytes.HasPrefix(n.text, held) && len(held) < len(n.text) || n.short && bytes.HasPrefix(held, n.text) && len(held) < len(n.text)+n.look() {
				return
			}
		}
		t.Errorf("holds %q, which begins no form", held)
	})
}
