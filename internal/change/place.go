//go:build linux

package change

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"postern/internal/fail"
)

// maxBytes bounds every file that is changed: settings, never data.
const maxBytes = 4 << 20

// place is a name in an opened directory. Everything happens relative to that
// directory, so that swapping a parent for a symbolic link changes nothing.
type place struct {
	dir  *os.File
	path string // absolute, without symbolic links
	name string
}

func (p place) fd() int      { return int(p.dir.Fd()) }
func (p place) close() error { return p.dir.Close() }

// meta is what a file was besides its bytes; BeforeMeta is its JSON.
type meta struct {
	Exists bool     `json:"exists"`
	Mode   uint32   `json:"mode"` // permission, set-id and sticky bits
	UID    int      `json:"uid"`
	GID    int      `json:"gid"`
	MTime  int64    `json:"mtime_ns"`
	XAttrs []string `json:"xattrs,omitempty"` // names; the values stand in the sealed image
	Temp   string   `json:"temp,omitempty"`   // the temporary name this change may have left beside the file
}

// state is a file as it stands now.
type state struct {
	meta
	data     []byte
	xattrs   map[string][]byte
	isDir    bool
	dev, ino uint64
}

func (s state) hash() string { return hashOf(s.data) }

func hashOf(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// locate opens the directory of path. A symbolic link at path itself is
// followed only within its own directory.
func locate(path string) (place, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return place{}, fmt.Errorf("finding %s: %w", path, err)
	}
	dir, err := filepath.EvalSymlinks(filepath.Dir(abs))
	if err != nil {
		return place{}, fmt.Errorf("finding the directory of %s: %w", path, err)
	}
	full := filepath.Join(dir, filepath.Base(abs))
	if info, err := os.Lstat(full); err == nil && info.Mode()&os.ModeSymlink != 0 {
		target, err := filepath.EvalSymlinks(full)
		if err != nil {
			return place{}, odd(full, "it is a symbolic link that leads nowhere: %v", err)
		}
		if filepath.Dir(target) != dir {
			return place{}, odd(full, "it is a symbolic link to %s, outside its own directory", target)
		}
		full = target
	}
	return reopen(full)
}

// reopen opens the directory of a path that locate gave; no part of it may
// have become a symbolic link since.
func reopen(path string) (place, error) {
	dir := filepath.Dir(path)
	how := unix.OpenHow{Flags: unix.O_DIRECTORY | unix.O_RDONLY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS}
	fd, err := unix.Openat2(unix.AT_FDCWD, dir, &how)
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) { // old kernel or a seccomp filter that does not know the call
		fd, err = unix.Open(dir, unix.O_DIRECTORY|unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	}
	if err != nil {
		return place{}, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	return place{dir: os.NewFile(uintptr(fd), dir), path: path, name: filepath.Base(path)}, nil
}

func odd(path, why string, args ...any) error {
	return fail.New(fail.Invalid, "P-E050", "will not change %s", path).Because(why, args...).
		Hint("ls -li %s   then make it an ordinary file of its own", path)
}

// look reads the file at p, not following a symbolic link. A missing file is a
// state with Exists false. Anything but a directory or an ordinary file with
// one name is refused.
func look(p place) (state, error) {
	var st unix.Stat_t
	if err := unix.Fstatat(p.fd(), p.name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		if errors.Is(err, unix.ENOENT) {
			return state{}, nil
		}
		return state{}, &os.PathError{Op: "stat", Path: p.path, Err: err}
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return state{meta: metaOf(&st), isDir: true}, nil
	}
	if err := ordinary(p.path, &st); err != nil {
		return state{}, err
	}
	fd, err := unix.Openat(p.fd(), p.name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return state{}, &os.PathError{Op: "open", Path: p.path, Err: err}
	}
	f := os.NewFile(uintptr(fd), p.path)
	defer f.Close()
	if err := unix.Fstat(fd, &st); err != nil {
		return state{}, &os.PathError{Op: "stat", Path: p.path, Err: err}
	}
	if err := ordinary(p.path, &st); err != nil { // it may have been swapped in between
		return state{}, err
	}
	s := state{meta: metaOf(&st), dev: st.Dev, ino: st.Ino}
	if s.data, err = io.ReadAll(io.LimitReader(f, maxBytes+1)); err != nil {
		return state{}, fmt.Errorf("reading %s: %w", p.path, err)
	}
	if len(s.data) > maxBytes {
		return state{}, tooLarge(p.path)
	}
	s.xattrs, s.XAttrs, err = readXAttrs(fd)
	if err != nil {
		return state{}, fmt.Errorf("reading attributes of %s: %w", p.path, err)
	}
	return s, nil
}

func ordinary(path string, st *unix.Stat_t) error {
	switch {
	case st.Mode&unix.S_IFMT == unix.S_IFLNK:
		return odd(path, "it has become a symbolic link")
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return odd(path, "it is not an ordinary file")
	case st.Nlink > 1:
		return odd(path, "it has %d names (hard links), and the others would keep the old content", st.Nlink)
	case st.Size > maxBytes:
		return tooLarge(path)
	}
	return nil
}

func tooLarge(path string) error {
	return fail.New(fail.Invalid, "P-E055", "will not change %s", path).Because("it is larger than %d MiB", maxBytes>>20)
}

func metaOf(st *unix.Stat_t) meta {
	return meta{Exists: true, Mode: st.Mode & 0o7777, UID: int(st.Uid), GID: int(st.Gid), MTime: st.Mtim.Nano()}
}

// readXAttrs gives the attributes that a copy must carry. File systems without
// any have none.
func readXAttrs(fd int) (map[string][]byte, []string, error) {
	size, err := unix.Flistxattr(fd, nil)
	if errors.Is(err, unix.ENOTSUP) || err == nil && size == 0 {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	list := make([]byte, size)
	if size, err = unix.Flistxattr(fd, list); err != nil {
		return nil, nil, err
	}
	values := map[string][]byte{}
	var names []string
	for name := range strings.SplitSeq(string(list[:size]), "\x00") {
		if name == "" {
			continue
		}
		value := make([]byte, 64<<10) // the kernel's own limit of a value
		n, err := unix.Fgetxattr(fd, name, value)
		if err != nil {
			continue // gone since, or not ours to read
		}
		values[name] = value[:n:n]
		names = append(names, name)
	}
	return values, names, nil
}
