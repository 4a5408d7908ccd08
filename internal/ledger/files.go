package ledger

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// The files of a ledger's directory, beside tile/.
const (
	journalFile    = "journal"
	checkpointFile = "checkpoint"
	lockFile       = "lock"
	reserveFile    = "reserve"
	cutPrefix      = "cut-" // bytes that were cut off the journal's end, by the sequence number that they began with
)

// maxFile bounds what is read of any one file into memory.
const maxFile = 1 << 30

// dir is a ledger's directory. No path leads out of it, whatever links somebody
// has put there. What root makes in another user's directory is that user's.
type dir struct {
	root     *os.Root
	uid, gid int // new owner, or -1
}

// openDir opens the directory; with create it makes it where it is missing, and
// closes it to others where it is not.
func openDir(name string, create bool) (*dir, error) {
	made := false
	if create {
		err := os.Mkdir(name, 0o700)
		made = err == nil
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
	}
	root, err := os.OpenRoot(name)
	if err != nil {
		return nil, err
	}
	d := &dir{root: root, uid: -1, gid: -1}
	if create {
		if info, err := root.Stat("."); err == nil && info.Mode().Perm()&0o077 != 0 {
			if err := root.Chmod(".", 0o700); err != nil {
				return nil, errors.Join(err, root.Close())
			}
		}
	}
	if os.Geteuid() != 0 {
		return d, nil
	}
	above := name
	if made {
		above = path.Dir(path.Clean(name))
	}
	info, err := os.Stat(above)
	if err != nil {
		return nil, errors.Join(err, root.Close())
	}
	if owner, ok := info.Sys().(*syscall.Stat_t); ok && owner.Uid != 0 && info.Mode()&fs.ModeSticky == 0 {
		d.uid, d.gid = int(owner.Uid), int(owner.Gid)
		if made {
			err = root.Lchown(".", d.uid, d.gid)
		}
	}
	if err != nil {
		return nil, errors.Join(err, root.Close())
	}
	return d, nil
}

func (d *dir) close() error { return d.root.Close() }

// open opens an ordinary file for reading and writing, and makes it when it is
// missing and create says so.
func (d *dir) open(name string, create bool) (*os.File, error) {
	const flags = os.O_RDWR | syscall.O_NONBLOCK
	f, err := d.root.OpenFile(name, flags, 0)
	if errors.Is(err, fs.ErrNotExist) && create {
		if f, err = d.root.OpenFile(name, flags|os.O_CREATE|os.O_EXCL, 0o600); err == nil {
			err = d.own(f)
		}
		if errors.Is(err, fs.ErrExist) { // another process was faster
			f, err = d.root.OpenFile(name, flags, 0)
		}
	}
	if err != nil {
		return nil, err
	}
	return f, d.ordinary(f)
}

func (d *dir) ordinary(f *os.File) error {
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not an ordinary file", f.Name())
	}
	if err != nil {
		return errors.Join(err, f.Close())
	}
	return nil
}

func (d *dir) own(f *os.File) error {
	if d.uid < 0 {
		return nil
	}
	return f.Chown(d.uid, d.gid)
}

// read reads an ordinary file whole.
func (d *dir) read(name string) ([]byte, error) {
	f, err := d.root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if err := d.ordinary(f); err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = fmt.Errorf("%s is too large", name)
	}
	return data, err
}

// write puts a file in place at once, with the directories above it. With sync
// its content is on disk before it gets its name.
func (d *dir) write(name string, data []byte, sync bool) error {
	temp, err := d.writeTemp(name, data, sync)
	if err != nil {
		return err
	}
	if err := d.root.Rename(temp, name); err != nil {
		return errors.Join(err, d.root.Remove(temp))
	}
	return nil
}

// writeTemp writes what is to become name beside it and returns where. Each
// process has its own place, so that the leftovers of a kill are overwritten.
func (d *dir) writeTemp(name string, data []byte, sync bool) (string, error) {
	if err := d.mkdirs(path.Dir(name)); err != nil {
		return "", err
	}
	temp := name + ".tmp" + strconv.Itoa(os.Getpid())
	const flags = os.O_WRONLY | os.O_CREATE | os.O_TRUNC
	f, err := d.root.OpenFile(temp, flags, 0o600)
	if err != nil {
		return "", err
	}
	if err = d.own(f); err == nil {
		_, err = f.Write(data)
	}
	if err == nil && sync {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return "", errors.Join(err, d.root.Remove(temp))
	}
	return temp, nil
}

func (d *dir) mkdirs(name string) error {
	if name == "." {
		return nil
	}
	err := d.root.Mkdir(name, 0o700)
	if errors.Is(err, fs.ErrNotExist) {
		if err = d.mkdirs(path.Dir(name)); err == nil {
			err = d.root.Mkdir(name, 0o700)
		}
	}
	switch {
	case errors.Is(err, fs.ErrExist):
		return nil
	case err == nil && d.uid >= 0:
		return d.root.Lchown(name, d.uid, d.gid)
	}
	return err
}

// sync makes the names in the directory name durable.
func (d *dir) sync(name string) error {
	f, err := d.root.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// flock takes (LOCK_EX, LOCK_SH) or gives back (LOCK_UN) the lock that the
// processes sharing a directory agree on. The kernel frees it when one dies.
func flock(fd, how int) error {
	for {
		if err := unix.Flock(fd, how); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
