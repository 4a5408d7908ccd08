package strictyaml_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"postern/internal/strictyaml"
)

const garden = `# the garden
beds: # all of them
  north:
    plants:
      - {name: rose, colours: [red, "white"]} # thorns
      - name: ivy
        colours:
        - green
    tools: [rake, 'spade']
  # south is dry
  south:
    plants:
    note: "a: b" # said
# the end
`

func TestEditsTouchNothingElse(t *testing.T) {
	at := func(keys ...string) func(*strictyaml.Node) *strictyaml.Node {
		return func(n *strictyaml.Node) *strictyaml.Node { return n.At(keys...) }
	}
	item := func(i int, keys ...string) func(*strictyaml.Node) *strictyaml.Node {
		return func(n *strictyaml.Node) *strictyaml.Node { return n.At(keys...).Item(i) }
	}
	addItem := func(text string) func(*strictyaml.Node) ([]byte, error) {
		return func(n *strictyaml.Node) ([]byte, error) { return n.AddItem(text) }
	}
	addKey := func(key, value string) func(*strictyaml.Node) ([]byte, error) {
		return func(n *strictyaml.Node) ([]byte, error) { return n.AddKey(key, value) }
	}
	set := func(text string) func(*strictyaml.Node) ([]byte, error) {
		return func(n *strictyaml.Node) ([]byte, error) { return n.SetScalar(text) }
	}
	remove := (*strictyaml.Node).Remove
	tests := []struct {
		name     string
		find     func(*strictyaml.Node) *strictyaml.Node
		edit     func(*strictyaml.Node) ([]byte, error)
		old, new string
	}{
		{"item of lines", at("beds", "north", "plants"), addItem("{name: oak}"), "        - green\n", "        - green\n      - {name: oak}\n"},
		{"item in brackets", at("beds", "north", "tools"), addItem("hoe"), "'spade']", "'spade', hoe]"},
		{"item below nothing", at("beds", "south", "plants"), addItem("fig"), "    plants:\n    note", "    plants:\n      - fig\n    note"},
		{"key of lines", at("beds", "south"), addKey("wet", "no"), "# said\n", "# said\n    wet: no\n"},
		{"key at the top", at(), addKey("paths", "{}"), "# said\n", "# said\npaths: {}\n"},
		{"key in braces", item(0, "beds", "north", "plants"), addKey("age", "3"), `"white"]}`, `"white"], age: 3}`},
		{"scalar in quotes", at("beds", "south", "note"), set("new"), `"a: b"`, "new"},
		{"scalar where nothing is", at("beds", "south", "plants"), set("[]"), "    plants:\n    note", "    plants: []\n    note"},
		{"first in brackets", item(0, "beds", "north", "tools"), remove, "rake, ", ""},
		{"last in brackets", item(1, "beds", "north", "tools"), remove, ", 'spade'", ""},
		{"item of one line", item(0, "beds", "north", "plants"), remove, "      - {name: rose, colours: [red, \"white\"]} # thorns\n", ""},
		{"item of lines out", item(1, "beds", "north", "plants"), remove, "      - name: ivy\n        colours:\n        - green\n", ""},
		{"key with all below", at("beds", "south"), remove, "  south:\n    plants:\n    note: \"a: b\" # said\n", ""},
		{"key in the middle", at("beds", "south", "plants"), remove, "    plants:\n    note", "    note"},
	}
	for _, test := range tests {
		for _, newline := range []string{"\n", "\r\n"} {
			t.Run(test.name+map[string]string{"\n": "", "\r\n": " CRLF"}[newline], func(t *testing.T) {
				in := strings.ReplaceAll(garden, "\n", newline)
				root, err := strictyaml.Outline("f", []byte(in))
				if err != nil {
					t.Fatal(err)
				}
				got, err := test.edit(test.find(root))
				if err != nil {
					t.Fatal(err)
				}
				i := strings.LastIndex(garden, test.old)
				want := garden[:i] + test.new + garden[i+len(test.old):]
				if diff := cmp.Diff(strings.ReplaceAll(want, "\n", newline), string(got)); diff != "" {
					t.Error(diff)
				}
			})
		}
	}
}

