// Package term is how Postern meets a person: streams, facts about the
// terminal, colour, tables, prompts and progress. Standard output is the
// product, standard error is the talk.
package term

import (
	"io"
	"os"
	"strings"

	"golang.org/x/term"
)

// Streams are the three ends of a command and what is known of them. Tests fill
// them with buffers.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
	InTTY    bool
	OutTTY   bool
	ErrTTY   bool
	Colour   bool // escape codes may be written to Out and Err
	UTF8     bool // symbols beyond ASCII may be written
	Quiet    bool // no talk on Err but errors
	NoInput  bool // never prompt
	file     *os.File
}

// System are the streams of the process, with colour decided by mode ("auto",
// "always" or "never"), NO_COLOR, FORCE_COLOR, CLICOLOR_FORCE and TERM.
func System(getenv func(string) string) *Streams {
	s := &Streams{
		In: os.Stdin, Out: os.Stdout, Err: os.Stderr, file: os.Stdin,
		InTTY:  term.IsTerminal(int(os.Stdin.Fd())),
		OutTTY: term.IsTerminal(int(os.Stdout.Fd())),
		ErrTTY: term.IsTerminal(int(os.Stderr.Fd())),
	}
	s.UTF8 = utf8Locale(getenv)
	s.SetColour("auto", getenv)
	return s
}

// SetColour decides about colour. Unknown modes count as auto.
func (s *Streams) SetColour(mode string, getenv func(string) string) {
	forced := getenv("FORCE_COLOR") != "" || getenv("CLICOLOR_FORCE") != ""
	switch {
	case mode == "always":
		s.Colour = true
	case mode == "never", getenv("NO_COLOR") != "":
		s.Colour = false
	case forced:
		s.Colour = true
	default:
		s.Colour = s.OutTTY && s.ErrTTY && getenv("TERM") != "dumb"
	}
}

func utf8Locale(getenv func(string) string) bool {
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if v := strings.ToLower(getenv(name)); v != "" {
			return strings.Contains(v, "utf-8") || strings.Contains(v, "utf8")
		}
	}
	return true // no locale at all: services and containers, whose logs are UTF-8
}

// Tone is the meaning of a coloured word. A symbol or a word always carries the
// same meaning, so that colour is never needed.
type Tone int

// The tones.
const (
	Plain Tone = iota
	Good
	Amber
	Bad
	Dim
	Strong
)

// Paint wraps text in the escape codes of tone where colour is on.
func (s *Streams) Paint(tone Tone, text string) string {
	codes := map[Tone]string{Good: "32", Amber: "33", Bad: "31", Dim: "2", Strong: "1"}
	code, found := codes[tone]
	if !s.Colour || !found || text == "" {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

// Symbol is a sign of the screens: "ok", "fail", "warn", "dot", "ellipsis",
// "arrow", "rule"; in ASCII where the locale has nothing better.
func (s *Streams) Symbol(name string) string {
	signs := map[string][2]string{
		"ok": {"✓", "ok"}, "fail": {"✗", "x"}, "warn": {"!", "!"}, "dot": {"·", "-"},
		"ellipsis": {"…", "..."}, "arrow": {"→", "->"}, "rule": {"─", "-"}, "on": {"●", "*"}, "half": {"◐", "o"},
	}
	pair, found := signs[name]
	if !found {
		return name
	}
	if s.UTF8 {
		return pair[0]
	}
	return pair[1]
}

// Safe shows text that came from elsewhere (file names, hosts, upstream words)
// without letting it steer the terminal: control characters, right-to-left
// marks and invalid bytes are escaped.
func Safe(text string) string {
	clean := true
	for _, r := range text {
		if unsafeRune(r) {
			clean = false
			break
		}
	}
	if clean {
		return text
	}
	var b strings.Builder
	for _, r := range text {
		if !unsafeRune(r) {
			b.WriteRune(r)
			continue
		}
		const hex = "0123456789abcdef"
		b.WriteString(`\u`)
		for shift := 12; shift >= 0; shift -= 4 {
			b.WriteByte(hex[(r>>shift)&15])
		}
	}
	return b.String()
}

func unsafeRune(r rune) bool {
	return r < 0x20 || r == 0x7f || r >= 0x80 && r < 0xa0 || r == 0xfffd ||
		r >= 0x200b && r <= 0x200f || r >= 0x2028 && r <= 0x202e || r >= 0x2066 && r <= 0x2069 || r == 0xfeff
}
