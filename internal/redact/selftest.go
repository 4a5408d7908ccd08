package redact

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/url"
	"unicode/utf8"
)

// sample is a text that holds one value, and how to read the text again.
type sample struct {
	value, text []byte
	decode      func([]byte) ([]byte, error)
}

// samplesOf makes a text of each encoding by an encoder that is not ours.
func samplesOf(value []byte) []sample {
	list := []sample{{value, frame(value, 0), func(b []byte) ([]byte, error) { return b, nil }}}
	for _, e := range []*base64.Encoding{base64.StdEncoding, base64.URLEncoding, base64.RawStdEncoding, base64.RawURLEncoding} {
		for phase := range 3 {
			text := e.AppendEncode(nil, frame(value, phase))
			list = append(list, sample{value, text, func(b []byte) ([]byte, error) { return e.AppendDecode(nil, b) }})
		}
	}
	readHex := func(b []byte) ([]byte, error) { return hex.AppendDecode(nil, b) }
	lower := hex.AppendEncode(nil, frame(value, 0))
	list = append(list, sample{value, lower, readHex}, sample{value, bytes.ToUpper(lower), readHex})
	list = append(list, sample{value, []byte(url.QueryEscape(string(frame(value, 0)))), func(b []byte) ([]byte, error) {
		text, err := url.QueryUnescape(string(b))
		return []byte(text), err
	}})
	if !utf8.Valid(value) {
		return list
	}
	if text, err := json.Marshal(string(frame(value, 0))); err == nil {
		list = append(list, sample{value, text, func(b []byte) ([]byte, error) {
			var read string
			err := json.Unmarshal(b, &read)
			return []byte(read), err
		}})
	}
	return list
}

// frame stands value between bytes that belong to no token, behind phase of them
// and one to three groups.
func frame(value []byte, phase int) []byte {
	const before, after = "(:)[:]", " .)"
	return append(append([]byte(before[:3+phase]), value...), after...)
}

var (
	errFormMissed  = errors.New("a form of a value is not found")
	errValueStands = errors.New("a value still stands in what was made of its form")
)

// selfTest proves that every needle is found and that no sample gives its value
// away. It never says which value.
func (m *Matcher) selfTest(samples []sample) error {
	c := m.open()
	var text []byte
	var found []match
	for i := range c.needles {
		n := &c.needles[i]
		text = append(append(append(text[:0], ' '), n.text...), ' ', ' ')
		found = c.find(text, found[:0])
		missed := true
		for _, f := range found {
			if f.needle == i && f.start == 1 && f.end == 1+len(n.text) {
				missed = false
			}
		}
		if missed {
			return errFormMissed
		}
	}
	for _, s := range samples {
		out, hits := m.Replace(s.text)
		if hits == 0 {
			return errFormMissed
		}
		if read, err := s.decode(out); err == nil && bytes.Contains(read, s.value) && !m.standsIn(s.value) {
			return errValueStands
		}
	}
	return nil
}

// standsIn says whether some replacement holds the value, so that it is expected.
func (m *Matcher) standsIn(value []byte) bool {
	for _, n := range m.open().needles {
		if bytes.Contains(n.replacement, value) {
			return true
		}
	}
	return false
}
