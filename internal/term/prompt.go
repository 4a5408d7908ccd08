package term

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"golang.org/x/term"

	"postern/internal/fail"
	"postern/internal/secret"
)

// MaxSecretBytes bounds a value that is read from a prompt, a pipe or a file.
const MaxSecretBytes = 64 << 10

// errNoTTY says that a question was needed where none may be asked.
var errNoTTY = errors.New("standard input is not a terminal, or --no-input was given")

// Hidden asks for a secret without echo.
func (s *Streams) Hidden(question string) (secret.Value, error) {
	if s.NoInput || !s.InTTY || s.file == nil {
		return secret.Value{}, fail.New(fail.Invalid, "P-E003", "%s is needed and cannot be asked for", strings.TrimSuffix(question, ":")).
			Wrap(errNoTTY).Hint("give it on standard input, with -, or run in a terminal")
	}
	fmt.Fprint(s.Err, question+" ")
	b, err := term.ReadPassword(int(s.file.Fd()))
	fmt.Fprintln(s.Err)
	defer clear(b)
	if err != nil {
		return secret.Value{}, fmt.Errorf("reading the hidden answer: %w", err)
	}
	return secret.New(b), nil
}

// ReadSecret reads a value from r to its end, at most MaxSecretBytes, and
// drops one final line break.
func ReadSecret(r io.Reader) (secret.Value, error) {
	b, err := io.ReadAll(io.LimitReader(r, MaxSecretBytes+2))
	defer clear(b)
	if err != nil {
		return secret.Value{}, fmt.Errorf("reading the value: %w", err)
	}
	trimmed := bytes.TrimSuffix(bytes.TrimSuffix(b, []byte("\n")), []byte("\r"))
	if len(trimmed) > MaxSecretBytes {
		return secret.Value{}, fail.New(fail.Invalid, "P-E004", "the value is longer than %d bytes", MaxSecretBytes)
	}
	if len(trimmed) == 0 {
		return secret.Value{}, fail.New(fail.Invalid, "P-E004", "the value is empty").Hint("pipe it in, or type it at the prompt")
	}
	return secret.New(trimmed), nil
}

// Confirm asks a yes-or-no question; an empty answer is def. Where nothing may
// be asked it is an error.
func (s *Streams) Confirm(question string, def bool) (bool, error) {
	hint := "[y/N]"
	if def {
		hint = "[Y/n]"
	}
	for {
		answer, err := s.line(question + " " + hint)
		if err != nil {
			return false, err
		}
		switch strings.ToLower(answer) {
		case "":
			return def, nil
		case "y", "yes":
			return true, nil
		case "n", "no":
			return false, nil
		}
	}
}

// Choose asks for one of options by number or first letters; an empty answer
// is the option at def.
func (s *Streams) Choose(question string, options []string, def int) (int, error) {
	for {
		answer, err := s.line(fmt.Sprintf("%s  %s  [%s]", question, strings.Join(options, " / "), options[def]))
		if err != nil || answer == "" {
			return def, err
		}
		for i, option := range options {
			if strings.HasPrefix(strings.ToLower(option), strings.ToLower(answer)) || answer == fmt.Sprint(i+1) {
				return i, nil
			}
		}
	}
}

func (s *Streams) line(question string) (string, error) {
	if s.NoInput || !s.InTTY {
		return "", fail.New(fail.Invalid, "P-E003", "a question came up and nobody can be asked").
			Wrap(errNoTTY).Hint("add --yes to take the proposed answers")
	}
	fmt.Fprint(s.Err, question+" ")
	answer, err := bufio.NewReader(io.LimitReader(oneByte{s.In}, 4096)).ReadString('\n')
	if err != nil && answer == "" {
		return "", fmt.Errorf("reading the answer: %w", err)
	}
	return strings.TrimSpace(answer), nil
}

// oneByte keeps a buffered reader from taking what belongs to the next question.
type oneByte struct{ r io.Reader }

func (o oneByte) Read(p []byte) (int, error) { return o.r.Read(p[:min(1, len(p))]) }
