package strictyaml_test

import (
	"errors"
	"strings"
	"testing"

	"postern/internal/fail"
	"postern/internal/strictyaml"
)

type config struct {
	Name string         `yaml:"name"`
	Dial map[string]int `yaml:"dial"`
}

func TestDecodeRefusesAndShowsTheLine(t *testing.T) {
	tests := []struct {
		name, in string
		line     int
		text     string
	}{
		{"unknown field", "name: a\nnmae: b\n", 2, "nmae"},
		{"wrong type", "name: a\ndial:\n  x: many\n", 3, "cannot"},
		{"repeated key", "name: a\nname: b\n", 2, "name"},
		{"NUL byte", "name: a\n\x00", 2, "NUL"},
		{"unclosed quote", "name: \"a\n", 1, ""},
		{"two documents", "name: a\n---\nname: b\n", 0, "more than one document"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var c config
			err := strictyaml.Decode("f.yaml", []byte(test.in), &c)
			var problems fail.Problems
			if !errors.As(err, &problems) {
				t.Fatalf("got %v, want problems", err)
			}
			if problems[0].Line != test.line || !strings.Contains(problems[0].Text, test.text) {
				t.Errorf("got %+v, want line %d and %q", problems[0], test.line, test.text)
			}
		})
	}
}

func TestDecodeReads(t *testing.T) {
	var c config
	if err := strictyaml.Decode("f.yaml", []byte("# c\nname: a\ndial:\n  x: 3\n"), &c); err != nil || c.Name != "a" || c.Dial["x"] != 3 {
		t.Fatalf("got %+v, %v", c, err)
	}
	if err := strictyaml.Decode("f.yaml", nil, &c); err != nil {
		t.Fatalf("empty file: %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte("name: a\n"))
	f.Add([]byte("a: &x [*x]\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		var c config
		_ = strictyaml.Decode("f.yaml", data, &c)
	})
}
