// Package strictyaml is the one door to the YAML library: an unknown field, a
// repeated key or a second document is an error that shows the line.
package strictyaml

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/goccy/go-yaml"

	"postern/internal/fail"
)

// MaxBytes bounds what Decode reads: no file of ours comes near it, and the
// parser need not be trusted with more.
const MaxBytes = 4 << 20

// Decode reads data, the content of file, into target (a pointer to a struct
// with yaml tags). An empty file leaves target as it is. Mistakes come back as
// fail.Problems with line and column.
func Decode(file string, data []byte, target any) error {
	if err := bounded(file, data); err != nil {
		return err
	}
	dec := yaml.NewDecoder(bytes.NewReader(data), yaml.Strict())
	if err := dec.Decode(target); err != nil && !errors.Is(err, io.EOF) {
		return fail.Problems{problem(file, err)}
	}
	var second any
	if err := dec.Decode(&second); err == nil && second != nil {
		return fail.Problems{{File: file, Text: "the file holds more than one document"}}
	}
	return nil
}

// bounded refuses what the parser need not be trusted with.
func bounded(file string, data []byte) error {
	if len(data) > MaxBytes {
		return fail.Problems{{File: file, Text: fmt.Sprintf("the file has %d bytes, at most %d are read", len(data), MaxBytes)}}
	}
	if i := bytes.IndexByte(data, 0); i >= 0 {
		return fail.Problems{{File: file, Line: 1 + bytes.Count(data[:i], []byte("\n")), Text: "the file holds a NUL byte"}}
	}
	if line := tangled(data); line > 0 {
		return fail.Problems{{File: file, Line: line, Text: "the text is nested too deeply, or the line is too long"}}
	}
	return nil
}

// tangled finds the line whose nesting or length passes what any file of ours
// has; 0 for none. The parser needs quadratic time and memory for these, so that
// some 10 KB of brackets would hold it for seconds. Marks inside quotes are
// counted too.
func tangled(data []byte) int {
	const (
		most    = 200
		longest = 16 << 10
	)
	line, open, marks := 0, 0, 0
	for text := range bytes.Lines(data) {
		line, marks = line+1, 0
		if len(text) > longest {
			return line
		}
		before := byte(' ')
		for _, c := range text {
			switch {
			case c == '[', c == '{':
				open++
			case c == ']', c == '}':
				open = max(open-1, 0)
			case before == ' ' && bytes.IndexByte([]byte("-?&!*|>"), c) >= 0:
				marks++
			}
			if open > most || marks > most {
				return line
			}
			before = c
		}
	}
	return 0
}

// Encode writes value as YAML with two-space indentation.
func Encode(value any) ([]byte, error) {
	return yaml.MarshalWithOptions(value, yaml.Indent(2), yaml.IndentSequence(true))
}

func problem(file string, err error) fail.Problem {
	p := fail.Problem{File: file, Text: firstLine(err.Error())}
	var at yaml.Error
	if errors.As(err, &at) {
		p.Text = at.GetMessage()
		if tk := at.GetToken(); tk != nil && tk.Position != nil {
			p.Line, p.Column = tk.Position.Line, tk.Position.Column
		}
		if _, excerpt, found := strings.Cut(at.FormatError(false, true), "\n"); found {
			p.Excerpt = excerpt
		}
	}
	return p
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}
