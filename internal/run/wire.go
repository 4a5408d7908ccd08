package run

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// message is what the parent and the first process inside say to one another.
// Descriptors travel along where noted.
type message struct {
	// from the parent
	Exec   bool   `json:"exec,omitempty"`   // start a command: the exec in a file, then its three streams unless TTY
	Signal int    `json:"signal,omitempty"` // for the command Job
	Group  bool   `json:"group,omitempty"`  // the signal is for its whole process group
	Dial   uint16 `json:"dial,omitempty"`   // a loopback port inside

	// from inside
	Ready   bool   `json:"ready,omitempty"`   // the listening sockets travel along
	Way     way    `json:"way,omitempty"`     // of Ready
	Started bool   `json:"started,omitempty"` // the terminal travels along where the command has one
	Stopped bool   `json:"stopped,omitempty"` // by its terminal; goes on with SIGCONT
	Done    bool   `json:"done,omitempty"`    // the command has ended, or the dial (the connection travels along)
	Code    int    `json:"code,omitempty"`
	Error   string `json:"error,omitempty"`
	Denied  bool   `json:"denied,omitempty"` // the error is the system's refusal

	Job int `json:"job,omitempty"` // which command or dial is meant; 0 is the first command
}

// start is a Spec as it travels inside, followed by the bytes of its overlay.
type start struct {
	Map      *User // our own ids, which nobody outside could map
	User     *User
	Powerful bool // root of the host, not of a user namespace: the commands change the user
	AsRoot   bool // the commands are root
	Hidden   []string
	Masked   []string
	ReadOnly []string
	Shown    []string
	TCP      []netip.AddrPort
	Overlay  []overlay
	Lead     way // the only one to try; the best one where empty
}

// overlay is a file as it stands inside.
type overlay struct {
	Path string
	Size int
	data []byte
}

// exec is a command to start.
type exec struct {
	Command []string
	Dir     string
	Env     []string
	TTY     bool // on a terminal of its own, made inside
	Rows    uint16
	Columns uint16
}

const (
	maxMessage = 64 << 10 // bytes of a message; whatever may be longer travels in a file
	maxFiles   = 250      // descriptors of a message, below the kernel's 253
)

// channel is one end of the socket between parent and inside. Any goroutine may
// send; one receives.
type channel struct {
	conn *net.UnixConn
	mu   sync.Mutex
}

// channelOf takes over a socket.
func channelOf(file *os.File) (*channel, error) {
	defer file.Close()
	conn, err := net.FileConn(file)
	if err != nil {
		return nil, err
	}
	socket, isUnix := conn.(*net.UnixConn)
	if !isUnix {
		return nil, errors.Join(errors.New("not a local socket"), conn.Close())
	}
	return &channel{conn: socket}, nil
}

func (c *channel) send(m message, files ...*os.File) error {
	data, err := json.Marshal(m)
	if err != nil {
		return err
	}
	var rights []byte
	if len(files) > 0 {
		fds := make([]int, 0, len(files))
		for _, f := range files {
			fds = append(fds, int(f.Fd()))
		}
		rights = unix.UnixRights(fds...)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	_, _, err = c.conn.WriteMsgUnix(data, rights, nil)
	return err
}

// receive reads one message with its descriptors, which are not passed on to
// programs and are the caller's to close.
func (c *channel) receive() (message, []*os.File, error) {
	var m message
	data, space := make([]byte, maxMessage), make([]byte, unix.CmsgSpace(4*maxFiles))
	n, spaceLen, flags, _, err := c.conn.ReadMsgUnix(data, space)
	if err == nil && n == 0 {
		err = io.EOF
	}
	if err != nil {
		return m, nil, err
	}
	files, err := rightsIn(space[:spaceLen])
	if err == nil && flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
		err = errors.New("a message of the sandbox was cut")
	}
	if err == nil {
		err = json.Unmarshal(data[:n], &m)
	}
	if err != nil {
		closeAll(files)
		return m, nil, err
	}
	return m, files, nil
}

func rightsIn(space []byte) ([]*os.File, error) {
	controls, err := unix.ParseSocketControlMessage(space)
	if err != nil {
		return nil, err
	}
	var files []*os.File
	for i := range controls {
		fds, err := unix.ParseUnixRights(&controls[i])
		if err != nil {
			continue
		}
		for _, fd := range fds {
			unix.CloseOnExec(fd)
			files = append(files, os.NewFile(uintptr(fd), "received"))
		}
	}
	return files, nil
}

func (c *channel) close() { _ = c.conn.Close() }

func closeAll(files []*os.File) {
	for _, f := range files {
		_ = f.Close()
	}
}

// inMemory is v in a file without a name, with data behind it, ready to be read.
func inMemory(v any, data ...[]byte) (*os.File, error) {
	fd, err := unix.MemfdCreate("start", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(fd), "start")
	line, err := json.Marshal(v)
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	for _, part := range slices.Concat([][]byte{line, {'\n'}}, data) {
		if _, err := file.Write(part); err != nil {
			return nil, errors.Join(err, file.Close())
		}
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

// readFrom reads what inMemory wrote and gives the data behind v.
func readFrom(file *os.File, v any) ([]byte, error) {
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	all, err := io.ReadAll(file)
	if err != nil {
		return nil, err
	}
	line, rest, found := bytes.Cut(all, []byte("\n"))
	if !found {
		return nil, errors.New("the start is cut")
	}
	return rest, json.Unmarshal(line, v)
}

// readStart reads a start with the bytes of its overlay.
func readStart(file *os.File) (*start, error) {
	s := new(start)
	rest, err := readFrom(file, s)
	if err != nil {
		return nil, err
	}
	for i := range s.Overlay {
		o := &s.Overlay[i]
		if o.Size < 0 || o.Size > len(rest) {
			return nil, fmt.Errorf("the start lacks %s", o.Path)
		}
		o.data, rest = rest[:o.Size], rest[o.Size:]
	}
	return s, nil
}
