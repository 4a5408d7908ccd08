package dotenv

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestCompareNamesTheLines(t *testing.T) {
	t.Parallel()
	cases := []struct{ name, file, want string }{
		{"nothing", "# c\nA=1\nexport B='x y' # z\nC=\"1\n2\"\n", ""},
		{"comment", "A=1\nB=x#y\n", "2 B is read differently: Node's dotenv takes # for"},
		{"variable", "A=1\nB=\"${A}\"", "2 B is read differently: python-dotenv puts a variable"},
		{"variable that stays the same", "A=${", ""},
		{"escape", `A="a\tb"`, `1 A is read differently: the two know other escapes`},
		{"escape in single quotes", `A='a\\b'`, `1 A is read differently: the two know other escapes`},
		{"backticks", "A=`x`", "1 A is read differently: only Node's dotenv takes ` for quotes"},
		{"colon", "A: x", `1 A is read differently: only Node's dotenv takes ":"`},
		{"quotes", `A="x" y`, "1 A is read differently: only Node's dotenv reads quotes that do not end"},
		{"unclosed", "A='x", "1 A is read differently: only Node's dotenv reads quotes that do not end"},
		{"key alone", "A", ""},
		{"key alone after a value", "A=1\nA", `2 A is read differently: only python-dotenv reads a name without "="`},
		{"name", "A+=1", "1 A+ is read differently: only python-dotenv reads such a name"},
		{"value of the next line", "A\n=x", `1 A is read differently: Node's dotenv takes the "="`},
		{"not UTF-8", "A=1\nB=\xff", "2 the file is read differently: it is not UTF-8"},
		{"refused by both", "A=\x00", ""},
	}
	for _, tc := range cases {
		var lines []string
		for _, d := range Compare([]byte(tc.file)) {
			lines = append(lines, fmt.Sprintf("%d %s", d.Line, d))
		}
		got := strings.Join(lines, "\n")
		if tc.want == "" && got != "" || !strings.HasPrefix(got, tc.want) {
			t.Errorf("%s: got %q", tc.name, got)
		}
	}
}

// Where Compare names nothing, both loaders end with the same.
func TestCompareMissesNothing(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(3, 4))
	agreed := 0
	for range 20000 {
		file := nastyFile(r)
		if len(Compare(file)) > 0 {
			continue
		}
		node, err := Parse(file, Node)
		if err != nil {
			t.Fatal(err)
		}
		python, err := Parse(file, Python)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(node.Values(), python.Values()); diff != "" {
			t.Fatalf("%q: %s", file, diff)
		}
		agreed++
	}
	if agreed < 1000 {
		t.Errorf("only %d files on which they agree", agreed)
	}
}
