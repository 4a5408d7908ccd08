package dotenv

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// tokens are what nasty files are made of.
var tokens = []string{
	"A", "B", "KEY", "a.b-c", "__proto__", "export", "export ", "=", "=", "=", ":", ": ", "'", "'", "\"", "\"", "`", "#", " #", "\\", "\\n", "\\r", "\\\"", "\\'",
	"\\\\", "$", "${A}", "${B:-d}", "${", "}", "$A", "\n", "\n", "\n", "\r\n", "\r", " ", "\t", "x", "1", "é", "😀", "\ufeff", "\u2028", "\u2029", "\u00a0", "\u0085",
	"\u3000", "\v", "\f", "\x1c", "\x1f", ",", "+", "A=", "\nB=", "\nA=\"", "\nB='", "KEY=\"x\"", "\xff", "\xe2\x82", "\xed\xa0\x80", "\xf0\x9f", "\xc0\xaf",
}

func nastyFile(r *rand.Rand) []byte {
	var b bytes.Buffer
	for range 1 + r.IntN(24) {
		token := tokens[r.IntN(len(tokens))]
		if token[0] >= 0x80 && !strings.Contains("é😀\ufeff\u2028\u2029\u00a0\u0085\u3000", token) && r.IntN(8) > 0 {
			continue // python-dotenv refuses a file that is not UTF-8: only a few of those
		}
		b.WriteString(token)
	}
	return b.Bytes()
}

func nastyFiles(t *testing.T, n int) [][]byte {
	t.Helper()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	files := make([][]byte, 0, n)
	for range n {
		files = append(files, nastyFile(r))
	}
	return files
}

// ownInputs are the cases in which the dialects split, and some more.
func ownInputs() [][]byte {
	var inputs [][]byte
	for _, text := range []string{
		"", "\n", "A=x#y", "A=x #y", "A= #y", "A=#y", "A=\"a\\tb\"", "A=\"a\\nb\"", "A=\"a\\\"b\"", "A=\"a\\\\b\"", "A='a\\'b'", "A=`x y`", "A=$B", "B=1\nA=\"${B}\"", "B=1\nA='${B}'",
		"A=${Q:-d}", "A=$2a$10$abc", "A: x", "A:x", "A", "A=1\nA", "\ufeffA=1", "a-b=x", "A=\"x\" y", "A=\"x\nB=2", "A\n=v", "export A=1", "export A", "export=1", "export export=1",
		"A=1\r\nB='x\r\ny'\r\n", "A=1\rB=2", "A=a=b", "A==", "=x", "A=''", "A=\"\"", "A=\"a\nb\"", "A='it's'", "A='x' # y", "A='x'#y", "A=x\\", "A='x\\'", "'A'=1", "'A B'=1",
		"A=\"${A}${A}\"", "A=${", "A=${}", "A=${A", "A=x\nB=${A}${A}\nC=${B}${B}", "A = b", " A=b", "\tA=b\t", "A+=b", "A[0]=b", "A=\u2028x", "A='x\u2028'y'", "A=x\u2028B=2",
		"A=1\nA=2\n", "A=\"x\"\"y\"", "A=x y # z", "A=x\t#z", "A=\"x\" #\"", "A=\"#\" #\"", "A='x' 'y'", "A=\"x\\\" # y\"", "#A=1", "# A='\nB=1\n#'", "A='\n#x\n'",
	} {
		inputs = append(inputs, []byte(text))
	}
	return inputs
}

