package strictyaml

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"

	"postern/internal/fail"
)

// Kind says what a Node is.
type Kind int

// The kinds. Other is what an outline does not look into: aliases, anchors,
// tags, merge keys.
const (
	Null Kind = iota
	Scalar
	Mapping
	Sequence
	Other
)

// maxDepth bounds how deep an outline goes.
const maxDepth = 64

// Node is a part of a document with its place in the text. The zero Kind is
// Null; an empty file is one.
type Node struct {
	Kind     Kind
	Flow     bool   // written in braces or brackets
	Key      string // where the parent is a Mapping
	Text     string // of a Scalar, as read
	Line     int    // of the key, the dash or the text itself; from 1
	Children []*Node

	parent     *Node
	src        *source
	lead       int // offset of the key, the dash or the text itself
	start, end int // offsets of the text; end is -1 where it is not known
}

// source is the text of a document with the offsets of its lines.
type source struct {
	data    []byte
	newline string
	lines   []int
}

// Outline reads data, the content of file, as one document and says where its
// parts stand. It returns fail.Problems for what the parser refuses.
func Outline(file string, data []byte) (*Node, error) {
	if err := bounded(file, data); err != nil {
		return nil, err
	}
	src := &source{data: data, newline: "\n"}
	text := data
	if bytes.Contains(data, []byte("\r\n")) {
		// The parser counts the two as two lines; without the CR all positions stay.
		src.newline, text = "\r\n", bytes.ReplaceAll(data, []byte("\r\n"), []byte("\n"))
	}
	for rest := 0; ; {
		src.lines = append(src.lines, rest)
		i := bytes.IndexByte(data[rest:], '\n')
		if i < 0 {
			break
		}
		rest += i + 1
	}
	parsed, err := parser.ParseBytes(text, 0)
	if err != nil {
		return nil, fail.Problems{problem(file, err)}
	}
	root := &Node{src: src, Line: 1}
	for _, doc := range parsed.Docs {
		if doc.Body == nil {
			continue
		}
		if root.Kind != Null {
			return nil, fail.Problems{{File: file, Text: "the file holds more than one document"}}
		}
		if err := root.fill(doc.Body, 0); err != nil {
			return nil, fail.Problems{{File: file, Line: root.Line, Text: err.Error()}}
		}
	}
	return root, nil
}

// At follows keys down from n; nil where one does not exist.
func (n *Node) At(keys ...string) *Node {
	for _, key := range keys {
		var found *Node
		for _, child := range n.Children {
			if n.Kind == Mapping && child.Key == key {
				found = child
			}
		}
		if n = found; n == nil {
			return nil
		}
	}
	return n
}

// Item is the i-th item of a Sequence, nil where there is none.
func (n *Node) Item(i int) *Node {
	if n == nil || n.Kind != Sequence || i < 0 || i >= len(n.Children) {
		return nil
	}
	return n.Children[i]
}

// Problem is a mistake at n, with its line shown. A nil n is a mistake of the
// file as a whole.
func (n *Node) Problem(file, text, hint string) fail.Problem {
	p := fail.Problem{File: file, Text: text, Hint: hint}
	if n == nil || n.src == nil {
		return p
	}
	at := n.lead
	if n.Key == "" {
		at = n.start
	}
	begin := n.src.lines[n.Line-1]
	if at < begin {
		at = begin
	}
	line := n.src.data[begin:]
	if i := bytes.IndexByte(line, '\n'); i >= 0 {
		line = line[:i]
	}
	line = bytes.TrimRight(line, "\r")
	p.Line, p.Column = n.Line, 1+utf8.RuneCount(n.src.data[begin:at])
	label := fmt.Sprintf("> %d | ", n.Line)
	p.Excerpt = label + string(line) + "\n" + strings.Repeat(" ", len(label)+p.Column-1) + "^"
	return p
}

var errDepth = errors.New("the file is nested too deeply")

