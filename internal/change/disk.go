//go:build linux

package change

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"postern/internal/fail"
)

// disk makes the changes. It is an interface so that a test can stop the
// journal before and after each of them.
type disk interface {
	// Put writes s to a new file named temp beside p, synced, with its owner,
	// mode and attributes; keepTime gives it the modification time of s too.
	Put(p place, temp string, s state, keepTime bool) error
	// Move gives the file named temp the name of p; without replace it fails
	// where that name is taken. The directory is synced.
	Move(p place, temp string, replace bool) error
	// Remove takes a name away, a directory's only if it is empty. A name that
	// is not there is no error. The directory is synced.
	Remove(p place, name string, isDir bool) error
	// Mkdir makes the directory p. The directory above is synced.
	Mkdir(p place, mode uint32) error
}

// linux is the disk of the machine.
type linux struct{}

func (linux) Put(p place, temp string, s state, keepTime bool) error {
	fd, err := unix.Openat(p.fd(), temp, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return &os.PathError{Op: "create a temporary beside", Path: p.path, Err: err}
	}
	f := os.NewFile(uintptr(fd), temp)
	defer f.Close()
	if err := dress(p, fd, s); err != nil {
		return err
	}
	if _, err := f.Write(s.data); err != nil {
		return fmt.Errorf("writing beside %s: %w", p.path, err)
	}
	if keepTime {
		times := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, unix.NsecToTimespec(s.MTime)}
		if err := unix.UtimesNanoAt(p.fd(), temp, times, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return fmt.Errorf("setting the time of %s: %w", p.path, err)
		}
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("syncing %s: %w", p.path, err)
	}
	return nil
}

// dress gives an empty new file the owner, attributes and mode of s, in this
// order: changing the owner clears set-id bits, an access list changes bits.
func dress(p place, fd int, s state) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("looking at the temporary of %s: %w", p.path, err)
	}
	if int(st.Uid) != s.UID || int(st.Gid) != s.GID {
		if err := unix.Fchown(fd, s.UID, s.GID); err != nil {
			return fail.New(fail.NotAllowed, "P-E052", "could not change %s", p.path).Wrap(err).
				Because("it belongs to user %d, group %d, and you may not make a file that does", s.UID, s.GID).
				Hint("run the command as its owner, or as root")
		}
	}
	for name, value := range s.xattrs {
		err := unix.Fsetxattr(fd, name, value, 0)
		if err != nil && (strings.HasPrefix(name, "user.") || !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.ENOTSUP)) {
			return fmt.Errorf("keeping attribute %s of %s: %w", name, p.path, err)
		}
	}
	if err := unix.Fchmod(fd, s.Mode); err != nil {
		return fmt.Errorf("setting the mode of %s: %w", p.path, err)
	}
	return nil
}

func (linux) Move(p place, temp string, replace bool) error {
	flags := uint(unix.RENAME_NOREPLACE)
	if replace {
		flags = 0
	}
	err := unix.Renameat2(p.fd(), temp, p.fd(), p.name, flags)
	if !replace && errors.Is(err, unix.EINVAL) { // a file system without the flag: a link does not replace either
		if err = unix.Linkat(p.fd(), temp, p.fd(), p.name, 0); err == nil {
			err = unix.Unlinkat(p.fd(), temp, 0)
		}
	}
	if errors.Is(err, unix.EEXIST) {
		return underneath(p.path)
	}
	if err != nil {
		return &os.PathError{Op: "rename to", Path: p.path, Err: err}
	}
	return syncDir(p)
}

func (linux) Remove(p place, name string, isDir bool) error {
	flags := 0
	if isDir {
		flags = unix.AT_REMOVEDIR
	}
	err := unix.Unlinkat(p.fd(), name, flags)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return &os.PathError{Op: "remove", Path: p.path, Err: err}
	}
	return syncDir(p)
}

func (linux) Mkdir(p place, mode uint32) error {
	if err := unix.Mkdirat(p.fd(), p.name, mode); err != nil {
		return &os.PathError{Op: "mkdir", Path: p.path, Err: err}
	}
	return syncDir(p)
}

func syncDir(p place) error {
	if err := p.dir.Sync(); err != nil && !errors.Is(err, unix.EINVAL) { // EINVAL: a file system whose directories have nothing to sync
		return fmt.Errorf("syncing the directory of %s: %w", p.path, err)
	}
	return nil
}

func underneath(path string) error {
	return fail.New(fail.Conflict, "P-E051", "did not write %s", path).
		Because("somebody changed it while the change was being prepared").
		Hint("look at it, then give the command again")
}
