package dotenv

import (
	"regexp"
	"strings"
)

// parsePython gives the bindings of python-dotenv (parser.py, parse_binding).
// After a mistake it goes on with the next line after the place where the
// mistake was noticed.
func parsePython(t text) []Entry {
	var entries []Entry
	i := 0
	if t.peek(0) == 0xfeff {
		i = 1
	}
	for i < len(t.runes) {
		if i = t.skip(i, pySpace); i == len(t.runes) {
			break
		}
		e, next, ok := binding(t, i)
		if !ok {
			next = t.skip(next, func(r rune) bool { return r != '\n' }) + 1
		} else if e.Key != "" {
			entries = append(entries, e)
		}
		i = next
	}
	return entries
}

// binding reads one line, or several where quotes go on. A comment has no key.
// Without ok, next is where the mistake was noticed.
func binding(t text, i int) (e Entry, next int, ok bool) {
	if after := t.skip(i+len("export"), pyInlineSpace); t.has(i, "export") && after > i+len("export") {
		i = after
	}
	e.key = int(t.at[i])
	switch t.peek(i) {
	case '#':
	case '\'':
		end := t.skip(i+1, func(r rune) bool { return r != '\'' })
		if end == len(t.runes) || end == i+1 {
			return e, i, false
		}
		e.Key, i = t.slice(i+1, end), end+1
	default:
		end := t.skip(i, func(r rune) bool { return r != '=' && r != '#' && !pySpace(r) })
		if end == i {
			return e, i, false
		}
		e.Key, i = t.slice(i, end), end
	}
	i = t.skip(i, pyInlineSpace)
	e.Bare = t.peek(i) != '='
	if !e.Bare {
		if i, ok = pythonValue(t, i+1, &e); !ok {
			return e, i, false
		}
	}
	if at := t.skip(i, pyInlineSpace); t.peek(at) == '#' {
		i = t.skip(at, func(r rune) bool { return r != '\n' })
	}
	i = t.skip(i, pyInlineSpace)
	if i < len(t.runes) && t.runes[i] != '\n' {
		return e, i, false
	}
	return e, min(i+1, len(t.runes)), true
}

// pythonValue reads what follows "=" into e and gives the place after it.
func pythonValue(t text, from int, e *Entry) (next int, ok bool) {
	i := t.skip(from, pyInlineSpace)
	set := func(start, end int, value string) {
		e.start, e.end, e.Literal, e.Value = int(t.at[start]), int(t.at[end]), value, value
	}
	switch quote := t.peek(i); {
	case quote == '#' && i > from, quote == -1, quote == '\n':
		set(from, from, "")
		return i, true
	case quote == '\'' || quote == '"':
		end := i + 1
		for end < len(t.runes) && t.runes[end] != quote {
			if t.runes[end] == '\\' {
				end++
			}
			end++
		}
		if end >= len(t.runes) {
			return i, false
		}
		set(i, end+1, unescape(t.slice(i+1, end), quote))
		return end + 1, true
	}
	next = t.skip(i, func(r rune) bool { return r != '\n' })
	end := next
	for at := i; at < next; at++ { // the comment begins with the space before "#"
		if pySpace(t.runes[at]) {
			if after := t.skip(at, pyInlineSpace); t.peek(after) == '#' {
				end = at
				break
			} else {
				at = after
			}
		}
	}
	for end > i && pySpace(t.runes[end-1]) {
		end--
	}
	set(i, end, t.slice(i, end))
	return next, true
}

// unescape decodes the escapes that count inside quotes; others stay.
func unescape(s string, quote rune) string {
	from, to := `\'`, `\'`
	if quote == '"' {
		from, to = `\'"abfnrtv`, "\\'\"\a\b\f\n\r\t\v"
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) {
			if at := strings.IndexByte(from, s[i+1]); at >= 0 {
				b.WriteByte(to[at])
				i++
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// variable is ${NAME} or ${NAME:-default}, in quotes of any sort or without.
var variable = regexp.MustCompile(`\$\{([^}:]*)(?::-([^}]*))?\}`)

// expand fills in what python-dotenv reads where a value names variables: those
// that stand earlier in the file, and nothing for what the environment may have.
func expand(entries []Entry) error {
	values, total := map[string]string{}, 0
	for i := range entries {
		e := &entries[i]
		if e.Bare {
			values[e.Key] = "" // None counts as there, and is empty
			continue
		}
		var b strings.Builder
		last := 0
		for _, m := range variable.FindAllStringSubmatchIndex(e.Literal, -1) {
			b.WriteString(e.Literal[last:m[0]])
			text, found := values[e.Literal[m[2]:m[3]]]
			if !found && m[4] >= 0 {
				text = e.Literal[m[4]:m[5]]
			}
			if total += len(text); total > maxExpanded {
				return unfit("the variables of line %d expand to more than %d MiB", e.Line, maxExpanded>>20)
			}
			b.WriteString(text)
			last = m[1]
		}
		b.WriteString(e.Literal[last:])
		e.Value = b.String()
		values[e.Key] = e.Value
	}
	return nil
}