// fill makes n what the parser's node says.
func (n *Node) fill(of ast.Node, depth int) error {
	if depth > maxDepth {
		return errDepth
	}
	tk := of.GetToken()
	n.start = n.src.offset(tk)
	n.end = -1
	if n.lead == 0 && n.Key == "" {
		n.lead = n.start
	}
	switch of := of.(type) {
	case *ast.MappingNode:
		n.Kind, n.Flow = Mapping, of.IsFlowStyle
		for _, entry := range of.Values {
			if err := n.addEntry(entry, depth); err != nil {
				return err
			}
		}
		n.close(of.End, '}')
	case *ast.MappingValueNode:
		n.Kind = Mapping
		if err := n.addEntry(of, depth); err != nil {
			return err
		}
		n.close(nil, 0)
	case *ast.SequenceNode:
		n.Kind, n.Flow = Sequence, of.IsFlowStyle
		for i, value := range of.Values {
			child := &Node{parent: n, src: n.src}
			if !n.Flow && i < len(of.Entries) {
				child.lead = n.src.offset(of.Entries[i].Start)
			}
			n.Children = append(n.Children, child)
			if err := child.fill(value, depth+1); err != nil {
				return err
			}
			child.Line = n.src.line(child.lead)
		}
		n.close(of.End, ']')
	case *ast.NullNode:
		n.Kind, n.end = Null, n.start
		if n.explicitNull() {
			n.end += len(tk.Value)
		}
	case *ast.StringNode, *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		n.Kind, n.Text, n.end = Scalar, tk.Value, n.src.scalarEnd(n.start, tk.Value)
	case *ast.LiteralNode:
		n.Kind, n.Text = Scalar, of.Value.Value
	default:
		n.Kind = Other
	}
	if n.Key == "" && n.parent == nil {
		n.Line = n.src.line(n.start)
	}
	return nil
}

func (n *Node) addEntry(entry *ast.MappingValueNode, depth int) error {
	tk := entry.Key.GetToken()
	child := &Node{parent: n, src: n.src, Key: tk.Value, lead: n.src.offset(tk)}
	child.Line = n.src.line(child.lead)
	n.Children = append(n.Children, child)
	if _, plain := entry.Key.(*ast.StringNode); !plain {
		if _, scalar := entry.Key.(ast.ScalarNode); !scalar || entry.Key.IsMergeKey() {
			child.Kind, child.end = Other, -1
			return nil
		}
	}
	if err := child.fill(entry.Value, depth+1); err != nil {
		return err
	}
	if child.Kind == Null && child.end == child.start {
		child.start = n.src.offset(entry.GetToken()) + 1
		child.end = child.start
	}
	return nil
}

// close sets the end of a collection: behind its bracket, or of its last child.
func (n *Node) close(bracket *token.Token, want byte) {
	if len(n.Children) > 0 && !n.Flow {
		n.start = n.Children[0].lead
		n.end = n.Children[len(n.Children)-1].end
	}
	if bracket != nil {
		if at := n.src.offset(bracket); at < len(n.src.data) && n.src.data[at] == want {
			n.end = at + 1
		}
	}
	for _, child := range n.Children {
		if child.end < 0 {
			n.end = -1
		}
	}
	if n.parent != nil && n.Key == "" && n.lead == 0 {
		n.lead = n.start
	}
}

func (n *Node) explicitNull() bool {
	rest := n.src.data[n.start:]
	for _, word := range []string{"~", "null", "Null", "NULL"} {
		if bytes.HasPrefix(rest, []byte(word)) {
			return true
		}
	}
	return false
}

// offset is where a token begins; the parser counts columns in runes.
func (s *source) offset(tk *token.Token) int {
	line := min(max(tk.Position.Line, 1), len(s.lines))
	at := s.lines[line-1]
	for range tk.Position.Column - 1 {
		if at >= len(s.data) {
			break
		}
		_, size := utf8.DecodeRune(s.data[at:])
		at += size
	}
	return at
}

// line is the number of the line that holds the offset.
func (s *source) line(offset int) int {
	return 1 + bytes.Count(s.data[:offset], []byte("\n"))
}

// scalarEnd finds where the scalar that begins at start and reads as value
// ends; -1 for forms that are not followed, such as text over several lines.
func (s *source) scalarEnd(start int, value string) int {
	rest := s.data[start:]
	if len(rest) == 0 {
		return -1
	}
	quote := rest[0]
	if quote != '"' && quote != '\'' {
		if value == "" || !bytes.HasPrefix(rest, []byte(value)) || strings.ContainsAny(value, "\r\n") {
			return -1
		}
		return start + len(value)
	}
	for i := 1; i < len(rest); i++ {
		switch {
		case rest[i] == '\n':
			return -1
		case rest[i] == '\\' && quote == '"':
			i++
		case rest[i] == quote && quote == '\'' && i+1 < len(rest) && rest[i+1] == quote:
			i++
		case rest[i] == quote:
			return start + i + 1
		}
	}
	return -1
}
