// Package http1 reads and frames HTTP/1.1 messages strictly and in place: what
// two parsers could read in two ways is refused, and nothing is allocated per
// message once a connection's buffers are warm.
//
// Source: RFC 9112 (message syntax) and RFC 9110 §5 (fields), November 2026.
package http1

import (
	"errors"
	"fmt"
)

// The bounds of one message.
const (
	MaxHead   = 64 << 10 // bytes of start line and fields
	MaxFields = 200      // fields of one head or one trailer
	maxLine   = 256      // bytes of a chunk-size line
)

// bufferSize is what one read may deliver.
const bufferSize = 32 << 10

// ErrEnd means that the peer closed cleanly between two messages.
var ErrEnd = errors.New("http1: connection closed between messages")

// Error is a message that the parser refuses. Text names the fault and never
// quotes the message.
type Error struct{ Text string }

// Error is the fault.
func (e *Error) Error() string { return "malformed message: " + e.Text }

func bad(format string, args ...any) error {
	return &Error{Text: fmt.Sprintf(format, args...)}
}

// Refused says whether err is a fault of the message itself, as against one of
// the connection.
func Refused(err error) bool {
	var e *Error
	return errors.As(err, &e)
}
