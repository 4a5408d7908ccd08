package dotenv

import (
	"cmp"
	"slices"
	"strings"
	"unicode/utf8"
)

// Difference is a variable that the two loaders read differently. It holds no
// value.
type Difference struct {
	Line int    `json:"line"`
	Key  string `json:"key,omitempty"` // empty where the whole file is meant
	Why  string `json:"why"`           // a clause: "only Node's dotenv takes # …"
}

// String is the text for people, without the line.
func (d Difference) String() string {
	if d.Key == "" {
		return d.Why
	}
	return d.Key + " is read differently: " + d.Why
}

// Compare names what Node's dotenv and python-dotenv read differently, in file
// order. What neither reads at all is no difference; a file that Parse refuses
// for both has none.
func Compare(data []byte) []Difference {
	if check(data, Node) != nil {
		return nil
	}
	if !utf8.Valid(data) {
		return []Difference{{Line: lineOf(data, firstInvalid(data)), Why: "the file is read differently: it is not UTF-8, and python-dotenv refuses it"}}
	}
	node, _ := parse(data, Node)
	python, err := parse(data, Python)
	byKey := map[int][2]*Entry{}
	for side, list := range [][]Entry{node, python} {
		for i := range list {
			both := byKey[list[i].key]
			both[side] = &list[i]
			byKey[list[i].key] = both
		}
	}
	var found []Difference
	seen := map[string]bool{} // set by python-dotenv so far
	places := make([]int, 0, len(byKey))
	for at := range byKey {
		places = append(places, at)
	}
	slices.Sort(places)
	for _, at := range places {
		n, p := byKey[at][0], byKey[at][1]
		if d, differ := difference(data, n, p, seen); differ {
			found = append(found, d)
		}
		if p != nil {
			seen[p.Key] = !p.Bare
		}
	}
	if err != nil {
		found = append(found, Difference{Why: "the file is read differently: python-dotenv expands its variables without end"})
	}
	slices.SortStableFunc(found, func(a, b Difference) int { return cmp.Compare(a.Line, b.Line) })
	return found
}

// difference looks at what stands at one place; one of n and p may be nil.
func difference(data []byte, n, p *Entry, seen map[string]bool) (Difference, bool) {
	switch {
	case p == nil:
		return Difference{n.Line, n.Key, onlyNode(data, n)}, true
	case n == nil && p.Bare:
		return Difference{p.Line, p.Key, `only python-dotenv reads a name without "=", and takes it as unset`}, seen[p.Key]
	case n == nil:
		return Difference{p.Line, p.Key, "only python-dotenv reads such a name"}, true
	case n.Key == protoKey:
		return Difference{n.Line, n.Key, "Node's dotenv cannot set this name"}, true
	case n.Key != p.Key:
		return Difference{n.Line, n.Key, "python-dotenv reads another name there"}, true
	case p.Bare:
		return Difference{n.Line, n.Key, `Node's dotenv takes the "=" of a following line`}, true
	case n.Value == p.Value:
		return Difference{}, false
	}
	return Difference{n.Line, n.Key, reason(data, n, p)}, true
}

func onlyNode(data []byte, n *Entry) string {
	after := n.key + len(n.Key)
	if after < len(data) && data[after] == ':' {
		return `only Node's dotenv takes ":" for "="`
	}
	if bytesContainQuote(data[n.start:n.end]) {
		return "only Node's dotenv reads quotes that do not end as they should; python-dotenv drops the line"
	}
	return "only Node's dotenv reads this line"
}

func bytesContainQuote(b []byte) bool { return strings.ContainsAny(string(b), "'\"`") }

// reason says why the values differ, the likeliest cause first.
func reason(data []byte, n, p *Entry) string {
	raw := data[min(n.start, p.start):max(n.end, p.end)]
	first := byte(0)
	if len(raw) > 0 {
		first = raw[0]
	}
	switch {
	case p.Value != p.Literal:
		return "python-dotenv puts a variable in the place of ${…}, Node's dotenv leaves it"
	case first == '`':
		return "only Node's dotenv takes ` for quotes"
	case strings.HasPrefix(p.Literal, n.Literal) && strings.HasPrefix(p.Literal[len(n.Literal):], "#"),
		strings.HasPrefix(strings.TrimLeft(p.Literal[min(len(p.Literal), len(n.Literal)):], " \t"), "#"):
		return "Node's dotenv takes # for the beginning of a comment, python-dotenv does not; quotes around the value settle it"
	case (first == '"' || first == '\'') && strings.Contains(string(raw), `\`):
		return `the two know other escapes with \ inside quotes`
	case bytesContainQuote(raw):
		return "the quotes do not end as they should"
	case p.end != n.end || p.start != n.start:
		return "the value ends at another place"
	}
	return "the two know other spaces"
}
