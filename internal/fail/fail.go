// Package fail holds the errors that a person reads: what went wrong, why, and
// the command that comes next. Kinds map once to exit codes and once to HTTP.
package fail

import (
	"errors"
	"fmt"
	"strings"
)

// Kind says what sort of failure it is.
type Kind int

// The kinds, with the exit code of the command line in brackets.
const (
	Internal    Kind = iota // a fault of ours (1)
	Invalid                 // wrong usage, config or input (2)
	NotFound                // the named thing does not exist (2)
	Incomplete              // something could not be checked (3)
	Locked                  // locked or not authorised (4)
	Conflict                // changed underneath, nothing written (5)
	NotAllowed              // refused by policy (6)
	Unavailable             // the broker or another service is not reachable (7)
	Findings                // findings at or above the threshold (1)
)

// ExitCode is the exit code of the command line for the kind.
func (k Kind) ExitCode() int {
	switch k {
	case Invalid, NotFound:
		return 2
	case Incomplete:
		return 3
	case Locked:
		return 4
	case Conflict:
		return 5
	case NotAllowed:
		return 6
	case Unavailable:
		return 7
	}
	return 1
}

// Error is an error for a person. Text says what failed, Why the reason, Next
// the commands to type. No field ever holds a secret value or a raw body of an
// upstream.
type Error struct {
	Kind Kind
	ID   string // "P-E041", listed in codes/*.txt
	Text string
	Why  string
	Next []string
	err  error
}

// New makes an error of kind with the id of its help page.
func New(kind Kind, id, format string, args ...any) *Error {
	return &Error{Kind: kind, ID: id, Text: fmt.Sprintf(format, args...)}
}

// Because sets the reason.
func (e *Error) Because(format string, args ...any) *Error {
	e.Why = fmt.Sprintf(format, args...)
	return e
}

// Hint adds a command to type next; words after three spaces are a remark.
func (e *Error) Hint(format string, args ...any) *Error {
	e.Next = append(e.Next, fmt.Sprintf(format, args...))
	return e
}

// Wrap keeps err as the cause; it becomes the reason where none was given.
func (e *Error) Wrap(err error) *Error {
	e.err = err
	if e.Why == "" && err != nil {
		e.Why = err.Error()
	}
	return e
}

// Error is the text and the reason on one line.
func (e *Error) Error() string {
	if e.Why == "" {
		return e.Text
	}
	return e.Text + ": " + e.Why
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.err }

// KindOf is the kind of the first Error in err's chain, Internal without one.
func KindOf(err error) Kind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	var p Problems
	if errors.As(err, &p) {
		return Invalid
	}
	return Internal
}

// Is says whether err's first Error is of kind.
func Is(err error, kind Kind) bool { return err != nil && KindOf(err) == kind }

// Problem is one mistake in a configuration file. Line and Column start at 1;
// 0 means unknown.
type Problem struct {
	File    string `json:"file"`
	Line    int    `json:"line,omitempty"`
	Column  int    `json:"column,omitempty"`
	Text    string `json:"text"`
	Hint    string `json:"hint,omitempty"`
	Excerpt string `json:"-"` // the line shown with a caret, where there is one
}

// String is "file:line:column: text".
func (p Problem) String() string {
	s := p.File
	if p.Line > 0 {
		s += fmt.Sprintf(":%d", p.Line)
		if p.Column > 0 {
			s += fmt.Sprintf(":%d", p.Column)
		}
	}
	if s != "" {
		s += ": "
	}
	return s + p.Text
}

// Problems are all the mistakes found in one go.
type Problems []Problem

// Error lists the problems, a line each.
func (p Problems) Error() string {
	lines := make([]string, len(p))
	for i, one := range p {
		lines[i] = one.String()
	}
	return strings.Join(lines, "\n")
}

// Err is nil without problems.
func (p Problems) Err() error {
	if len(p) == 0 {
		return nil
	}
	return p
}
