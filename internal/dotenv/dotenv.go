// Package dotenv reads .env files exactly as Node's dotenv and python-dotenv
// read them, tells where the two differ, and edits a value without touching
// any other byte.
package dotenv

import (
	"bytes"
	"maps"
	"slices"
	"unicode/utf8"

	"postern/internal/fail"
)

// Dialect is the library whose reading counts.
type Dialect int

// The dialects. Each is the current major version of its library, reading a
// file as its load function does with the default options.
const (
	Node   Dialect = iota // dotenv of npm, 16 to 18
	Python                // python-dotenv, with ${NAME} expanded
)

// String is the name that ParseDialect takes.
func (d Dialect) String() string {
	if d == Python {
		return "python"
	}
	return "node"
}

// Library is what people call the loader.
func (d Dialect) Library() string {
	if d == Python {
		return "python-dotenv"
	}
	return "Node's dotenv"
}

// ParseDialect reads "node" or "python".
func ParseDialect(name string) (Dialect, error) {
	switch name {
	case "node":
		return Node, nil
	case "python":
		return Python, nil
	}
	return Node, fail.New(fail.Invalid, "P-E035", "there is no loader called %q", name).
		Hint("node     dotenv of npm").Hint("python   python-dotenv")
}

const (
	// MaxBytes is the size of the largest file that is read.
	MaxBytes = 4 << 20
	// maxExpanded bounds what ${NAME} may grow to, over all values of a file.
	maxExpanded = 4 * MaxBytes
	// maxEntries is more than any program has settings.
	maxEntries = 10000
)

// File is a .env file as one loader reads it. Not safe for concurrent use.
type File struct {
	data    []byte
	dialect Dialect
	entries []Entry
	others  map[Dialect][]Entry // the readings of data that Set has made already
}

// Entry is one assignment.
type Entry struct {
	Key     string
	Value   string // as the loader reads it, with an empty environment around it
	Literal string // the same before ${NAME} is expanded; only Python expands
	Line    int    // of the key, from 1
	Bare    bool   // a key without "=": python-dotenv sees it and sets nothing

	key        int // where the key begins, in bytes
	start, end int // the value with its quotes, in bytes
}

// Parse reads data as loader d does. It fails with fail.Invalid where that
// loader fails, and on what no environment can hold: NUL bytes, more than
// MaxBytes or maxEntries, variables that expand without end.
func Parse(data []byte, d Dialect) (*File, error) {
	f := &File{data: bytes.Clone(data), dialect: d}
	if err := check(f.data, d); err != nil {
		return nil, err
	}
	var err error
	if f.entries, err = parse(f.data, d); err != nil {
		return nil, err
	}
	if len(f.entries) > maxEntries {
		return nil, unfit("it holds more than %d assignments", maxEntries)
	}
	return f, nil
}

func unfit(why string, args ...any) *fail.Error {
	return fail.New(fail.Invalid, "P-E031", "could not read this as a .env file").Because(why, args...)
}

func parse(data []byte, d Dialect) ([]Entry, error) {
	t := decode(data)
	var entries []Entry
	if d == Python {
		entries = parsePython(t)
	} else {
		entries = parseNode(t)
	}
	number(entries, data)
	if d == Python {
		return entries, expand(entries)
	}
	return entries, nil
}

func check(data []byte, d Dialect) error {
	if len(data) > MaxBytes {
		return unfit("it is larger than %d MiB", MaxBytes>>20)
	}
	if bytes.HasPrefix(data, []byte("\xff\xfe")) || bytes.HasPrefix(data, []byte("\xfe\xff")) {
		return unfit("it is UTF-16; loaders read UTF-8").Hint("iconv -f UTF-16 -t UTF-8 FILE   then put the result in its place")
	}
	if i := bytes.IndexByte(data, 0); i >= 0 {
		return unfit("line %d holds a NUL byte, which no environment variable can", lineOf(data, i))
	}
	if d == Python && !utf8.Valid(data) {
		return unfit("line %d is not UTF-8, and python-dotenv refuses the whole file", lineOf(data, firstInvalid(data)))
	}
	return nil
}

// lineOf counts as editors do: LF, CR LF and a lone CR end a line.
func lineOf(data []byte, at int) int {
	return 1 + lineEnds(data[:at], at < len(data) && data[at] == '\n')
}

func lineEnds(b []byte, lfFollows bool) int {
	n := bytes.Count(b, []byte{'\n'}) + bytes.Count(b, []byte{'\r'}) - bytes.Count(b, []byte("\r\n"))
	if lfFollows && bytes.HasSuffix(b, []byte{'\r'}) {
		n-- // the end of that line is not complete
	}
	return n
}

// number gives the entries, which stand in file order, their lines.
func number(entries []Entry, data []byte) {
	line, at := 1, 0
	for i := range entries {
		line += lineEnds(data[at:entries[i].key], false)
		entries[i].Line, at = line, entries[i].key
	}
}

// Dialect is the loader whose reading this is.
func (f *File) Dialect() Dialect { return f.dialect }

// Entries are all assignments in file order, duplicates included.
func (f *File) Entries() []Entry { return slices.Clone(f.entries) }

// Bytes is the file as it stands, to be written.
func (f *File) Bytes() []byte { return bytes.Clone(f.data) }

// Values are the variables that the loader ends with; of a duplicate the last
// one counts.
func (f *File) Values() map[string]string {
	values := map[string]string{}
	for _, e := range f.entries {
		if e.Bare {
			delete(values, e.Key) // None hides what stood before
			continue
		}
		values[e.Key] = e.Value
	}
	if f.dialect == Node {
		// An object of JavaScript takes no text under this name.
		maps.DeleteFunc(values, func(key, _ string) bool { return key == protoKey })
	}
	return values
}

const protoKey = "__proto__"

// Text is a piece of a line.
type Text struct {
	Line int
	Text string
}

// Outside is what stands in the file besides values: comments, names, lines that
// the loader does not read. A line with a value in it gives the pieces around
// it, which keep their "#".
func (f *File) Outside() []Text {
	var texts []Text
	line := 1
	add := func(b []byte) {
		for piece := range bytes.Lines(bytes.ReplaceAll(bytes.ReplaceAll(b, []byte("\r\n"), []byte("\n")), []byte("\r"), []byte("\n"))) {
			if text := bytes.TrimSpace(piece); len(text) > 0 {
				texts = append(texts, Text{line, string(text)})
			}
			if piece[len(piece)-1] == '\n' {
				line++
			}
		}
	}
	at := 0
	for _, e := range f.entries {
		if e.Bare {
			continue
		}
		add(f.data[at:e.start])
		line += lineEnds(f.data[e.start:e.end], false)
		at = e.end
	}
	add(f.data[at:])
	return texts
}
