package dotenv

import (
	"slices"
	"strings"
)

// parseNode gives what the one regular expression of Node's dotenv gives
// (lib/main.js up to 17, src/main.js of 18, "LINE"): at the beginning of a line
//
//	space* (export space+)? key (space* = | : space) value? space* comment? end of line
//
// A value is quoted with ', " or `, over several lines too, or runs to # or the
// end of the line. All of it backtracks, which decides which quote ends a value.
func parseNode(t text) []Entry {
	var entries []Entry
	for i := 0; i < len(t.runes); {
		at := t.skip(i, jsSpace)
		key, end, value, found := nodeHead(t, at)
		if !found {
			i = nextLine(t, at)
			continue
		}
		e, next := nodeValue(t, value)
		e.Key, e.key = t.slice(key, end), int(t.at[key])
		entries = append(entries, e)
		i = nextLine(t, next)
	}
	return entries
}

// nextLine is the beginning of the line after the one at i.
func nextLine(t text, i int) int {
	return t.skip(i, func(r rune) bool { return !jsLineEnd(r) }) + 1
}

// nodeHead reads a key and what separates it from the value, which begins at
// value.
func nodeHead(t text, at int) (key, end, value int, found bool) {
	if after := t.skip(at+len("export"), jsSpace); t.has(at, "export") && after > at+len("export") {
		if end, value, found = nodeKey(t, after); found {
			return after, end, value, true
		}
	}
	end, value, found = nodeKey(t, at) // "export" itself may be the name
	return at, end, value, found
}

func nodeKey(t text, at int) (end, value int, found bool) {
	end = t.skip(at, nodeKeyRune)
	if end == at {
		return 0, 0, false
	}
	if equals := t.skip(end, jsSpace); t.peek(equals) == '=' {
		return end, equals + 1, true
	}
	if t.peek(end) == ':' && jsSpace(t.peek(end+1)) {
		return end, end + 2, true
	}
	return 0, 0, false
}

func nodeKeyRune(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' || r == '.' || r == '-'
}

// nodeValue reads the value that begins at from; next is somewhere on the line
// on which it ends.
func nodeValue(t text, from int) (e Entry, next int) {
	open := t.skip(from, jsSpace)
	first := t.peek(open)
	quoted := first == '\'' || first == '"' || first == '`'
	start, end := from, from
	if last := -1; quoted {
		if last = nodeClosing(t, open); last >= 0 {
			start, end, next = open, last+1, last+1
		} else {
			quoted = false
		}
	}
	if !quoted {
		next = t.skip(from, func(r rune) bool { return r != '#' && r != '\n' })
		if start = t.skip(from, jsSpace); start >= next {
			start, end = from, from // nothing but space
		} else {
			end = next
			for jsSpace(t.runes[end-1]) {
				end--
			}
		}
	}
	value := t.slice(start, end)
	if quoted {
		value = t.slice(start+1, end-1)
	} else if start < end {
		value = stripQuotes(t.runes[start:end])
	}
	if start < end && t.runes[start] == '"' {
		value = strings.ReplaceAll(value, `\n`, "\n")
		value = strings.ReplaceAll(value, `\r`, "\r")
	}
	return Entry{Value: value, Literal: value, start: int(t.at[start]), end: int(t.at[end])}, next
}

// nodeClosing is the quote that ends the value opened at open, -1 where none
// does. A quote without a backslash before it is the last that may; of those up
// to it, the last one counts that only space or a comment follows on its line.
func nodeClosing(t text, open int) int {
	last := -1
	for i := open + 1; i < len(t.runes); i++ {
		if t.runes[i] != t.runes[open] {
			continue
		}
		after := t.skip(i+1, func(r rune) bool { return jsSpace(r) && !jsLineEnd(r) })
		if r := t.peek(after); r == -1 || r == '#' || jsLineEnd(r) {
			last = i
		}
		if t.runes[i-1] != '\\' {
			break
		}
	}
	return last
}

// stripQuotes is the replacement of ^(['"`])([\s\S]*)\1$ by what is inside. It
// sees lines where a value holds U+2028 or U+2029.
func stripQuotes(value []rune) string {
	last := map[rune]int{} // where each quote stands last before the end of a line
	for i, r := range slices.Backward(value) {
		if _, seen := last[r]; !seen && (r == '\'' || r == '"' || r == '`') && (i+1 == len(value) || jsLineEnd(value[i+1])) {
			last[r] = i
		}
	}
	var out []rune
	for i := 0; i < len(value); i++ {
		end, quote := last[value[i]]
		if quote && end > i && (i == 0 || jsLineEnd(value[i-1])) {
			out = append(out, value[i+1:end]...)
			i = end
			continue
		}
		out = append(out, value[i])
	}
	return string(out)
}
