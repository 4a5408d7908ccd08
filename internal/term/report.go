package term

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"postern/internal/fail"
)

// Report shows err to a person in at most a few lines: what, why, next, more.
func (s *Streams) Report(w io.Writer, err error) {
	var problems fail.Problems
	var e *fail.Error
	switch {
	case errors.As(err, &e):
		s.reportError(w, e)
		if errors.As(e.Unwrap(), &problems) {
			s.reportProblems(w, problems)
		}
	case errors.As(err, &problems):
		s.reportProblems(w, problems)
	default:
		s.reportError(w, fail.New(fail.Internal, "P-E002", "%s", err.Error()))
	}
}

func (s *Streams) reportError(w io.Writer, e *fail.Error) {
	fmt.Fprintf(w, "%s %s   [%s]\n", s.Paint(Bad, s.Symbol("fail")), Safe(e.Text), e.ID)
	var problems fail.Problems
	if e.Why != "" && !errors.As(e.Unwrap(), &problems) {
		fmt.Fprintf(w, "  why   %s\n", Safe(e.Why))
	}
	for _, next := range e.Next {
		fmt.Fprintf(w, "  next  %s\n", Safe(next))
	}
	fmt.Fprintf(w, "  more  postern help %s\n", e.ID)
}

func (s *Streams) reportProblems(w io.Writer, problems fail.Problems) {
	for _, p := range problems {
		fmt.Fprintf(w, "%s %s\n", s.Paint(Bad, s.Symbol("fail")), Safe(p.String()))
		for line := range strings.SplitSeq(strings.TrimRight(p.Excerpt, "\n"), "\n") {
			if line != "" {
				fmt.Fprintf(w, "        %s\n", Safe(line))
			}
		}
		if p.Hint != "" {
			fmt.Fprintf(w, "  next  %s\n", Safe(p.Hint))
		}
	}
}
