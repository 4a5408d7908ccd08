package broker

import (
	"bytes"
	"errors"
	"strings"
)

var errPath = errors.New("the path can be read in two ways")

// tokenView stands in a path view where a path slot held a placeholder.
const tokenView = "{token}"

// pathViews are the canonical forms under which servers may read path: as
// written with needless escapes undone and, where that differs, fully decoded
// with parameters and doubled slashes taken out. A use needs every view
// allowed, so that no rule is missed. Dot segments, encoded control characters
// and backslashes, double encoding and segments that end in a dot or a space
// are refused.
func pathViews(path []byte) ([]string, error) {
	if plainPath(path) {
		return []string{string(path)}, nil
	}
	if len(path) == 0 || path[0] != '/' {
		return nil, errPath
	}
	written, decoded, err := unescape(path)
	if err != nil {
		return nil, err
	}
	var loose []string
	for segment := range strings.SplitSeq(decoded, "/") {
		segment, _, _ = strings.Cut(segment, ";")
		if strings.HasSuffix(segment, ".") || strings.HasSuffix(segment, " ") {
			return nil, errPath
		}
		if segment != "" {
			loose = append(loose, segment)
		}
	}
	second := "/" + strings.Join(loose, "/")
	if strings.HasSuffix(decoded, "/") && len(loose) > 0 {
		second += "/"
	}
	if second == written {
		return []string{written}, nil
	}
	return []string{written, second}, nil
}

// plainPath says whether there is only one way to read path.
func plainPath(path []byte) bool {
	if len(path) == 0 || path[0] != '/' {
		return false
	}
	before := byte(0)
	for _, c := range path {
		switch {
		case c == '%', c == ';', c == '/' && (before == '/' || before == '.'):
			return false
		}
		before = c
	}
	return before != '.'
}

// unescape returns the path with needlessly escaped characters decoded, and
// with all of them decoded.
func unescape(path []byte) (written, decoded string, err error) {
	var w, d []byte
	for i := 0; i < len(path); i++ {
		c := path[i]
		if c != '%' {
			w, d = append(w, c), append(d, c)
			continue
		}
		if i+2 >= len(path) || unhex(path[i+1]) < 0 || unhex(path[i+2]) < 0 {
			return "", "", errPath
		}
		x := byte(unhex(path[i+1])<<4 | unhex(path[i+2]))
		if x < 0x20 || x == 0x7f || x == '\\' || x == '%' && i+4 < len(path) && unhex(path[i+3]) >= 0 && unhex(path[i+4]) >= 0 {
			return "", "", errPath
		}
		d = append(d, x)
		if unreserved(x) {
			w = append(w, x)
		} else {
			w = append(w, bytes.ToUpper(path[i:i+3])...)
		}
		i += 2
	}
	return string(w), string(d), nil
}

func unhex(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

func unreserved(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '.' || c == '_' || c == '~'
}

// appendEscaped appends s percent-encoded as a path segment or query value;
// the colon stays, because it is part of Telegram's tokens and legal in both.
func appendEscaped(dst, s []byte) []byte {
	const digits = "0123456789ABCDEF"
	for _, c := range s {
		if unreserved(c) || c == ':' {
			dst = append(dst, c)
		} else {
			dst = append(dst, '%', digits[c>>4], digits[c&15])
		}
	}
	return dst
}

// appendUnescaped appends s percent-decoded; plus is a space in queries.
// It returns false for a broken escape.
func appendUnescaped(dst, s []byte, plus bool) ([]byte, bool) {
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '+' && plus:
			dst = append(dst, ' ')
		case s[i] != '%':
			dst = append(dst, s[i])
		case i+2 < len(s) && unhex(s[i+1]) >= 0 && unhex(s[i+2]) >= 0:
			dst = append(dst, byte(unhex(s[i+1])<<4|unhex(s[i+2])))
			i += 2
		default:
			return dst, false
		}
	}
	return dst, true
}
