package store

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"postern/internal/fail"
)

// freshPrefix begins the name of a store that is being made.
const freshPrefix = ".postern-store-"

// create makes the store beside its place and moves it there complete, so that
// a kill leaves either no store or a whole one, and an empty file is damage.
func create(ctx context.Context, path string) error {
	dir := filepath.Dir(path)
	if err := makeDirs(dir); err != nil {
		return unusable(path, err)
	}
	// A log without its file belongs to a store that somebody took away; SQLite
	// would play it into the new one.
	for _, side := range []string{"-wal", "-journal"} {
		if _, err := os.Lstat(path + side); err == nil {
			return damaged(path).Because("the file is missing, but %s is there", path+side)
		}
	}
	removeLeftovers(dir)
	fresh := filepath.Join(dir, freshPrefix+rand.Text())
	f, err := os.OpenFile(fresh, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return unusable(path, err)
	}
	defer func() { _ = os.Remove(fresh) }()
	err = errors.Join(giveToOwner(f, dir), f.Close())
	if err != nil {
		return unusable(path, err)
	}
	d, err := connect(fresh)
	if err != nil {
		return err
	}
	err = d.migrate(ctx, 0)
	if err := errors.Join(err, d.sql.Close()); err != nil {
		return unusable(path, err)
	}
	err = unix.Renameat2(unix.AT_FDCWD, fresh, unix.AT_FDCWD, path, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
		err = os.Link(fresh, path) // file systems that know no such rename
	}
	if err != nil && !errors.Is(err, fs.ErrExist) { // somebody else made one meanwhile: theirs counts
		return unusable(path, err)
	}
	return syncDir(dir)
}

// checkFile refuses what is no ordinary file of ours, and tightens the mode. It
// only names the file (O_PATH) and so leaves SQLite's locks alone.
func checkFile(path string) error {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return unusable(path, err)
	}
	defer unix.Close(fd)
	var info unix.Stat_t
	if err := unix.Fstat(fd, &info); err != nil {
		return unusable(path, err)
	}
	if info.Mode&unix.S_IFMT != unix.S_IFREG {
		return unusable(path, errors.New("it is not an ordinary file"))
	}
	if info.Size == 0 {
		return damaged(path).Because("the file is empty")
	}
	if info.Mode&0o077 != 0 {
		if err := os.Chmod(fmt.Sprintf("/proc/self/fd/%d", fd), 0o600); err != nil {
			return unusable(path, fmt.Errorf("others may read it: %w", err))
		}
	}
	for _, side := range []string{"-wal", "-shm"} {
		if info, err := os.Lstat(path + side); err == nil && !info.Mode().IsRegular() {
			return unusable(path, fmt.Errorf("%s is not an ordinary file", path+side))
		}
	}
	return nil
}

// makeDirs makes dir and what is missing above it, for us alone; root gives
// them to the owner of the directory they stand in.
func makeDirs(dir string) error {
	if _, err := os.Stat(dir); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	parent := filepath.Dir(dir)
	if err := makeDirs(parent); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return nil
		}
		return err
	}
	f, err := os.OpenFile(dir, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	return errors.Join(giveToOwner(f, parent), f.Close(), syncDir(parent))
}

// giveToOwner gives a file that root has just made to the owner of dir, so that
// the person whose directory it is can go on without root. SQLite does the same
// for the files it keeps beside.
func giveToOwner(f *os.File, dir string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	owner, isUnix := info.Sys().(*syscall.Stat_t)
	if !isUnix || owner.Uid == 0 {
		return nil
	}
	return f.Chown(int(owner.Uid), int(owner.Gid))
}

// removeLeftovers removes stores that a killed process was making; younger
// ones may still be under way.
func removeLeftovers(dir string) {
	names, err := filepath.Glob(filepath.Join(dir, freshPrefix+"*"))
	if err != nil {
		return
	}
	for _, name := range names {
		if info, err := os.Lstat(name); err == nil && time.Since(info.ModTime()) > time.Hour {
			_ = os.Remove(name)
		}
	}
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

func unusable(path string, err error) error {
	var known *fail.Error
	if errors.As(err, &known) {
		return err
	}
	return fail.New(fail.Unavailable, "P-E073", "could not open the store %s", path).Wrap(err)
}
