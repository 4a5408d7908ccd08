package redact

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"slices"
	"unicode/utf16"
	"unicode/utf8"
)

// family says how the bytes next to a form are read.
type family uint8

const (
	asText family = iota // plain, percent-encoded or JSON-escaped
	asBase64
	asHex
)

// needle is one encoded form of a value.
type needle struct {
	text        []byte // what is looked for
	replacement []byte // the same encoding of the replacement
	family      family
	short       bool // counts only at token borders
	lead        uint // bits of the value in the base64 character before the form
	rest        rest
}

// rest describes the bits of a value that stand in the base64 character behind
// the form, together with bits of the byte that follows the value.
type rest struct {
	bits     uint // 0, 2 or 4
	old, new byte
	urlSafe  bool
}

// look is the number of bytes behind the form that its border test reads.
func (n *needle) look() int {
	switch {
	case !n.short:
		return 0
	case n.family == asText:
		return 1
	default:
		return 2
	}
}

// needleSet gathers needles, the first of equal ones.
type needleSet struct {
	needles []needle
	byText  map[string]int
}

func (s *needleSet) put(n needle) {
	if _, have := s.byText[string(n.text)]; have || len(n.text) < minValue {
		return
	}
	s.byText[string(n.text)] = len(s.needles)
	s.needles = append(s.needles, n)
}

// add puts all forms of p.
func (s *needleSet) add(p part) {
	short := len(p.value) < minLong
	for _, encode := range textForms() {
		text := encode(p.value)
		if text == nil {
			continue
		}
		replacement := encode(p.replacement)
		if replacement == nil {
			replacement = p.replacement
		}
		s.put(needle{text: text, replacement: replacement, short: short})
	}
	for _, urlSafe := range []bool{false, true} {
		for phase := range 3 {
			n := base64Needle(p.value, p.replacement, phase, urlSafe)
			n.short = short
			s.put(n)
		}
	}
	lower := needle{text: hex.AppendEncode(nil, p.value), replacement: hex.AppendEncode(nil, p.replacement), family: asHex, short: short}
	s.put(lower)
	lower.text, lower.replacement = bytes.ToUpper(lower.text), bytes.ToUpper(lower.replacement)
	s.put(lower)
}

// base64Needle is the form of value behind phase (0 to 2) bytes of a group of
// three: the characters that depend on value alone.
func base64Needle(value, replacement []byte, phase int, urlSafe bool) needle {
	filled := slices.Clone(replacement)
	for len(filled)%3 != len(value)%3 {
		filled = append(filled, '-')
	}
	n := needle{text: base64Inner(value, phase, urlSafe), replacement: base64Inner(filled, phase, urlSafe), family: asBase64}
	n.lead = uint(6-8*phase%6) % 6
	n.rest = rest{bits: uint(8*(phase+len(value))) % 6, urlSafe: urlSafe}
	n.rest.old = value[len(value)-1] & (1<<n.rest.bits - 1)
	if len(filled) > 0 {
		n.rest.new = filled[len(filled)-1] & (1<<n.rest.bits - 1)
	}
	return n
}

func base64Inner(b []byte, phase int, urlSafe bool) []byte {
	encoding := base64.RawStdEncoding
	if urlSafe {
		encoding = base64.RawURLEncoding
	}
	text := encoding.AppendEncode(nil, append(make([]byte, phase, phase+len(b)), b...))
	from, to := (8*phase+5)/6, 8*(phase+len(b))/6
	return text[min(from, to):to]
}

// textForms are the encodings in which each byte stays or becomes an escape.
func textForms() []func([]byte) []byte {
	forms := []func([]byte) []byte{bytes.Clone}
	for _, style := range percentStyles() {
		forms = append(forms, style.encode)
	}
	for _, style := range jsonStyles() {
		forms = append(forms, style.encode)
	}
	return forms
}

// percentStyle is one encoder's choice of what to escape.
type percentStyle struct {
	keep  string // punctuation that stays; letters and digits always do
	plus  bool   // a space becomes "+"
	all   bool   // everything is escaped
	upper bool
}

