package clients

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// nestedAttacks are tried as root of a user namespace of the attacker's own.
func nestedAttacks() []attack {
	mountAt := func(t target, f func(at string) error) (string, error) {
		at := filepath.Join(t.Dir, "mnt")
		if err := os.MkdirAll(at, 0o755); err != nil {
			return "", err
		}
		defer os.Remove(at)
		if err := f(at); err != nil {
			return "", err
		}
		defer unix.Unmount(at, unix.MNT_DETACH)
		return anyOf([]string{at + t.rootKey(), filepath.Join(at, strings.TrimPrefix(t.rootKey(), t.Home)), at + "/root.key"}, read)
	}
	return []attack{
		{"unmount what hides it", func(t target) (string, error) {
			if err := unix.Unmount(t.Postern, unix.MNT_DETACH); err != nil {
				return "", err
			}
			return read(t.rootKey())
		}},
		{"unmount the home", func(t target) (string, error) {
			if err := unix.Unmount(t.Home, unix.MNT_DETACH); err != nil {
				return "", err
			}
			return read(t.rootKey())
		}},
		{"bind the root elsewhere", func(t target) (string, error) {
			return mountAt(t, func(at string) error { return unix.Mount("/", at, "", unix.MS_BIND, "") })
		}},
		{"bind the home elsewhere", func(t target) (string, error) {
			return mountAt(t, func(at string) error { return unix.Mount(t.Home, at, "", unix.MS_BIND, "") })
		}},
		{"bind the home with all in it, then unmount", func(t target) (string, error) {
			return mountAt(t, func(at string) error {
				if err := unix.Mount(t.Home, at, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
					return err
				}
				return unix.Unmount(filepath.Join(at, strings.TrimPrefix(t.Postern, t.Home)), unix.MNT_DETACH)
			})
		}},
		{"an overlay over the home", func(t target) (string, error) {
			return mountAt(t, func(at string) error {
				return unix.Mount("overlay", at, "overlay", 0, "lowerdir="+t.Home+":"+t.Dir)
			})
		}},
		{"clone the tree", func(t target) (string, error) {
			fd, err := unix.OpenTree(unix.AT_FDCWD, t.Home, unix.OPEN_TREE_CLONE)
			if err != nil {
				return "", err
			}
			defer unix.Close(fd)
			return read(fmt.Sprintf("/proc/self/fd/%d%s/root.key", fd, strings.TrimPrefix(t.Postern, t.Home)))
		}},
		{"by a handle", func(t target) (string, error) {
			return anyOf([]string{t.Home, t.Dir, "/", "/tmp", "/proc/1/root"}, t.byHandle)
		}},
		{"make a start-up file writable", func(t target) (string, error) {
			if err := unix.Mount("", t.Start+"/.bashrc", "", unix.MS_REMOUNT|unix.MS_BIND, ""); err != nil {
				return "", err
			}
			return appendTo(t.Start + "/.bashrc")
		}},
		{"pivot to another root", func(t target) (string, error) {
			if err := unix.Chroot("/proc/1/root"); err != nil {
				return "", err
			}
			return read(t.rootKey())
		}},
	}
}
