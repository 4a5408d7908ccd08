package dotenv

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"postern/internal/fail"
)

func TestValues(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name, file   string
		node, python map[string]string
	}{
		{"comment without space", "A=x#y", map[string]string{"A": "x"}, map[string]string{"A": "x#y"}},
		{"escape in quotes", `A="a\tb"`, map[string]string{"A": `a\tb`}, map[string]string{"A": "a\tb"}},
		{"escaped quote", `A="a\"b"`, map[string]string{"A": `a\"b`}, map[string]string{"A": `a"b`}},
		{"backticks", "A=`x y`", map[string]string{"A": "x y"}, map[string]string{"A": "`x y`"}},
		{"variable", "B=1\nA='${B}'", map[string]string{"A": "${B}", "B": "1"}, map[string]string{"A": "1", "B": "1"}},
		{"default", "A=${Q:-d}", map[string]string{"A": "${Q:-d}"}, map[string]string{"A": "d"}},
		{"colon", "A: x", map[string]string{"A": "x"}, map[string]string{}},
		{"key alone unsets", "A=1\nA\n", map[string]string{"A": "1"}, map[string]string{}},
		{"text after quotes", `A="x" y`, map[string]string{"A": `"x" y`}, map[string]string{}},
		{"unclosed", "A=\"x\nB=2", map[string]string{"A": `"x`, "B": "2"}, map[string]string{"B": "2"}},
		{"mark, ends, export, quotes", "\xef\xbb\xbfexport A='x' # c\r\nB=\"1\r\n2\"\r\n", map[string]string{"A": "x", "B": "1\n2"}, map[string]string{"A": "x", "B": "1\n2"}},
		{"last one counts", "A=1\nA=2", map[string]string{"A": "2"}, map[string]string{"A": "2"}},
		{"no object takes it", "__proto__=x", map[string]string{}, map[string]string{"__proto__": "x"}},
	}
	for _, tc := range cases {
		for d, want := range map[Dialect]map[string]string{Node: tc.node, Python: tc.python} {
			f, err := Parse([]byte(tc.file), d)
			if err != nil {
				t.Fatal(err)
			}
			got := f.Values()
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s, %s: %s", tc.name, d, diff)
			}
		}
	}
}

func TestEntriesHaveTheirLines(t *testing.T) {
	t.Parallel()
	f, err := Parse([]byte("# c\r\nA=1\rB='x\ny'\n\nexport C=3"), Node)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]int{}
	for _, e := range f.Entries() {
		got[e.Key] = e.Line
	}
	if diff := cmp.Diff(map[string]int{"A": 2, "B": 3, "C": 6}, got); diff != "" {
		t.Error(diff)
	}
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	laughs := strings.Repeat("x", 100) + "\n"
	for c := 'B'; c <= 'Z'; c++ {
		laughs += string(c) + "=" + strings.Repeat("${"+string(c-1)+"}", 10) + "\n"
	}
	cases := []struct {
		name, file, want string
		only             []Dialect
	}{
		{"NUL", "A=1\nB=\x00", "line 2", []Dialect{Node, Python}},
		{"large", strings.Repeat("#", MaxBytes+1), "larger than 4 MiB", []Dialect{Node, Python}},
		{"endless", strings.Repeat("A=1\n", maxEntries+1), "more than 10000 assignments", []Dialect{Node, Python}},
		{"UTF-16", "\xff\xfeA\x00", "UTF-16", []Dialect{Node, Python}},
		{"not UTF-8", "A=1\r\nB=\xff", "line 2", []Dialect{Python}},
		{"endless expansion", "A=" + laughs, "expand", []Dialect{Python}},
	}
	for _, tc := range cases {
		for _, d := range tc.only {
			_, err := Parse([]byte(tc.file), d)
			if !fail.Is(err, fail.Invalid) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%s, %s: %v", tc.name, d, err)
			}
		}
	}
	if f, err := Parse([]byte("A=\xff\xe2\x82x"), Node); err != nil || f.Values()["A"] != "\ufffd\ufffdx" {
		t.Errorf("not UTF-8 in Node: %v, %q", err, f.Values())
	}
}

