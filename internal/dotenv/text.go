package dotenv

import "unicode/utf8"

// text is a file as the loaders see it before they parse: characters, with
// every line end made LF. Both do that: Node's parser itself, Python when it
// opens a file as text.
type text struct {
	runes []rune
	at    []int32 // where each rune begins in the file, and the end
}

// decode never fails: what is not UTF-8 becomes U+FFFD as in Node, one for each
// longest beginning of a character (the Encoding Standard's rule).
func decode(data []byte) text {
	t := text{runes: make([]rune, 0, len(data)), at: make([]int32, 0, len(data)+1)}
	for i := 0; i < len(data); {
		t.at = append(t.at, int32(i))
		if b := data[i]; b < utf8.RuneSelf {
			if i++; b == '\r' {
				if b = '\n'; i < len(data) && data[i] == '\n' {
					i++
				}
			}
			t.runes = append(t.runes, rune(b))
			continue
		}
		r, size := utf8.DecodeRune(data[i:])
		if r == utf8.RuneError && size <= 1 {
			size = brokenLength(data[i:])
		}
		t.runes = append(t.runes, r)
		i += size
	}
	t.at = append(t.at, int32(len(data)))
	return t
}

// brokenLength is how many bytes at the beginning of b, which is not a
// character, could have begun one; at least 1.
func brokenLength(b []byte) int {
	need, low, high := 0, byte(0x80), byte(0xbf)
	switch c := b[0]; {
	case c >= 0xc2 && c <= 0xdf:
		need = 1
	case c >= 0xe0 && c <= 0xef:
		need = 2
		if c == 0xe0 {
			low = 0xa0
		}
		if c == 0xed {
			high = 0x9f
		}
	case c >= 0xf0 && c <= 0xf4:
		need = 3
		if c == 0xf0 {
			low = 0x90
		}
		if c == 0xf4 {
			high = 0x8f
		}
	}
	n := 1
	for n < len(b) && n <= need && b[n] >= low && b[n] <= high {
		low, high = 0x80, 0xbf
		n++
	}
	return n
}

func firstInvalid(data []byte) int {
	for i := 0; i < len(data); {
		r, size := utf8.DecodeRune(data[i:])
		if r == utf8.RuneError && size <= 1 {
			return i
		}
		i += size
	}
	return len(data)
}

// peek is the rune at i, -1 past the end.
func (t text) peek(i int) rune {
	if i < len(t.runes) {
		return t.runes[i]
	}
	return -1
}

// has says whether word stands at i.
func (t text) has(i int, word string) bool {
	for _, r := range word {
		if t.peek(i) != r {
			return false
		}
		i++
	}
	return true
}

// skip is the first place from i on where is does not hold.
func (t text) skip(i int, is func(rune) bool) int {
	for i < len(t.runes) && is(t.runes[i]) {
		i++
	}
	return i
}

func (t text) slice(from, to int) string { return string(t.runes[from:to]) }

// jsSpace is \s of a JavaScript regular expression, and what trim takes away.
func jsSpace(r rune) bool {
	switch {
	case r >= 0x9 && r <= 0xd, r == ' ', r == 0xa0, r == 0xfeff:
		return true
	}
	return wideSpace(r)
}

// wideSpace are the spaces of Unicode that both languages know.
func wideSpace(r rune) bool {
	switch {
	case r == 0x1680, r >= 0x2000 && r <= 0x200a, r == 0x2028, r == 0x2029, r == 0x202f, r == 0x205f, r == 0x3000:
		return true
	}
	return false
}

// jsLineEnd is where ^ and $ match and where "." stops; CR is LF by then.
func jsLineEnd(r rune) bool { return r == '\n' || r == 0x2028 || r == 0x2029 }

// pySpace is \s of a Python regular expression, and what rstrip takes away.
func pySpace(r rune) bool {
	switch {
	case r >= 0x9 && r <= 0xd, r >= 0x1c && r <= ' ', r == 0x85, r == 0xa0:
		return true
	}
	return wideSpace(r)
}

func pyInlineSpace(r rune) bool { return r != '\n' && pySpace(r) }
