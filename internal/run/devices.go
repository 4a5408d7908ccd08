package run

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// freshDevices gives the sandbox terminals and shared memory of its own: those of
// the host belong to the same user, whose keystrokes could be read there. A
// command that is root gets no other device either, because it could open the
// host's disks.
func freshDevices(asRoot bool) error {
	if asRoot {
		if err := bareDevices(); err != nil {
			return err
		}
	}
	if err := os.MkdirAll("/dev/pts", 0o755); err != nil {
		return err
	}
	if err := unix.Mount("devpts", "/dev/pts", "devpts", unix.MS_NOSUID|unix.MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620"); err != nil {
		return fmt.Errorf("mounting /dev/pts: %w", err)
	}
	if err := ownTerminals(); err != nil {
		return err
	}
	for _, m := range []struct{ path, kind, options string }{{"/dev/shm", "tmpfs", "mode=1777"}, {"/dev/mqueue", "mqueue", ""}} {
		if _, err := os.Stat(m.path); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err := unix.Mount(m.kind, m.path, m.kind, dataMount, m.options); err != nil {
			return fmt.Errorf("mounting %s: %w", m.path, err)
		}
	}
	return nil
}

// ownTerminals makes /dev/ptmx that of the new /dev/pts.
func ownTerminals() error {
	if link, err := os.Readlink("/dev/ptmx"); err == nil && filepath.Base(filepath.Dir(link)) == "pts" {
		return nil
	}
	if err := unix.Mount("/dev/pts/ptmx", "/dev/ptmx", "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mounting /dev/ptmx: %w", err)
	}
	return nil
}

// bareDevices replaces /dev by one with the harmless devices only, and forbids
// device files everywhere else.
func bareDevices() error {
	names := []string{"null", "zero", "full", "random", "urandom", "tty"}
	kept := map[string]int{}
	for _, name := range names {
		fd, err := unix.OpenTree(unix.AT_FDCWD, "/dev/"+name, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
		if err != nil {
			return fmt.Errorf("keeping /dev/%s: %w", name, err)
		}
		defer unix.Close(fd)
		kept[name] = fd
	}
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_NODEV}
	if err := unix.MountSetattr(unix.AT_FDCWD, "/", unix.AT_RECURSIVE, &attr); err != nil {
		return fmt.Errorf("forbidding devices: %w", err)
	}
	if err := unix.Mount("tmpfs", "/dev", "tmpfs", unix.MS_NOSUID|unix.MS_NOEXEC, "mode=0755,size=64k"); err != nil {
		return fmt.Errorf("covering /dev: %w", err)
	}
	for name, fd := range kept {
		if err := os.WriteFile("/dev/"+name, nil, 0o644); err != nil {
			return err
		}
		if err := unix.MoveMount(fd, "", unix.AT_FDCWD, "/dev/"+name, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
			return fmt.Errorf("keeping /dev/%s: %w", name, err)
		}
	}
	for name, to := range map[string]string{"ptmx": "pts/ptmx", "fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2"} {
		if err := os.Symlink(to, "/dev/"+name); err != nil {
			return err
		}
	}
	return os.Mkdir("/dev/shm", 0o1777)
}

// openTerminal opens a pseudo-terminal of the given size.
func openTerminal(rows, columns uint16) (master, slave *os.File, err error) {
	master, err = os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, nil, err
	}
	// The descriptor is used through a raw connection: Fd would make it blocking.
	raw, err := master.SyscallConn()
	if err != nil {
		return nil, nil, errors.Join(err, master.Close())
	}
	controlErr := raw.Control(func(fd uintptr) {
		if err = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0); err != nil {
			return
		}
		// By its descriptor, not by its path, which may belong to another /dev/pts.
		peer, _, errno := unix.Syscall(unix.SYS_IOCTL, fd, unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
		if errno != 0 {
			err = errno
			return
		}
		slave = os.NewFile(peer, "terminal")
		err = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: columns})
	})
	if err = errors.Join(controlErr, err); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("opening a terminal: %w", err), master.Close())
	}
	return master, slave, nil
}
