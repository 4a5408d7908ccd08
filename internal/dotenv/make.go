package dotenv

import (
	"bytes"
	"slices"
	"strings"
)

// Variable is a line of a new file.
type Variable struct {
	Name    string
	Value   string
	Comment string // the lines above it, without "#"
}

// Init is a new .env file, or a new .env.example, that every one of loaders (by
// default both) reads as written. head is a comment at its top.
func Init(head string, variables []Variable, loaders ...Dialect) ([]byte, error) {
	var b bytes.Buffer
	comment(&b, head)
	for _, v := range variables {
		line, err := Line(v.Name, v.Value, loaders...)
		if err != nil {
			return nil, err
		}
		if v.Comment != "" && b.Len() > 0 {
			b.WriteByte('\n')
		}
		comment(&b, v.Comment)
		b.WriteString(line + "\n")
	}
	return b.Bytes(), nil
}

// comment writes text as comment lines. A quote in one is harmless: no loader
// looks into a comment.
func comment(b *bytes.Buffer, text string) {
	if text == "" {
		return
	}
	for line := range strings.Lines(text) {
		b.WriteString(strings.TrimRight("# "+strings.TrimRight(line, "\r\n"), " ") + "\n")
	}
}

// Example is f with template's text in the place of every value for which it
// gives one; comments and the other values stay. Forms are those that the
// file's own loader reads back.
func Example(f *File, template func(Entry) (text string, replace bool)) (*File, error) {
	entries, err := parse(f.data, f.dialect)
	if err != nil {
		return nil, err
	}
	copied := &File{data: bytes.Clone(f.data), dialect: f.dialect, entries: entries}
	for i := range copied.entries {
		if text, replace := template(copied.entries[i]); replace {
			if err := copied.SetLiteral(i, text); err != nil {
				return nil, err
			}
		}
	}
	return copied, nil
}

// ExampleName is the file that is meant to be shared.
const ExampleName = ".env.example"

// IgnoreLines are the lines that a .gitignore lacks to keep .env, .env.* and
// the other files named out of a repository, and to let .env.example in.
func IgnoreLines(gitignore []byte, others ...string) []string {
	wanted := []string{".env", ".env.*"}
	for _, name := range others {
		if name != ".env" && !strings.HasPrefix(name, ".env.") {
			wanted = append(wanted, name)
		}
	}
	var lines []string
	for l := range strings.SplitSeq(string(gitignore), "\n") {
		lines = append(lines, strings.TrimPrefix(strings.TrimSpace(l), "/"))
	}
	// What git takes is the last line that fits.
	last := func(names ...string) int {
		at := -1
		for i, l := range lines {
			if slices.Contains(names, l) {
				at = i
			}
		}
		return at
	}
	var missing []string
	for _, name := range wanted {
		covers := []string{name}
		if strings.HasPrefix(name, ".env") {
			covers = append(covers, ".env*")
		}
		if at := last(covers...); at < 0 || at < last("!"+name) {
			missing = append(missing, escaped(name))
		}
	}
	// The exception counts only after the rule that it lifts.
	if at := last("!" + ExampleName); at < 0 || at < last(".env.*", ".env*", ExampleName) || slices.Contains(missing, ".env.*") {
		missing = append(missing, "!"+ExampleName)
	}
	return missing
}

// escaped is a name as a pattern that fits only it; the patterns of ours stay.
func escaped(name string) string {
	if name == ".env.*" {
		return name
	}
	return strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`, "!", `\!`, "#", `\#`).Replace(name)
}
