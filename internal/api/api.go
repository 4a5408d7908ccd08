// Package api is what the daemon and its clients say to one another over the
// local socket: one request, one answer, each a JSON document with its length in
// front. Descriptors travel beside them.
package api

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"golang.org/x/sys/unix"

	"postern/internal/fail"
)

// The operations.
const (
	OpStatus = "status" // how the daemon is
	OpLock   = "lock"   // forget the keys
	OpUnlock = "unlock" // open the safe again
	OpServe  = "serve"  // serve the listening socket that travels with it; then see Lookup
	OpPrint  = "print"  // the keyed fingerprint of a value
	OpRedact = "redact" // the connection becomes a stream of chunks, see Chunk
)

// Request opens a connection.
type Request struct {
	Op         string `json:"op"`
	Agent      string `json:"agent,omitempty"`
	Passphrase []byte `json:"passphrase,omitempty"` // of unlock, where the root key is one
	Value      []byte `json:"value,omitempty"`      // of print
}

// Answer is the daemon's.
type Answer struct {
	Error  string    `json:"error,omitempty"`
	ID     string    `json:"id,omitempty"`   // of the error's help page
	Kind   fail.Kind `json:"kind,omitempty"` // of the error
	Status *Status   `json:"status,omitempty"`
	Print  string    `json:"print,omitempty"`
}

// Status is how the daemon is.
type Status struct {
	PID  int    `json:"pid"`
	Safe string `json:"safe"` // locked or unlocked
}

// Lookup is asked by the daemon, once a socket is served: which name stands for
// the address inside the sandbox. Name is the answer.
type (
	Lookup struct {
		Addr string `json:"addr"`
	}
	Name struct {
		Name string `json:"name"`
		OK   bool   `json:"ok"`
	}
)

// The sorts of chunk of OpRedact. Each is answered by one chunk: what may go out.
const (
	ChunkData  = 0
	ChunkFlush = 1
	ChunkClose = 2
)

// maxMessage bounds a message; the longest is a passphrase.
const maxMessage = 256 << 10

// Conn is one end of the local socket. One goroutine sends and one receives at
// a time.
type Conn struct{ conn *net.UnixConn }

// NewConn speaks over conn.
func NewConn(conn *net.UnixConn) *Conn { return &Conn{conn} }

// Send sends v, with descriptors beside it, which stay open.
func (c *Conn) Send(v any, files ...*os.File) error {
	body, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encoding a message: %w", err)
	}
	return c.send(0, body, files...)
}

// Receive reads into v. Descriptors beyond max are closed.
func (c *Conn) Receive(v any, max int) ([]*os.File, error) {
	_, body, files, err := c.receive(max)
	if err == nil {
		err = json.Unmarshal(body, v)
	}
	if err != nil {
		closeAll(files)
		return nil, err
	}
	return files, nil
}

// SendChunk sends bytes of a stream.
func (c *Conn) SendChunk(sort byte, data []byte) error { return c.send(sort, data) }

// ReceiveChunk reads bytes of a stream.
func (c *Conn) ReceiveChunk() (sort byte, data []byte, err error) {
	sort, data, files, err := c.receive(0)
	closeAll(files)
	return sort, data, err
}

func (c *Conn) send(sort byte, body []byte, files ...*os.File) error {
	if len(body) > maxMessage {
		return errors.New("a message to the daemon is too long")
	}
	message := make([]byte, 5, 5+len(body))
	message[0] = sort
	binary.BigEndian.PutUint32(message[1:], uint32(len(body)))
	message = append(message, body...)
	var rights []byte
	if len(files) > 0 {
		fds := make([]int, 0, len(files))
		for _, f := range files {
			fds = append(fds, int(f.Fd()))
		}
		rights = unix.UnixRights(fds...)
	}
	n, _, err := c.conn.WriteMsgUnix(message, rights, nil)
	if err == nil && n < len(message) { // an empty write would fail once the peer has read all and gone
		_, err = c.conn.Write(message[n:])
	}
	return err
}

func (c *Conn) receive(max int) (sort byte, body []byte, files []*os.File, err error) {
	var head [5]byte
	space := make([]byte, unix.CmsgSpace(4*max+4))
	n, spaceLen, _, _, err := c.conn.ReadMsgUnix(head[:], space)
	if err == nil && n == 0 {
		err = io.EOF
	}
	if err != nil {
		return 0, nil, nil, err
	}
	if files, err = received(space[:spaceLen], max); err != nil {
		return 0, nil, nil, err
	}
	if _, err := io.ReadFull(c.conn, head[n:]); err != nil {
		closeAll(files)
		return 0, nil, nil, err
	}
	length := binary.BigEndian.Uint32(head[1:])
	if length > maxMessage {
		closeAll(files)
		return 0, nil, nil, errors.New("a message on the local socket is too long")
	}
	body = make([]byte, length)
	if _, err := io.ReadFull(c.conn, body); err != nil {
		closeAll(files)
		return 0, nil, nil, err
	}
	return head[0], body, files, nil
}

// received are the descriptors of a control message, at most max.
func received(space []byte, max int) ([]*os.File, error) {
	messages, err := unix.ParseSocketControlMessage(space)
	if err != nil {
		return nil, fmt.Errorf("reading descriptors: %w", err)
	}
	var files []*os.File
	for _, m := range messages {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			continue // not descriptors
		}
		for _, fd := range fds {
			unix.CloseOnExec(fd)
			files = append(files, os.NewFile(uintptr(fd), "received"))
		}
	}
	if len(files) > max {
		closeAll(files)
		return nil, errors.New("more descriptors than expected")
	}
	return files, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		_ = f.Close()
	}
}
