package term_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"postern/internal/fail"
	"postern/internal/term"
)

func TestSafeShowsNothingThatSteersTheTerminal(t *testing.T) {
	for text, want := range map[string]string{
		"plain ü €":   "plain ü €",
		"a\x1b[31mb":  `a\u001b[31mb`,
		"x\u202ey":    `x\u202ey`,
		"bad\xffbyte": `bad\ufffdbyte`,
		"two\nlines":  `two\u000alines`,
	} {
		if got := term.Safe(text); got != want {
			t.Errorf("Safe(%q) is %q, want %q", text, got, want)
		}
	}
}

func FuzzSafe(f *testing.F) {
	f.Add("a\x1bb")
	f.Fuzz(func(t *testing.T, text string) {
		for _, r := range term.Safe(text) {
			if r < 0x20 || r == 0x7f || r == 0x202e {
				t.Errorf("%q lets %U through", text, r)
			}
		}
	})
}

func TestReportSaysWhatWhyAndNext(t *testing.T) {
	var out bytes.Buffer
	s := &term.Streams{UTF8: true}
	s.Report(&out, fail.New(fail.Invalid, "P-E001", "could not %s", "do it").Because("of\x1bthis").Hint("postern help"))
	want := "✗ could not do it   [P-E001]\n  why   of\\u001bthis\n  next  postern help\n  more  postern help P-E001\n"
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", &out, want)
	}
	out.Reset()
	problem := fail.Problems{{File: "policy.yaml", Line: 3, Column: 5, Text: "unknown field", Excerpt: "    grant: x\n    ^\n", Hint: "postern policy check"}}
	s.Report(&out, fail.New(fail.Invalid, "P-E005", "policy.yaml has a mistake").Wrap(problem))
	for _, part := range []string{"policy.yaml:3:5: unknown field", "    grant: x", "next  postern policy check"} {
		if !strings.Contains(out.String(), part) {
			t.Errorf("%q is missing from\n%s", part, &out)
		}
	}
	out.Reset()
	s.Report(&out, errors.New("a fault"))
	if !strings.Contains(out.String(), "P-E002") {
		t.Errorf("a fault of ours has no id:\n%s", &out)
	}
}

func TestTableIsAlignedAndSafe(t *testing.T) {
	var out bytes.Buffer
	s := &term.Streams{}
	if err := s.Table(&out, []string{"NAME", "KIND"}, [][]string{{"a", "x"}, {"longer\x07", "y"}}); err != nil {
		t.Fatal(err)
	}
	want := "NAME          KIND\na             x\nlonger\\u0007  y\n"
	if out.String() != want {
		t.Errorf("got\n%q\nwant\n%q", out.String(), want)
	}
}

func TestQuestionsTakeTheDefaultAndNothingElse(t *testing.T) {
	ask := func(typed string) *term.Streams {
		return &term.Streams{In: strings.NewReader(typed), Err: &bytes.Buffer{}, InTTY: true}
	}
	for typed, want := range map[string]bool{"\n": true, "n\n": false, "perhaps\nyes\n": true} {
		if got, err := ask(typed).Confirm("Go?", true); err != nil || got != want {
			t.Errorf("%q gave %v, %v", typed, got, err)
		}
	}
	if i, err := ask("pass\n").Choose("How", []string{"key file", "passphrase"}, 0); err != nil || i != 1 {
		t.Errorf("Choose gave %d, %v", i, err)
	}
	if _, err := (&term.Streams{In: strings.NewReader("y\n"), Err: &bytes.Buffer{}}).Confirm("Go?", true); !fail.Is(err, fail.Invalid) {
		t.Errorf("without a terminal the answer was taken: %v", err)
	}
	if _, err := ask("").Confirm("Go?", true); err == nil {
		t.Error("an end of input counts as an answer")
	}
}

func TestColourObeysTheEnvironment(t *testing.T) {
	for _, c := range []struct {
		mode string
		env  map[string]string
		tty  bool
		want bool
	}{
		{"auto", nil, true, true}, {"auto", nil, false, false}, {"auto", map[string]string{"NO_COLOR": "1"}, true, false},
		{"auto", map[string]string{"TERM": "dumb"}, true, false}, {"auto", map[string]string{"FORCE_COLOR": "1"}, false, true},
		{"always", map[string]string{"NO_COLOR": "1"}, false, true}, {"never", map[string]string{"FORCE_COLOR": "1"}, true, false},
	} {
		s := &term.Streams{OutTTY: c.tty, ErrTTY: c.tty}
		s.SetColour(c.mode, func(name string) string { return c.env[name] })
		if s.Colour != c.want {
			t.Errorf("%s with %v on a terminal %v: colour %v", c.mode, c.env, c.tty, s.Colour)
		}
		if got := s.Paint(term.Bad, "x"); (got != "x") != c.want {
			t.Errorf("Paint gave %q", got)
		}
	}
}

func TestSecretsAreReadWhole(t *testing.T) {
	v, err := term.ReadSecret(strings.NewReader("value\r\n"))
	if err != nil || v.Len() != 5 {
		t.Errorf("%d bytes, %v", v.Len(), err)
	}
	for _, bad := range []string{"", "\n", strings.Repeat("x", term.MaxSecretBytes+1)} {
		if _, err := term.ReadSecret(strings.NewReader(bad)); !fail.Is(err, fail.Invalid) {
			t.Errorf("%d bytes were taken: %v", len(bad), err)
		}
	}
}
