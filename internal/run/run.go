// Package run starts a command in namespaces of its own with no way out but the
// broker: whatever it connects to lands on a listening socket that was made
// inside and is served outside, so that no process copies bytes in between.
package run

import (
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// Spec says what to start and what it may see. All paths are absolute.
type Spec struct {
	Command []string // looked up in the PATH of Env, inside
	Dir     string
	Env     []string // all of it
	User    *User    // as root: who the command runs as; nil is root without any power

	Hidden   []string          // directories, files and sockets that are empty inside; /run always is
	Masked   []string          // files that cannot be read inside
	ReadOnly []string          // files and directories that cannot be changed inside
	Overlay  map[string][]byte // what stands at a path inside; below /run it is made
	Shown    []string          // paths that stay visible although something above hides them: granted sockets and files

	TCP     []netip.AddrPort // loopback services of the host, reachable at the same address inside
	Publish []Publish
	Socket  string // where Join finds the sandbox; none without it

	Stdin  *os.File
	Stdout *os.File
	Stderr *os.File
	// Filter makes what the output passes through, one for each stream; without it
	// the command writes to Stdout and Stderr directly where these are no terminal.
	Filter func() (Filter, error)

	lead way // of a test that forces one; else the best that there is
}

// User is who a command runs as.
type User struct {
	UID, GID uint32
	Groups   []uint32
}

// Publish makes a port that the command opens reachable on the host.
type Publish struct {
	Host netip.AddrPort
	Port uint16 // inside, on loopback
}

// Filter masks a stream. Each method appends to dst what may go out.
type Filter interface {
	Write(dst, chunk []byte) []byte
	Flush(dst []byte) []byte // what was held back although more may follow
	Close(dst []byte) []byte
}

// Guard keeps other processes of the same user out of this one: none may read its
// memory or take its descriptors, and no core is written. Called once, early.
func Guard() error { return unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0) }
