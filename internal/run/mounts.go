package run

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// setUpMounts gives the mount namespace its view of the files.
func setUpMounts(s *start) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("separating the mounts: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mounting /proc: %w", err)
	}
	shown, err := hold(s.Shown)
	if err != nil {
		return err
	}
	defer shown.close()
	scratch, err := openScratch(s.Scratch)
	if err != nil {
		return err
	}
	for _, path := range s.ReadOnly {
		if err := readOnly(path); err != nil {
			return err
		}
	}
	for _, path := range s.Masked {
		if err := scratch.cover(path, nil, 0); err != nil {
			return err
		}
	}
	for _, path := range outermost(s.Hidden) {
		if path == s.Scratch {
			continue // covered last: the files of the overlay lie in it
		}
		if err := scratch.hide(path); err != nil {
			return err
		}
	}
	if err := shown.bind(); err != nil {
		return err
	}
	for path, data := range s.Overlay {
		if err := scratch.cover(path, data, 0o444); err != nil {
			return err
		}
	}
	return scratch.close()
}

// readOnly makes what is at path unchangeable; what is not there is passed over.
func readOnly(path string) error {
	if err := unix.Mount(path, path, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
			return nil
		}
		return fmt.Errorf("making %s read-only: %w", path, err)
	}
	return seal(path, unix.AT_RECURSIVE)
}

// seal makes the mount at path read-only and leaves its other flags as they are.
func seal(path string, flags uint) error {
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	if err := unix.MountSetattr(unix.AT_FDCWD, path, flags, &attr); err != nil {
		return fmt.Errorf("making %s read-only: %w", path, err)
	}
	return nil
}

// scratch is where the files of the overlay lie: a file system in memory over a
// directory that is covered once more in the end.
type scratch struct {
	dir   string
	count int
}

func openScratch(dir string) (*scratch, error) {
	if dir == "" {
		return nil, errors.New("no directory was given for the files of the sandbox")
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0755,size=16m"); err != nil {
		return nil, fmt.Errorf("covering %s: %w", dir, err)
	}
	return &scratch{dir: dir}, nil
}

// close covers the directory itself.
func (s *scratch) close() error { return cover(s.dir) }

// cover hides a directory under an empty one that cannot be changed.
func cover(dir string) error {
	const flags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	if err := unix.Mount("tmpfs", dir, "tmpfs", flags|unix.MS_RDONLY, "mode=0555,size=4k"); err != nil {
		return fmt.Errorf("covering %s: %w", dir, err)
	}
	return nil
}

// hide makes path empty: a directory stays one, anything else becomes a file
// that cannot be read. /run stays writable, because programs expect it to be.
func (s *scratch) hide(path string) error {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("covering %s: %w", path, err)
	case !info.IsDir():
		return s.cover(path, nil, 0)
	case path == "/run":
		if err := unix.Mount("tmpfs", path, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755"); err != nil {
			return fmt.Errorf("covering %s: %w", path, err)
		}
		return nil
	}
	return cover(path)
}

// cover puts a file of ours over the one at path. Links are followed, and what
// is missing is made where that can be done: only on a file system of ours.
func (s *scratch) cover(path string, data []byte, mode fs.FileMode) error {
	target, err := resolved(path)
	if err != nil {
		return fmt.Errorf("covering %s: %w", path, err)
	}
	if err := ensureFile(target); err != nil {
		if data == nil || errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.EROFS) {
			return nil // not there, so there is nothing to cover
		}
		return fmt.Errorf("covering %s: %w", path, err)
	}
	s.count++
	own := filepath.Join(s.dir, strconv.Itoa(s.count))
	if err := os.WriteFile(own, data, 0o600); err != nil {
		return fmt.Errorf("covering %s: %w", path, err)
	}
	if err := os.Chmod(own, mode); err != nil {
		return fmt.Errorf("covering %s: %w", path, err)
	}
	if err := unix.Mount(own, target, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("covering %s: %w", path, err)
	}
	return seal(target, 0)
}

// resolved follows the links of path; its last elements may be missing.
func resolved(path string) (string, error) {
	for range 40 {
		link, err := os.Readlink(path)
		if err != nil {
			return path, nil
		}
		if !filepath.IsAbs(link) {
			link = filepath.Join(filepath.Dir(path), link)
		}
		path = link
	}
	return "", unix.ELOOP
}

func ensureFile(path string) error {
	if _, err := os.Lstat(path); err == nil {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	return file.Close()
}

// held are paths that were opened before what lies above them is hidden.
type held map[string]int

func hold(paths []string) (held, error) {
	h := held{}
	for _, path := range paths {
		fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
		if errors.Is(err, fs.ErrNotExist) {
			continue // the service is not running
		}
		if err != nil {
			h.close()
			return nil, fmt.Errorf("showing %s: %w", path, err)
		}
		h[path] = fd
	}
	return h, nil
}

// bind shows them again.
func (h held) bind() error {
	for path, fd := range h {
		var there, real unix.Stat_t
		if err := unix.Fstat(fd, &real); err != nil {
			return err
		}
		if unix.Stat(path, &there) == nil && there.Ino == real.Ino && there.Dev == real.Dev {
			continue // not hidden
		}
		if err := makePlace(path, real.Mode&unix.S_IFMT == unix.S_IFDIR); err != nil {
			return fmt.Errorf("showing %s: %w", path, err)
		}
		if err := unix.Mount("/proc/self/fd/"+strconv.Itoa(fd), path, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return fmt.Errorf("showing %s: %w", path, err)
		}
	}
	return nil
}

func makePlace(path string, dir bool) error {
	if dir {
		return os.MkdirAll(path, 0o755)
	}
	return ensureFile(path)
}

func (h held) close() {
	for _, fd := range h {
		_ = unix.Close(fd)
	}
}

// outermost leaves out what lies below another of the paths.
func outermost(paths []string) []string {
	sorted := slices.Clone(paths)
	slices.Sort(sorted)
	var kept []string
	for _, path := range sorted {
		path = filepath.Clean(path)
		if len(kept) > 0 && (path == kept[len(kept)-1] || strings.HasPrefix(path, strings.TrimSuffix(kept[len(kept)-1], "/")+"/")) {
			continue
		}
		kept = append(kept, path)
	}
	return kept
}
