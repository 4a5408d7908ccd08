package cli

import (
	"bytes"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/spf13/cobra"
)

func helpOf(cmd *cobra.Command) string {
	var b bytes.Buffer
	cmd.InitDefaultHelpFlag()
	writeHelp(&b, cmd)
	return b.String()
}

func TestHelpFitsATerminalAndShowsHow(t *testing.T) {
	every(func(path string, cmd *cobra.Command) {
		text := helpOf(cmd)
		for line := range strings.Lines(text) {
			if n := utf8.RuneCountInString(strings.TrimRight(line, "\n")); n > columns {
				t.Errorf("%s --help has a line of %d columns: %s", path, n, line)
			}
		}
		if cmd.Short == "" || cmd.Example == "" && !strings.Contains(text, "Usage\n") {
			t.Errorf("%s --help says neither what it is for nor how to use it", path)
		}
		if strings.Contains(text, "`") {
			t.Errorf("%s --help shows a backquote: the name of a flag's value is a word of its own", path)
		}
	})
}

func TestOverviewIsShort(t *testing.T) {
	w := newWorld(t)
	if out := w.must(0); strings.Count(out, "\n") > 24 {
		t.Errorf("postern alone shows more than 24 lines:\n%s", out)
	}
}

func TestFlagsAreSaidInTheSameWords(t *testing.T) {
	allowed := map[string]string{"h": "help", "q": "quiet", "y": "yes", "n": "lines"}
	every(func(path string, cmd *cobra.Command) {
		for short, name := range allowed {
			if f := cmd.Flags().ShorthandLookup(short); f != nil && f.Name != name {
				t.Errorf("%s: -%s is --%s, elsewhere --%s", path, short, f.Name, name)
			}
		}
	})
}

func TestExamplesAreCommandLines(t *testing.T) {
	every(func(path string, cmd *cobra.Command) {
		for line := range strings.Lines(cmd.Example) {
			line = strings.TrimSpace(line)
			if len(ours(line)) == 0 {
				t.Errorf("%s: the example %q holds no command of ours", path, line)
			}
			if err := checkLine(line); err != nil {
				t.Errorf("%s: %v", path, err)
			}
		}
	})
}

func TestSlipsAreUnderstood(t *testing.T) {
	cases := []struct {
		line, next string
	}{
		{"statsu", "postern status"},
		{"stat", "postern status"},
		{"secret lss", "postern secret ls"},
		{"policy tset GET https://x.example", "postern policy test"},
		{"setup --agnet bot", "postern setup --agent"},
		{"help secrte", "postern secret"},
		{"undo 1 2", "postern undo --help"},
		{"secret show", "postern secret show --help"},
		{"qqqqqq", "postern --help"},
	}
	w := newWorld(t)
	for _, c := range cases {
		t.Run(c.line, func(t *testing.T) {
			code, out, talk := w.run(strings.Fields(c.line)...)
			if code != 2 || out != "" || !strings.Contains(talk, "P-E001") || !strings.Contains(talk, "next  "+c.next+"\n") {
				t.Errorf("exit code %d, want 2 and the hint %q:\n%s%s", code, c.next, out, talk)
			}
		})
	}
}

func TestNear(t *testing.T) {
	for _, c := range []struct {
		typed, name string
		want        bool
	}{
		{"status", "status", true}, {"sttaus", "status", true}, {"stat", "status", true}, {"s", "status", false},
		{"list", "ls", false}, {"rn", "run", true}, {"xyz", "run", false}, {"", "ls", false},
	} {
		if got := near(c.typed, c.name); got != c.want {
			t.Errorf("near(%q, %q) = %v", c.typed, c.name, got)
		}
	}
}

func FuzzNear(f *testing.F) {
	f.Add("statsu", "status")
	f.Add("", "")
	f.Add("\xff", "é")
	f.Fuzz(func(t *testing.T, typed, name string) {
		if len(typed) > 100 || len(name) > 100 {
			t.Skip()
		}
		if typed == name && !near(typed, name) {
			t.Errorf("%q is not near itself", name)
		}
	})
}