// differs compares our reading with the real one; it is empty where they agree.
func differs(input []byte, d Dialect, want answer) string {
	if bytes.IndexByte(input, 0) >= 0 {
		return "" // refused on purpose
	}
	f, err := Parse(input, d)
	if want.Refused || err != nil {
		if want.Refused == (err != nil) {
			return ""
		}
		return fmt.Sprintf("refused: %v, the library refuses: %v", err, want.Refused)
	}
	if diff := cmp.Diff(want.Values, f.Values(), cmpopts.EquateEmpty()); diff != "" {
		return diff
	}
	if d == Node {
		return ""
	}
	var entries [][2]*string
	for _, e := range f.Entries() {
		if pair := [2]*string{&e.Key, &e.Literal}; e.Bare {
			entries = append(entries, [2]*string{&e.Key, nil})
		} else {
			entries = append(entries, pair)
		}
	}
	return cmp.Diff(want.Entries, entries, cmpopts.EquateEmpty())
}

// conform fails on the first ten inputs that are read otherwise.
func conform(t *testing.T, o oracle, more [][]byte) {
	t.Helper()
	inputs, answers := o.ask(t, more, true)
	if len(inputs) != len(answers) {
		t.Fatalf("%d answers to %d inputs", len(answers), len(inputs))
	}
	wrong := 0
	for i, input := range inputs {
		if diff := differs(input, o.dialect, answers[i]); diff != "" {
			if wrong++; wrong <= 10 {
				t.Errorf("%q (-%s +ours):\n%s", input, o.dialect.Library(), diff)
			}
		}
	}
	if wrong > 0 {
		t.Errorf("%d of %d inputs are read otherwise", wrong, len(inputs))
	}
}

func TestReadsAsNodesDotenv(t *testing.T) {
	t.Parallel()
	conform(t, nodeOracle(t).withSuites(t), append(ownInputs(), nastyFiles(t, 5000)...))
}

func TestReadsAsPythonDotenv(t *testing.T) {
	t.Parallel()
	conform(t, pythonOracle(t).withSuites(t), append(ownInputs(), nastyFiles(t, 5000)...))
}

// unique says whether key stands at one place only, for both dialects: the
// libraries tell only of the last one.
func unique(file []byte, place int, key string) bool {
	for _, d := range []Dialect{Node, Python} {
		entries, _ := parse(file, d)
		for _, e := range entries {
			if (e.Key == key) != (e.key == place) {
				return false
			}
		}
	}
	return true
}

// What Set writes is read back by the real libraries, and everything else in
// the file as before.
func TestTheLibrariesReadWhatSetWrites(t *testing.T) {
	t.Parallel()
	oracles := []oracle{nodeOracle(t), pythonOracle(t)}
	var before, after [][]byte
	var key, value []string
	refused := 0
	r := rand.New(rand.NewPCG(rand.Uint64(), 2))
	for len(after) < 2000 {
		file, text := nastyFile(r), string(nastyFile(r))
		f, err := Parse(file, Dialect(r.IntN(2)))
		if err != nil || len(f.Entries()) == 0 {
			continue
		}
		e := f.Entries()[len(f.Entries())-1]
		if !unique(file, e.key, e.Key) {
			continue
		}
		if err := f.Set(len(f.Entries())-1, text, Node, Python); err != nil {
			refused++
			continue
		}
		before, after, key, value = append(before, file), append(after, f.Bytes()), append(key, e.Key), append(value, text)
	}
	t.Logf("%d written, %d refused", len(after), refused)
	for _, o := range oracles {
		_, was := o.ask(t, before, false)
		_, is := o.ask(t, after, false)
		wrong := 0
		for i := range after {
			want := was[i].Values
			old, seen := want[key[i]]
			got, sees := is[i].Values[key[i]]
			delete(want, key[i])
			delete(is[i].Values, key[i])
			expanded := o.dialect == Python && bytes.Contains(after[i], []byte("${")) // of others, with this one in it
			switch {
			case key[i] == protoKey, is[i].Refused:
			case (sees || seen) && got != value[i], !expanded && !cmp.Equal(want, is[i].Values, cmpopts.EquateEmpty()):
				if wrong++; wrong <= 10 {
					t.Errorf("%s: %s = %q written into %q gave %q: %q, before %q, %v", o.dialect, key[i], value[i], before[i], after[i], got, old, is[i].Values)
				}
			}
		}
	}
}
