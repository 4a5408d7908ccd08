package catalog

import (
	_ "embed"
	"encoding/json"
	"errors"
	"io"
	"os"
	"strings"

	"postern/internal/fail"
	"postern/internal/strictyaml"
)

// document is a provider's file.
type document struct {
	Provider string  `yaml:"provider" json:"provider"` // the file's name without .yaml
	Title    string  `yaml:"title"    json:"title"`
	Kinds    []*Kind `yaml:"kinds"    json:"kinds"`
}

// decoded holds the embedded files once more, each a line of JSON: decoding them
// all takes 1 ms instead of 20, and every command identifies something. A test
// keeps it equal to the files; `go test ./internal/catalog -update` writes it.
//
//go:embed providers.jsonl
var decoded string

// decodedLine is the line of provider.
func decodedLine(provider string) (string, bool) {
	head := "{\"provider\":\"" + provider + "\","
	for rest := decoded; rest != ""; {
		line, after, _ := strings.Cut(rest, "\n")
		if strings.HasPrefix(line, head) {
			return line, true
		}
		rest = after
	}
	return "", false
}

// load reads and decodes the file once. Of a file of the user only the kinds
// without a mistake are kept: what a pattern or a host list says wrongly must not
// send a key anywhere.
func (f *file) load() {
	f.once.Do(func() {
		if line, found := decodedLine(f.provider); found && f.embedded {
			var doc document
			if err := json.Unmarshal([]byte(line), &doc); err == nil {
				f.take(doc)
				return
			}
		}
		f.decode()
		if !f.embedded {
			f.keepSound()
		}
	})
}

// keepSound drops the kinds that do not pass the check of a kind by itself.
func (f *file) keepSound() {
	sound := f.kinds[:0]
	for _, k := range f.kinds {
		problems := k.check()
		if len(problems) == 0 {
			sound = append(sound, k)
		}
		f.problems = append(f.problems, problems...)
	}
	f.kinds = sound
}

// decode reads the YAML.
func (f *file) decode() {
	data, err := f.read()
	if err != nil {
		f.problems = fail.Problems{{File: f.name, Text: err.Error()}}
		return
	}
	var doc document
	if err := strictyaml.Decode(f.name, data, &doc); err != nil {
		if !errors.As(err, &f.problems) {
			f.problems = fail.Problems{{File: f.name, Text: err.Error()}}
		}
		return
	}
	if doc.Provider != f.provider {
		f.problems = append(f.problems, fail.Problem{
			File: f.name, Line: lineOf(data, 0, "provider:"),
			Text: "the provider must be called as the file is: " + f.provider,
		})
		return
	}
	f.take(doc)
}

func (f *file) take(doc document) {
	for _, k := range doc.Kinds {
		if k == nil {
			f.problems = append(f.problems, fail.Problem{File: f.name, Text: "a kind is empty"})
			continue
		}
		k.prepare(doc.Title, f)
		f.kinds = append(f.kinds, k)
	}
}

// readUser reads a file of the user: a plain file of at most the size that is
// decoded at all.
func readUser(name string) ([]byte, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("it is not a plain file")
	}
	in, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	return io.ReadAll(io.LimitReader(in, strictyaml.MaxBytes+1))
}
