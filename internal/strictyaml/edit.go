package strictyaml

import (
	"bytes"
	"errors"
	"strconv"
	"strings"
)

// ErrForm is returned by edits of text whose form they cannot keep; a person
// must make the change.
var ErrForm = errors.New("the text around it has a form that is not edited by machine")

// The edits return the whole new text. They touch no other byte, know nothing
// of meaning, and may give a text that no longer parses where the old one has
// an unusual form: whoever edits reads the result again and compares.

// AddItem adds item, the text of one line, at the end of the sequence n. A
// null or an empty n becomes a sequence with a line an item.
func (n *Node) AddItem(item string) ([]byte, error) {
	switch {
	case n.end < 0:
		return nil, ErrForm
	case n.blank():
		return n.below("- " + item)
	case n.Kind == Sequence && n.Flow:
		return n.addFlow(item)
	case n.Kind == Sequence:
		return n.src.insertLine(n.end, n.src.indent(n.Children[0].lead)+"- "+item), nil
	}
	return nil, ErrForm
}

// AddKey adds "key: value" at the end of the mapping n; value is the text of
// one line. A null or an empty n becomes a mapping with a line a key.
func (n *Node) AddKey(key, value string) ([]byte, error) {
	text := Quote(key) + ": " + value
	switch {
	case n.end < 0:
		return nil, ErrForm
	case n.blank():
		return n.below(text)
	case n.Kind == Mapping && n.Flow:
		return n.addFlow(text)
	case n.Kind == Mapping:
		return n.src.insertLine(n.end, n.src.indent(n.Children[0].lead)+text), nil
	}
	return nil, ErrForm
}

// SetScalar replaces the scalar or null n by text.
func (n *Node) SetScalar(text string) ([]byte, error) {
	switch {
	case n.end < 0 || n.parent == nil:
		return nil, ErrForm
	case n.Kind == Null && n.start == n.end:
		return n.src.replace(n.start, n.end, " "+text), nil
	case n.Kind == Scalar, n.Kind == Null:
		return n.src.replace(n.start, n.end, text), nil
	}
	return nil, ErrForm
}

// Remove takes n out of its mapping or sequence, with its lines where they are
// its own.
func (n *Node) Remove() ([]byte, error) {
	p := n.parent
	if p == nil || n.end < 0 || p.end < 0 {
		return nil, ErrForm
	}
	if p.Flow {
		return n.removeFlow()
	}
	begin := 1 + bytes.LastIndexByte(n.src.data[:n.lead], '\n')
	if len(bytes.TrimLeft(n.src.data[begin:n.lead], " ")) > 0 {
		return nil, ErrForm // another node's text stands on the line
	}
	end := len(n.src.data)
	if i := bytes.IndexByte(n.src.data[n.end:], '\n'); i >= 0 {
		end = n.end + i + 1
	}
	return n.src.replace(begin, end, ""), nil
}

func (n *Node) removeFlow() ([]byte, error) {
	p, at := n.parent, 0
	for i, child := range p.Children {
		if child == n {
			at = i
		}
	}
	begin, end := n.lead, n.end
	switch {
	case at+1 < len(p.Children):
		end = p.Children[at+1].lead
	case at > 0:
		begin = p.Children[at-1].end
	default:
		begin, end = p.start+1, p.end-1
	}
	between := bytes.Join([][]byte{n.src.data[begin:max(begin, n.lead)], n.src.data[min(n.end, end):end]}, nil)
	if bytes.ContainsRune(between, '#') {
		return nil, ErrForm // a comment that may belong to a neighbour
	}
	return n.src.replace(begin, end, ""), nil
}

// blank says whether n holds nothing and may be written anew below its key.
func (n *Node) blank() bool {
	if n.Kind == Null {
		return n.start == n.end
	}
	return n.Flow && len(n.Children) == 0 && (n.parent == nil || !n.parent.Flow) &&
		len(bytes.TrimSpace(n.src.data[n.start+1:n.end-1])) == 0
}

// below writes text on a line of its own below the key of a blank n.
func (n *Node) below(text string) ([]byte, error) {
	s := n.src
	if n.Flow {
		begin := len(bytes.TrimRight(s.data[:n.start], " "))
		s = newSource(s.replace(begin, n.end, ""))
		n = &Node{parent: n.parent, lead: n.lead, Key: n.Key, start: begin, end: begin}
	}
	if n.parent == nil {
		return s.insertLine(len(s.data), text), nil
	}
	if n.Key == "" {
		return nil, ErrForm
	}
	return s.insertLine(n.end, s.indent(n.lead)+"  "+text), nil
}

func (n *Node) addFlow(text string) ([]byte, error) {
	if len(n.Children) == 0 {
		return n.src.replace(n.start+1, n.start+1, text), nil
	}
	last := n.Children[len(n.Children)-1].end
	if rest := bytes.TrimLeft(n.src.data[last:], " \t\r\n"); len(rest) > 0 && rest[0] == ',' {
		at := len(n.src.data) - len(rest) + 1
		return n.src.replace(at, at, " "+text), nil
	}
	return n.src.replace(last, last, ", "+text), nil
}

func newSource(data []byte) *source {
	s := &source{data: data, newline: "\n"}
	if bytes.Contains(data, []byte("\r\n")) {
		s.newline = "\r\n"
	}
	return s
}

// indent is as much space as stands before the offset in its line.
func (s *source) indent(offset int) string {
	begin := 1 + bytes.LastIndexByte(s.data[:offset], '\n')
	return strings.Repeat(" ", offset-begin)
}

func (s *source) replace(begin, end int, text string) []byte {
	return bytes.Join([][]byte{s.data[:begin], []byte(text), s.data[end:]}, nil)
}

// insertLine puts a line below the one that holds the offset.
func (s *source) insertLine(offset int, line string) []byte {
	at := len(s.data)
	if i := bytes.IndexByte(s.data[offset:], '\n'); i >= 0 {
		at = offset + i + 1
	}
	if at > 0 && s.data[at-1] != '\n' {
		return s.replace(at, at, s.newline+line+s.newline)
	}
	return s.replace(at, at, line+s.newline)
}

// Quote writes s as a scalar of one line that is read back as the text s, in
// quotes where it might be read as anything else.
func Quote(s string) string {
	switch strings.ToLower(s) {
	case "true", "false", "yes", "no", "on", "off", "null", "y", "n":
		return strconv.Quote(s)
	}
	for i, c := range []byte(s) {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		inner := i > 0 && (c >= '0' && c <= '9' || c == '-' || c == '_' || c == '.' || c == '/')
		if !letter && !inner {
			return strconv.Quote(s)
		}
	}
	if s == "" {
		return `""`
	}
	return s
}
