package catalog

import (
	"errors"
	"io"
	"os"

	"postern/internal/fail"
	"postern/internal/strictyaml"
)

// document is a provider's file.
type document struct {
	Provider string  `yaml:"provider"` // the file's name without .yaml
	Title    string  `yaml:"title"`
	Kinds    []*Kind `yaml:"kinds"`
}

// load reads and decodes the file once.
func (f *file) load() {
	f.once.Do(func() {
		data, err := f.read()
		if err != nil {
			f.problems = fail.Problems{{File: f.name, Text: err.Error()}}
			return
		}
		f.decode(data)
	})
}

func (f *file) decode(data []byte) {
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
	for _, k := range doc.Kinds {
		if k == nil {
			f.problems = append(f.problems, fail.Problem{File: f.name, Text: "a kind is empty"})
			continue
		}
		k.prepare(doc.Title, f, data)
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
