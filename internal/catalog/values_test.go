package catalog_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"postern/internal/catalog"
)

// The sample stands in a public discussion of the format, marked as a dummy.
func TestCRC62(t *testing.T) {
	if got := catalog.CRC62("qkJaB6MffYVzZXWq" + "mcoF49yrUxP3wf"); got != "0LsakP" {
		t.Errorf("got %q, want 0LsakP", got)
	}
}

func TestAddressPart(t *testing.T) {
	tests := []struct{ value, part, want string }{
		{"postgres://u:pw@h/d", "password", "pw"},
		{"postgres://u:p@w@h/d", "password", "p@w"},
		{"postgres://u:p/w@h/d", "password", "p/w"},
		{"postgres://u:p:w@h/d", "password", "p:w"},
		{"postgres://u:pw@h/d?x=a@b", "password", "pw"},
		{"postgres://u:p?w@h/d", "password", "p?w"},
		{"postgres://:pw@h", "password", "pw"},
		{"postgres://u@h/d", "password", ""},
		{"postgres://u:@h/d", "password", ""},
		{"postgres://h:5432/d", "password", ""},
		{"u:pw@h", "password", ""},
		{"https://h/a/b", "last", "b"},
		{"https://h/a/b/?q=1", "last", "b"},
		{"https://h/", "last", ""},
		{"https://h", "last", ""},
	}
	for _, test := range tests {
		got := ""
		if start, end, ok := catalog.AddressPart(test.value, test.part); ok {
			got = test.value[start:end]
		}
		if got != test.want {
			t.Errorf("%s of %q: got %q, want %q", test.part, test.value, got, test.want)
		}
	}
}

func TestSplit(t *testing.T) {
	tests := []struct {
		value string
		want  []string
	}{
		{"one", []string{"one"}},
		{"", []string{""}},
		{"a,b", []string{"a", "b"}},
		{` a ; "b" ` + "\r\n'c'", []string{"a", "b", "c"}},
		{"[a, b]", []string{"a", "b"}},
		{",,a,,", []string{"a"}},
		{",,", []string{",,"}},
		{`{"a":1,"b":2}`, []string{`{"a":1,"b":2}`}},
		{"mongodb://u:p@a:1,b:2/d", []string{"mongodb://u:p@a:1,b:2/d"}},
		{"redis://:p@a:1,redis://:p@b:2", []string{"redis://:p@a:1", "redis://:p@b:2"}},
	}
	for _, test := range tests {
		var got []string
		for _, p := range catalog.Split(test.value) {
			got = append(got, test.value[p[0]:p[1]])
		}
		if !cmp.Equal(got, test.want) {
			t.Errorf("Split(%q): got %q, want %q", test.value, got, test.want)
		}
	}
}

func TestParseTemplateNamesMistakes(t *testing.T) {
	for form, want := range map[string]string{
		"a{alnum":        "not closed",
		"{nothing:3}":    "no class",
		"{alnum:x}":      "is no number",
		"{alnum:3-x}":    "out of range",
		"{alnum:0}":      "out of range",
		"{alnum:5-4}":    "out of range",
		"{alnum:999999}": "out of range",
	} {
		if _, err := catalog.ParseTemplate(form); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", form, err, want)
		}
	}
}

// A template's values have the lengths and characters that it says.
func TestTemplateValuesHaveTheirForm(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		class := rapid.SampledFrom([]string{"lower", "digit", "alnum", "hex", "base32", "b64u", "b64", "bech32"}).Draw(t, "class")
		low := rapid.IntRange(1, 60).Draw(t, "low")
		high := rapid.IntRange(low, 80).Draw(t, "high")
		p := catalog.Piece{Class: class, Min: low, Max: high}
		value, err := catalog.Template{{Literal: "x-"}, p}.Generate(stream(rapid.Byte().Draw(t, "seed")))
		if err != nil {
			t.Fatal(err)
		}
		body, found := strings.CutPrefix(value, "x-")
		alphabet, _ := catalog.Alphabet(class)
		if !found || len(body) < low || len(body) > high || strings.Trim(body, alphabet) != "" {
			t.Fatalf("got %q for %+v", value, p)
		}
	})
}

func TestAllows(t *testing.T) {
	c := open(t)
	tests := []struct {
		kind, host string
		want       bool
	}{
		{"anthropic.api", "api.anthropic.com", true},
		{"anthropic.api", "API.Anthropic.com:443", true},
		{"anthropic.api", "api.anthropic.com:8443", false},
		{"anthropic.api", "api.anthropic.com.evil.example", false},
		{"anthropic.api", "xapi.anthropic.com", false},
		{"discord.bot", "gateway-us-east1-b.discord.gg", true},
		{"discord.bot", "discord.gg", false},
		{"discord.bot", "evildiscord.gg", false},
		{"generic", "api.example.com", false},
	}
	for _, test := range tests {
		k, err := c.Kind(test.kind)
		if err != nil {
			t.Fatal(err)
		}
		if got := k.Allows(test.host); got != test.want {
			t.Errorf("%s to %s: got %v, want %v", test.kind, test.host, got, test.want)
		}
	}
}

func TestRecordAlwaysHasItsLists(t *testing.T) {
	for _, k := range kinds(t) {
		r := k.Record()
		if r.Hosts == nil || r.Env == nil || r.ID == "" || r.Provider == "" || r.Basis == "" || r.Source == "" {
			t.Errorf("%s: %+v lacks something", k.ID, r)
		}
	}
	if n := len(kinds(t)); n < 45 {
		t.Errorf("%d kinds, want at least 45", n)
	}
}

func TestUnknownKind(t *testing.T) {
	for _, id := range []string{"", ".", "nobody.api", "anthropic.nothing", "../x"} {
		if k, err := open(t).Kind(id); err == nil {
			t.Errorf("%q: got %s", id, k.ID)
		}
	}
}