func TestSetTouchesNothingElse(t *testing.T) {
	t.Parallel()
	both := []Dialect{Node, Python}
	cases := []struct {
		name, file, value, want string
		loaders                 []Dialect
	}{
		{"plain", "A=x\n", "y", "A=y\n", both},
		{"quotes stay", "A='x' # c\r\n", "y", "A='y' # c\r\n", both},
		{"double quotes stay", "\ufeffexport A=\"x\"  # c", "y", "\ufeffexport A=\"y\"  # c", both},
		{"space stays", "  A  =   x   # c\n", "y", "  A  =   y   # c\n", both},
		{"empty", "A=\nB=1\n", "y", "A=y\nB=1\n", both},
		{"empty with comment", "A= # c\n", "y", "A=y # c\n", both},
		{"no last line end", "A=x", "y", "A=y", both},
		{"the first of two", "A=x\nA=z\n", "y", "A=y\nA=z\n", both},
		{"needs quotes", "A=x\n", "y # z", "A='y # z'\n", both},
		{"needs other quotes", "A='x'\n", "it's", "A=it's\n", both},
		{"several lines", "A=x\nB=1\n", "1\n2", "A='1\n2'\nB=1\n", both},
		{"several lines, other ends", "A=x\r\nB=1\r\n", "1\n2", "A='1\r\n2'\r\nB=1\r\n", both},
		{"from several lines", "A=\"1\r\n2\"\r\nB=1\r\n", "y", "A=\"y\"\r\nB=1\r\n", both},
		{"carriage return", "A=x\n", "1\r2", "A=\"1\\r2\"\n", both},
		{"comment of one dialect", "A=x#y\n", "z", "A='z'#y\n", both},
		{"backticks", "A=`x`\n", "y", "A=y\n", both},
		{"backticks for Node", "A=`x`\n", "y", "A=`y`\n", []Dialect{Node}},
		{"unclosed", "A=\"x\nB=2\n", "y", "A=y\nB=2\n", both},
		{"colon, which only one reads", "A: x\n", "y", "A: y\n", both},
		{"dollar", "A=x\n", "$2a$10$abc", "A=$2a$10$abc\n", both},
		{"variable for Node", "A=x\n", "${B}", "A=${B}\n", []Dialect{Node}},
		{"not UTF-8 elsewhere", "B=\xff\nA=x\n# \xfe\n", "y", "B=\xff\nA=y\n# \xfe\n", []Dialect{Node}},
	}
	for _, tc := range cases {
		f, err := Parse([]byte(tc.file), Node)
		if err != nil {
			t.Fatal(err)
		}
		at := 0
		for i, e := range f.Entries() {
			if e.Key == "A" {
				at = i
				break
			}
		}
		if err := f.Set(at, tc.value, tc.loaders...); err != nil {
			t.Errorf("%s: %v", tc.name, err)
			continue
		}
		if diff := cmp.Diff(tc.want, string(f.Bytes())); diff != "" {
			t.Errorf("%s: %s", tc.name, diff)
		}
	}
}

func TestSetRefusesWhatWouldNotBeReadBack(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name, file, value string
		loaders           []Dialect
	}{
		{"variable for Python", "A=x", "a${B}c", []Dialect{Node, Python}},
		{"all quotes and a comment", "A=x", "'\"` # z'\"`#", []Dialect{Node, Python}},
		{"NUL", "A=x", "\x00", []Dialect{Node}},
		{"for a loader that refuses the file", "A=x\n# \xff", "y", []Dialect{Node, Python}},
		{"too large", "A=x", strings.Repeat("y", MaxBytes), []Dialect{Node}},
	}
	for _, tc := range cases {
		f, err := Parse([]byte(tc.file), Node)
		if err != nil {
			t.Fatal(err)
		}
		err = f.Set(0, tc.value, tc.loaders...)
		if !fail.Is(err, fail.Invalid) || string(f.Bytes()) != tc.file {
			t.Errorf("%s: %v, the file is %q", tc.name, err, f.Bytes())
		}
		if err != nil && len(tc.value) > 1 && strings.Contains(err.Error(), tc.value) {
			t.Errorf("%s: the error shows the value", tc.name)
		}
	}
	f, err := Parse([]byte("A"), Python)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Set(0, "y"); !fail.Is(err, fail.Invalid) {
		t.Errorf("a key alone: %v", err)
	}
}

