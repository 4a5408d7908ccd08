package config

import (
	"fmt"
	"strings"
)

// locate finds where the setting at path stands in the text of a YAML file, from
// 1, or else the nearest one above it; 0 where there is neither. It reads
// indentation, and inside a flow mapping only looks for the key, which is enough
// to point a person at it.
func locate(data []byte, path []string) (line, column int, found bool) {
	lines := strings.Split(string(data), "\n")
	depth, indent, from := 0, -1, 0
	for i, text := range lines {
		trimmed := strings.TrimLeft(text, " ")
		if trimmed == "" || trimmed[0] == '#' {
			continue
		}
		at := len(text) - len(trimmed)
		if depth > 0 && at <= indent {
			break // the block of the parent has ended
		}
		key, rest, found := cutKey(trimmed)
		if !found || key != path[depth] {
			continue
		}
		depth, indent, line, column, from = depth+1, at, i+1, at+1, len(text)-len(rest)
		if depth == len(path) {
			return line, column, true
		}
		if flow := strings.TrimSpace(rest); strings.HasPrefix(flow, "{") {
			return locateFlow(lines, i, from, path[len(path)-1], line, column)
		}
	}
	return line, column, false
}

// locateFlow looks for key in the flow mapping that begins in line i at byte
// from; without it the mapping's own place, line and column, is the answer.
func locateFlow(lines []string, i, from int, key string, line, column int) (int, int, bool) {
	for n, text := range lines[i:] {
		start := 0
		if n == 0 {
			start = from
		}
		if at := strings.Index(text[start:], key); at >= 0 {
			return i + n + 1, start + at + 1, true
		}
	}
	return line, column, false
}

// cutKey takes "key: value" or "'key': value" apart.
func cutKey(text string) (key, rest string, found bool) {
	if quote := text[0]; quote == '"' || quote == '\'' {
		end := strings.IndexByte(text[1:], quote)
		if end < 0 {
			return "", "", false
		}
		key, rest = text[1:end+1], text[end+2:]
		rest, found = strings.CutPrefix(strings.TrimLeft(rest, " "), ":")
		return key, rest, found
	}
	for i := 0; i < len(text); i++ {
		if text[i] == ':' && (i+1 == len(text) || strings.IndexByte(" \r\n", text[i+1]) >= 0) {
			return strings.TrimRight(text[:i], " "), text[i+1:], true
		}
	}
	return "", "", false
}

// excerpt shows a line and the one before it, with a caret below the column.
func excerpt(data []byte, line, column int) string {
	var b strings.Builder
	for i, text := range strings.Split(string(data), "\n") {
		switch text = strings.TrimRight(text, "\r"); i + 1 {
		case line - 1:
			fmt.Fprintf(&b, "  %2d | %s\n", i+1, text)
		case line:
			fmt.Fprintf(&b, "> %2d | %s\n%*s^\n", i+1, text, column+6, "")
		}
	}
	return b.String()
}
