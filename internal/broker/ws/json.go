package ws

import (
	"encoding/json"
	"errors"
	"strings"
)

// ErrTwice means that a name stands twice in an object, so that two readers
// could take different values.
var ErrTwice = errors.New("ws: a name stands twice in an object")

// Find returns where the value at pointer (RFC 6901) stands in b, a valid JSON
// text. Only members of objects are followed. It returns false where nothing
// stands there, and ErrTwice where a name on the way does so twice.
func Find(b []byte, pointer string) (start, end int, found bool, err error) {
	at := space(b, 0)
	if pointer == "" {
		return at, value(b, at), true, nil
	}
	for name := range strings.SplitSeq(strings.TrimPrefix(pointer, "/"), "/") {
		name = strings.NewReplacer("~1", "/", "~0", "~").Replace(name)
		if at, found, err = member(b, at, name); err != nil || !found {
			return 0, 0, false, err
		}
	}
	return at, value(b, at), true, nil
}

// member is where the value of a member of the object at b[at] begins.
func member(b []byte, at int, name string) (int, bool, error) {
	if b[at] != '{' {
		return 0, false, nil
	}
	place, found := 0, false
	for at = space(b, at+1); b[at] != '}'; {
		end := value(b, at)
		var key string
		if err := json.Unmarshal(b[at:end], &key); err != nil {
			return 0, false, err
		}
		at = space(b, space(b, end)+1) // behind the colon
		if key == name {
			if found {
				return 0, false, ErrTwice
			}
			place, found = at, true
		}
		if at = space(b, value(b, at)); b[at] == ',' {
			at = space(b, at+1)
		}
	}
	return place, found, nil
}

// value is the end of the value that begins at b[at].
func value(b []byte, at int) int {
	depth := 0
	for at < len(b) {
		switch b[at] {
		case '"':
			at = text(b, at)
		case '{', '[':
			depth++
			at++
			continue
		case '}', ']':
			depth--
			at++
		case ',', ':', ' ', '\t', '\r', '\n':
			at++
			continue
		default:
			for at < len(b) && strings.IndexByte(",:]} \t\r\n", b[at]) < 0 {
				at++
			}
		}
		if depth == 0 {
			return at
		}
	}
	return at
}

// text is the end of the string that begins at b[at].
func text(b []byte, at int) int {
	for at++; b[at] != '"'; at++ {
		if b[at] == '\\' {
			at++
		}
	}
	return at + 1
}

func space(b []byte, at int) int {
	for at < len(b) && strings.IndexByte(" \t\r\n", b[at]) >= 0 {
		at++
	}
	return at
}
