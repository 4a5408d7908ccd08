package http1

// class says of each byte whether it may stand somewhere.
type class [256]bool

func classOf(ok func(byte) bool) (c class) {
	for i := range c {
		c[i] = ok(byte(i))
	}
	return c
}

var (
	tokenByte = classOf(func(b byte) bool {
		switch {
		case b >= 'a' && b <= 'z', b >= 'A' && b <= 'Z', b >= '0' && b <= '9':
			return true
		}
		switch b {
		case '!', '#', '$', '%', '&', '\'', '*', '+', '-', '.', '^', '_', '`', '|', '~':
			return true
		}
		return false
	})
	valueByte  = classOf(func(b byte) bool { return b == '\t' || b >= 0x20 && b <= 0x7e })
	looseByte  = classOf(func(b byte) bool { return b == '\t' || b >= 0x20 && b != 0x7f })
	targetByte = classOf(func(b byte) bool {
		return b > 0x20 && b < 0x7f && b != '#' && b != '"' && b != '<' && b != '>' && b != '\\' && b != '^' && b != '`'
	})
)

func all(b []byte, c *class) bool {
	for _, x := range b {
		if !c[x] {
			return false
		}
	}
	return true
}

// IsToken says whether b is a non-empty token of RFC 9110 §5.6.2.
func IsToken(b []byte) bool { return len(b) > 0 && all(b, &tokenByte) }

// ValidValue says whether b may be a field value that we send.
func ValidValue(b []byte) bool { return all(b, &valueByte) }

// EqualFold compares b with lower, which must be in lower case, in ASCII.
func EqualFold(b []byte, lower string) bool {
	if len(b) != len(lower) {
		return false
	}
	for i, x := range b {
		if x >= 'A' && x <= 'Z' {
			x |= 0x20
		}
		if x != lower[i] {
			return false
		}
	}
	return true
}

// trim cuts optional white space at both ends.
func trim(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t') {
		b = b[1:]
	}
	for len(b) > 0 && (b[len(b)-1] == ' ' || b[len(b)-1] == '\t') {
		b = b[:len(b)-1]
	}
	return b
}

// List calls each for every member of a comma-separated value, trimmed, and
// stops when each returns false.
func List(value []byte, each func([]byte) bool) {
	for len(value) > 0 {
		end := 0
		for end < len(value) && value[end] != ',' {
			end++
		}
		if member := trim(value[:end]); len(member) > 0 && !each(member) {
			return
		}
		if end == len(value) {
			return
		}
		value = value[end+1:]
	}
}
