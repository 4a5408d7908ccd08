package redact

// contextBytes is how far back a border test looks: the longest terminal colour
// sequence that it understands.
const contextBytes = 20

// text is a stretch of a stream with the bytes that stood before it.
type text struct {
	before []byte
	now    []byte
}

// at is the byte at i, which may be negative; false where there is none.
func (t text) at(i int) (byte, bool) {
	if i < 0 {
		if i += len(t.before); i < 0 {
			return 0, false
		}
		return t.before[i], true
	}
	if i >= len(t.now) {
		return 0, false
	}
	return t.now[i], true
}

// bordered says whether n at start and end stands alone: no letter, digit, "-" or
// "_" next to it, read in the encoding of the form.
func (t text) bordered(n *needle, start, end int) bool {
	switch n.family {
	case asBase64:
		return !t.tokenBase64(start-2, n.lead) && !t.tokenBase64(end, 4-n.rest.bits)
	case asHex:
		return !t.tokenHex(start-2) && !t.tokenHex(end)
	default:
		if c, found := t.at(end); found && isToken(c) {
			return false
		}
		return !t.tokenBefore(start)
	}
}

// tokenBefore reads what stands before start: a byte, or an escape that ends in
// a letter or digit and means something else.
func (t text) tokenBefore(start int) bool {
	c, found := t.at(start - 1)
	if !found || !isToken(c) {
		return false
	}
	if p, _ := t.at(start - 3); p == '%' {
		if v, isHex := t.hexByte(start - 2); isHex {
			return isToken(v)
		}
	}
	if p, _ := t.at(start - 2); p == '\\' && (c == 'n' || c == 'r' || c == 't' || c == 'b' || c == 'f') {
		return false
	}
	if p, _ := t.at(start - 6); p == '\\' {
		if u, _ := t.at(start - 5); u == 'u' {
			high, first := t.hexByte(start - 4)
			low, second := t.hexByte(start - 2)
			if first && second {
				return high == 0 && isToken(low)
			}
		}
	}
	return !t.colourBefore(start)
}

// colourBefore says whether a terminal's colour sequence ends at start.
func (t text) colourBefore(start int) bool {
	if c, _ := t.at(start - 1); c != 'm' {
		return false
	}
	for i := start - 2; i >= start-contextBytes; i-- {
		c, found := t.at(i)
		if found && (c >= '0' && c <= '9' || c == ';') {
			continue
		}
		esc, _ := t.at(i - 1)
		return c == '[' && esc == 0x1b
	}
	return false
}

// hexByte is the byte that two hex digits at i stand for.
func (t text) hexByte(i int) (byte, bool) {
	high, _ := t.at(i)
	low, _ := t.at(i + 1)
	h, l := hexValue(high), hexValue(low)
	return h<<4 | l, h < 16 && l < 16
}

func (t text) tokenHex(i int) bool {
	v, isHex := t.hexByte(i)
	return isHex && isToken(v)
}

// tokenBase64 says whether the two characters at i hold a whole byte, behind
// which drop bits stand, that belongs to a token.
func (t text) tokenBase64(i int, drop uint) bool {
	first, _ := t.at(i)
	second, _ := t.at(i + 1)
	a, b := base64Value(first), base64Value(second)
	return a < 64 && b < 64 && isToken(a<<(6-drop)|b>>drop)
}

func isToken(c byte) bool { return isAlphanumeric(c) || c == '-' || c == '_' }

func hexValue(c byte) byte {
	switch {
	case c >= '0' && c <= '9':
		return c - '0'
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10
	}
	return 255
}

// base64Value reads both alphabets; 255 is no character of either.
func base64Value(c byte) byte {
	switch {
	case c >= 'A' && c <= 'Z':
		return c - 'A'
	case c >= 'a' && c <= 'z':
		return c - 'a' + 26
	case c >= '0' && c <= '9':
		return c - '0' + 52
	case c == '+' || c == '-':
		return 62
	case c == '/' || c == '_':
		return 63
	}
	return 255
}