func percentStyles() []percentStyle {
	kept := []percentStyle{
		{keep: "-._~"},                      // RFC 3986, section 2.3
		{keep: "-._~", plus: true},          // Go QueryEscape, Python quote_plus
		{keep: "-._~!*'()"},                 // JavaScript encodeURIComponent
		{keep: "-._*", plus: true},          // HTML forms, URLSearchParams
		{keep: "-._~$&+=:@"},                // Go PathEscape
		{keep: "-._~!$&'()*+,;=:@"},         // RFC 3986, a path segment
		{keep: "-._~/"},                     // Python quote
		{keep: "-._~!*'();/?:@&=+$,#"},      // JavaScript encodeURI
		{keep: "-._~!*'();/?:@&=+$,#[]{}|"}, // lenient writers of a query
		{all: true},
	}
	styles := make([]percentStyle, 0, 2*len(kept))
	for _, s := range kept {
		styles = append(styles, s)
		s.upper = true
		styles = append(styles, s)
	}
	return styles
}

func (s percentStyle) encode(b []byte) []byte {
	out := make([]byte, 0, 3*len(b))
	for _, c := range b {
		switch {
		case !s.all && (isAlphanumeric(c) || bytes.IndexByte([]byte(s.keep), c) >= 0):
			out = append(out, c)
		case s.plus && c == ' ':
			out = append(out, '+')
		default:
			out = append(out, '%', hexDigit(c>>4, s.upper), hexDigit(c&15, s.upper))
		}
	}
	return out
}

// jsonStyle is one encoder's choice of what to escape in a JSON string.
type jsonStyle struct {
	slash   bool   // "/" becomes "\/" (PHP)
	hexed   string // ASCII that becomes \u00XX
	unicode bool   // what is not ASCII becomes \uXXXX (Python)
	all     bool   // everything becomes \uXXXX
	upper   bool
}

func jsonStyles() []jsonStyle {
	var styles []jsonStyle
	for _, upper := range []bool{false, true} {
		styles = append(styles, jsonStyle{all: true, upper: upper})
		for _, slash := range []bool{false, true} {
			for _, unicode := range []bool{false, true} {
				for _, hexed := range []string{"", "<>&", "<>&'\"", "<>&'\"+`"} { // Go; PHP with its four flags; .NET
					styles = append(styles, jsonStyle{slash: slash, hexed: hexed, unicode: unicode, upper: upper})
				}
			}
		}
	}
	return styles
}

// encode is nil where the style needs text and b is not UTF-8.
func (s jsonStyle) encode(b []byte) []byte {
	if (s.unicode || s.all) && !utf8.Valid(b) {
		return nil
	}
	out := make([]byte, 0, 2*len(b))
	for i := 0; i < len(b); {
		c := b[i]
		if c >= utf8.RuneSelf && (s.unicode || s.all) {
			r, size := utf8.DecodeRune(b[i:])
			for _, unit := range utf16.Encode([]rune{r}) {
				out = s.escape(out, unit)
			}
			i += size
			continue
		}
		i++
		short := bytes.IndexByte([]byte("\b\t\n\f\r\"\\"), c)
		switch {
		case s.all || bytes.IndexByte([]byte(s.hexed), c) >= 0:
			out = s.escape(out, uint16(c))
		case short >= 0:
			out = append(out, '\\', `btnfr"\`[short])
		case c == '/' && s.slash:
			out = append(out, '\\', '/')
		case c < ' ':
			out = s.escape(out, uint16(c))
		default:
			out = append(out, c)
		}
	}
	return out
}

func (s jsonStyle) escape(out []byte, unit uint16) []byte {
	out = append(out, '\\', 'u')
	for shift := 12; shift >= 0; shift -= 4 {
		out = append(out, hexDigit(byte(unit>>shift)&15, s.upper))
	}
	return out
}

func hexDigit(v byte, upper bool) byte {
	if upper {
		return "0123456789ABCDEF"[v]
	}
	return "0123456789abcdef"[v]
}

func isAlphanumeric(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}
