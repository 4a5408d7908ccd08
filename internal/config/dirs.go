package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"postern/internal/fail"
)

// Make creates the directories that do not exist, closed to other users. As
// root, what is made inside another user's directory belongs to that user. A
// directory that every user may write is refused, and the runtime directory
// must be ours alone.
func (p Paths) Make() error {
	for _, dir := range []string{p.Config, p.State} {
		if err := makeDir(dir); err != nil {
			return fail.New(fail.Invalid, "P-E022", "could not make the directory %s", dir).Wrap(err)
		}
		info, err := os.Stat(dir)
		if err == nil && info.Mode().Perm()&0o002 != 0 {
			return fail.New(fail.Invalid, "P-E022", "could not use the directory %s", dir).
				Because("every user of this machine may write to it").Hint("chmod 700 %s", dir)
		}
	}
	return p.MakeRuntime()
}

// MakeRuntime creates SocketDir with mode 0700.
func (p Paths) MakeRuntime() error {
	dir := p.SocketDir()
	if err := makeDir(dir); err != nil {
		return fail.New(fail.Invalid, "P-E022", "could not make the directory %s", dir).Wrap(err)
	}
	err := checkPrivate(dir, p.uid)
	if errors.Is(err, errOpen) { // ours, made by hand or by a service manager
		err = os.Chmod(dir, 0o700)
	}
	if err != nil {
		return socketError(dir).Wrap(err)
	}
	return nil
}

// makeDir makes dir and its parents, each with the owner of the one above.
func makeDir(dir string) error {
	err := os.Mkdir(dir, 0o700)
	switch {
	case errors.Is(err, fs.ErrExist):
		info, err := os.Stat(dir)
		if err == nil && !info.IsDir() {
			err = errors.New("something else has that name")
		}
		return err
	case errors.Is(err, fs.ErrNotExist):
		if err := makeDir(filepath.Dir(dir)); err != nil {
			return err
		}
		if err = os.Mkdir(dir, 0o700); errors.Is(err, fs.ErrExist) {
			return nil // somebody was faster
		}
	}
	if err != nil {
		return err
	}
	return Adopt(dir)
}

// Adopt gives a file or directory that root has just made to the owner of the
// directory it lies in. For other users it does nothing.
func Adopt(path string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	info, err := os.Stat(filepath.Dir(path))
	if err != nil {
		return err
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok || owner.Uid == 0 || info.Mode()&fs.ModeSticky != 0 {
		return nil
	}
	return os.Lchown(path, int(owner.Uid), int(owner.Gid))
}

var errOpen = errors.New("other users may enter it")

// checkPrivate finds out whether dir is a directory of uid's, or as root of the
// owner of what is above, and closed to everybody else.
func checkPrivate(dir string, uid int) error {
	info, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !info.IsDir():
		return errors.New("it is not a directory")
	case !ok || int(owner.Uid) != uid && !trustedOwner(dir, info):
		return errors.New("it belongs to another user")
	case info.Mode().Perm()&0o077 != 0:
		return errOpen
	}
	return nil
}

// trustedOwner says whether a file is ours, root's, or, for root, of the owner
// of its directory: somebody whose installation root works on.
func trustedOwner(path string, info fs.FileInfo) bool {
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok || owner.Uid == 0 || int(owner.Uid) == os.Geteuid() {
		return ok
	}
	parent, err := os.Stat(filepath.Dir(path))
	if err != nil || os.Geteuid() != 0 {
		return false
	}
	above, ok := parent.Sys().(*syscall.Stat_t)
	return ok && above.Uid == owner.Uid
}

// readRegular reads an ordinary file of at most limit bytes; a FIFO or a device
// in its place is refused without waiting for it.
func readRegular(path string, limit int64) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("it is not an ordinary file")
	}
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("it is larger than %d bytes", limit)
	}
	return data, err
}