func TestEditsOfSmallFiles(t *testing.T) {
	tests := []struct{ name, in, want string }{
		{"empty", "", "k: {}\n"},
		{"comments", "# a\n# b\n", "# a\n# b\nk: {}\n"},
		{"no newline at the end", "a: 1", "a: 1\nk: {}\n"},
		{"empty braces", "{}\n", "\nk: {}\n"},
		{"braces", "{a: 1}", "{a: 1, k: {}}"},
		{"braces with a comma", "{a: 1, }", "{a: 1, k: {} }"},
		{"letters beyond ASCII", "é: ü # ñ\n", "é: ü # ñ\nk: {}\n"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			root, err := strictyaml.Outline("f", []byte(test.in))
			if err != nil {
				t.Fatal(err)
			}
			got, err := root.AddKey("k", "{}")
			if err != nil || string(got) != test.want {
				t.Errorf("got %q, %v, want %q", got, err, test.want)
			}
		})
	}
}

func TestEditsRefuseWhatTheyCannotKeep(t *testing.T) {
	tests := []struct {
		name, in string
		edit     func(*strictyaml.Node) ([]byte, error)
	}{
		{"text over lines", "a:\n  b: one\n    two\n", func(n *strictyaml.Node) ([]byte, error) { return n.At("a").AddKey("c", "1") }},
		{"block text", "a:\n  b: |\n    two\n", func(n *strictyaml.Node) ([]byte, error) { return n.AddKey("c", "1") }},
		{"alias", "x: &x [1]\na: *x\n", func(n *strictyaml.Node) ([]byte, error) { return n.At("a").AddItem("2") }},
		{"comment between items", "a: [1, # one\n  2]\n", func(n *strictyaml.Node) ([]byte, error) { return n.At("a").Item(1).Remove() }},
		{"key on the line of a dash", "a:\n  - b: 1\n    c: 2\n", func(n *strictyaml.Node) ([]byte, error) { return n.At("a").Item(0).At("b").Remove() }},
		{"item of a scalar", "a: 1\n", func(n *strictyaml.Node) ([]byte, error) { return n.At("a").AddItem("2") }},
		{"the whole", "a: 1\n", (*strictyaml.Node).Remove},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			root, err := strictyaml.Outline("f", []byte(test.in))
			if err != nil {
				t.Fatal(err)
			}
			if got, err := test.edit(root); !errors.Is(err, strictyaml.ErrForm) {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
}

func TestProblemShowsTheLine(t *testing.T) {
	root, err := strictyaml.Outline("f", []byte("a: 1\nb:\n  - xé\n  - y\n"))
	if err != nil {
		t.Fatal(err)
	}
	p := root.At("b").Item(1).Problem("f.yaml", "no", "")
	if p.Line != 4 || p.Column != 5 || p.Excerpt != "> 4 |   - y\n          ^" {
		t.Errorf("got %+v", p)
	}
}

func TestQuoteIsReadBack(t *testing.T) {
	for _, s := range []string{"", "a", "a.b", "true", "No", "12", "1e3", "*.x", "a b", "x:1", "[::1]:80", "é", "~", "a\n\t\x01\u2028", "/v1/*", `a"b\`, "-", "_a"} {
		var got struct {
			A []string `yaml:"a"`
		}
		if err := strictyaml.Decode("f", []byte("a: ["+strictyaml.Quote(s)+"]\n"), &got); err != nil || len(got.A) != 1 || got.A[0] != s {
			t.Errorf("%q was written as %s and read as %q, %v", s, strictyaml.Quote(s), got.A, err)
		}
	}
}

func TestTangledTextIsRefusedAtOnce(t *testing.T) {
	for _, part := range []string{"[", "{a: ", "- ", "? ", "&a ", "!t ", "a: b: "} {
		var c config
		if err := strictyaml.Decode("f", []byte(strings.Repeat(part, 50_000)), &c); err == nil || !strings.Contains(err.Error(), "nested") {
			t.Errorf("%q: %v", part, err)
		}
	}
}

func FuzzOutline(f *testing.F) {
	f.Add([]byte(garden))
	f.Add([]byte("a: [b, {c: d}]\n? x\n: y\n<<: *z\n"))
	f.Add([]byte("- - a\n-\n- \"\xff\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		root, err := strictyaml.Outline("f", data)
		if err != nil {
			return
		}
		var visit func(n *strictyaml.Node)
		visit = func(n *strictyaml.Node) {
			_, _ = n.AddItem("x")
			_, _ = n.AddKey("k", "v")
			_, _ = n.SetScalar("x")
			_, _ = n.Remove()
			_ = n.Problem("f", "text", "")
			for _, child := range n.Children {
				visit(child)
			}
		}
		visit(root)
	})
}