func TestSetLiteralKeepsVariables(t *testing.T) {
	t.Parallel()
	f, err := Parse([]byte("H=h\nA=https://${H}/?k=x\n"), Python)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.SetLiteral(1, "https://${H}/?k=y", Node, Python); err != nil {
		t.Fatal(err)
	}
	if got := f.Entries()[1]; got.Value != "https://h/?k=y" || got.Literal != "https://${H}/?k=y" {
		t.Errorf("%+v", got)
	}
}

func TestInitAndExample(t *testing.T) {
	t.Parallel()
	data, err := Init("The settings of the bot.\nNot for git.", []Variable{{Name: "A", Value: "x # y", Comment: "the first"}, {Name: "B"}})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff("# The settings of the bot.\n# Not for git.\n\n# the first\nA='x # y'\nB=\n", string(data)); diff != "" {
		t.Error(diff)
	}
	f, err := Parse(data, Node)
	if err != nil {
		t.Fatal(err)
	}
	example, err := Example(f, func(e Entry) (string, bool) { return "your-" + strings.ToLower(e.Key), e.Key == "A" })
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff("# The settings of the bot.\n# Not for git.\n\n# the first\nA='your-a'\nB=\n", string(example.Bytes())); diff != "" {
		t.Error(diff)
	}
	if !bytes.Equal(f.Bytes(), data) {
		t.Error("the original was changed")
	}
	for _, name := range []string{"", "a b", "A=B", "#A", "export A", "'A'", "A\nB"} {
		if _, err := Init("", []Variable{{Name: name}}); !fail.Is(err, fail.Invalid) {
			t.Errorf("a variable called %q: %v", name, err)
		}
	}
}

func TestIgnoreLines(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name, file string
		others     []string
		want       []string
	}{
		{"nothing there", "", nil, []string{".env", ".env.*", "!.env.example"}},
		{"all there", ".env\n.env.*\n!.env.example\n", nil, nil},
		{"one pattern for all", "/.env*\r\n!.env.example\r\n", nil, nil},
		{"exception too early", "!.env.example\n.env\n.env.*\n", nil, []string{"!.env.example"}},
		{"lifted again", ".env\n.env.*\n!.env\n!.env.example", nil, []string{".env"}},
		{"other names", ".env\n.env.*\n!.env.example\n", []string{".env", ".env.local", "prod.env", "a[1].env"}, []string{"prod.env", `a\[1].env`}},
	}
	for _, tc := range cases {
		if diff := cmp.Diff(tc.want, IgnoreLines([]byte(tc.file), tc.others...)); diff != "" {
			t.Errorf("%s: %s", tc.name, diff)
		}
	}
}

func TestDialectNames(t *testing.T) {
	t.Parallel()
	for _, d := range []Dialect{Node, Python} {
		if got, err := ParseDialect(d.String()); err != nil || got != d {
			t.Errorf("%s: %v, %v", d, got, err)
		}
	}
	if _, err := ParseDialect("ruby"); !fail.Is(err, fail.Invalid) {
		t.Errorf("got %v", err)
	}
}

func TestOutsideIsAllButTheValues(t *testing.T) {
	t.Parallel()
	f, err := Parse([]byte("\ufeff# head\r\nexport A=\"1\r\n2\" # two\r\n\r\nnonsense\rB=x#y\n# last"), Node)
	if err != nil {
		t.Fatal(err)
	}
	want := []Text{{1, "\ufeff# head"}, {2, "export A="}, {3, "# two"}, {5, "nonsense"}, {6, "B="}, {6, "#y"}, {7, "# last"}}
	if diff := cmp.Diff(want, f.Outside()); diff != "" {
		t.Error(diff)
	}
}
