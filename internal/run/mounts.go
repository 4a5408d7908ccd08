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

const (
	plainMount = unix.MS_NOSUID | unix.MS_NODEV
	dataMount  = plainMount | unix.MS_NOEXEC
)

// runDir is where the host keeps its sockets; inside it is always a fresh one.
const runDir = "/run"

// setUpMounts gives the mount namespace its view of the files.
func setUpMounts(s *start) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("separating the mounts: %w", err)
	}
	shown, err := hold(s.Shown)
	if err != nil {
		return err
	}
	defer shown.close()
	if err := pin(slices.Concat(s.Hidden, s.ReadOnly)); err != nil {
		return err
	}
	for _, path := range s.ReadOnly {
		if err := readOnly(path); err != nil {
			return err
		}
	}
	c, err := openCover()
	if err != nil {
		return err
	}
	if err := c.everything(s); err != nil {
		return errors.Join(err, c.close())
	}
	if err := c.close(); err != nil {
		return err
	}
	if err := freshRun(s); err != nil {
		return err
	}
	if err := shown.bind(); err != nil {
		return err
	}
	for _, path := range c.hidden { // only now, because places for what is shown were made in them
		if err := seal(path, 0); err != nil {
			return err
		}
	}
	if err := freshDevices(s.AsRoot); err != nil {
		return err
	}
	return freshProc(s.AsRoot)
}

// freshProc mounts /proc for the new process namespace. Where the system covers
// parts of its own (a container), that is forbidden; then the old one stays,
// which shows the processes of the host but none of their memory: they are in
// another user namespace.
func freshProc(asRoot bool) error {
	err := unix.Mount("proc", "/proc", "proc", dataMount, "")
	if err != nil && !(errors.Is(err, unix.EPERM) && !asRoot) {
		return fmt.Errorf("mounting /proc: %w", err)
	}
	if !asRoot {
		return nil
	}
	for _, path := range []string{"/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus", "/proc/fs", "/sys"} {
		if err := readOnly(path); err != nil {
			return err
		}
	}
	return nil
}

// pin keeps the directories above paths where they are: one that could be renamed
// would take what is protected along and leave its name free for another. A
// directory that is a mount of its own cannot be renamed.
func pin(paths []string) error {
	pinned := map[string]bool{}
	for _, path := range paths {
		var above []string
		for dir := filepath.Dir(path); dir != "/" && dir != "."; dir = filepath.Dir(dir) {
			if unix.Access(filepath.Dir(dir), unix.W_OK) == nil {
				above = append(above, dir)
			}
		}
		slices.Reverse(above) // the outer one first: a later mount on it would hide the inner one
		for _, dir := range above {
			if pinned[dir] {
				continue
			}
			pinned[dir] = true
			err := unix.Mount(dir, dir, "", unix.MS_BIND|unix.MS_REC, "")
			if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTDIR) && !errors.Is(err, unix.EACCES) {
				return fmt.Errorf("pinning %s: %w", dir, err)
			}
		}
	}
	return nil
}

// readOnly makes what is at path unchangeable; what is not there is passed over.
func readOnly(path string) error {
	if err := unix.Mount(path, path, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.EACCES) {
			return nil
		}
		return fmt.Errorf("making %s read-only: %w", path, err)
	}
	return seal(path, unix.AT_RECURSIVE)
}

// seal makes the mount at path read-only and leaves its other flags as they are.
func seal(path string, flags uint) error {
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	err := unix.MountSetattr(unix.AT_FDCWD, path, flags, &attr)
	if errors.Is(err, unix.ENOSYS) { // before Linux 5.12
		err = sealOne(path)
	}
	if err != nil {
		return fmt.Errorf("making %s read-only: %w", path, err)
	}
	return nil
}

// sealOne does so for a single mount, with the flags that the kernel wants to be
// told again.
func sealOne(path string) error {
	var now unix.Statfs_t
	if err := unix.Statfs(path, &now); err != nil {
		return err
	}
	const kept = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_NOATIME | unix.MS_NODIRATIME | unix.MS_RELATIME
	return unix.Mount("", path, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|uintptr(now.Flags)&kept, "")
}

// cover puts files of ours over others. They lie on a file system in memory that
// has no place of its own once it is closed.
type cover struct {
	count  int
	hidden []string
}

func openCover() (*cover, error) {
	if err := unix.Mount("tmpfs", runDir, "tmpfs", dataMount, "mode=0755,size=32m"); err != nil {
		return nil, fmt.Errorf("covering %s: %w", runDir, err)
	}
	return &cover{}, nil
}

func (c *cover) close() error {
	if err := unix.Unmount(runDir, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("covering %s: %w", runDir, err)
	}
	return nil
}

// everything covers what the start names outside of /run.
func (c *cover) everything(s *start) error {
	for _, path := range s.Masked {
		if err := c.put(path, nil, 0); err != nil {
			return err
		}
	}
	for _, path := range outermost(s.Hidden) {
		if below(path, runDir) {
			continue
		}
		if err := c.hide(path); err != nil {
			return err
		}
	}
	for _, o := range s.Overlay {
		if err := c.put(o.Path, o.data, 0o444); err != nil {
			return err
		}
	}
	return nil
}

// hide makes path empty: a directory stays one, anything else becomes a file
// that cannot be read.
func (c *cover) hide(path string) error {
	path, info, err := target(path)
	switch {
	case err != nil:
		return fmt.Errorf("covering %s: %w", path, err)
	case info == nil || below(path, runDir):
		return nil
	case !info.IsDir():
		return c.put(path, nil, 0)
	}
	if err := unix.Mount("tmpfs", path, "tmpfs", plainMount, "mode=0755,size=64k"); err != nil {
		return fmt.Errorf("covering %s: %w", path, err)
	}
	c.hidden = append(c.hidden, path)
	return nil
}

// put puts a file of ours over the one at path; what is not there stays so.
func (c *cover) put(path string, data []byte, mode fs.FileMode) error {
	path, info, err := target(path)
	if err != nil {
		return fmt.Errorf("covering %s: %w", path, err)
	}
	if info == nil || info.IsDir() || below(path, runDir) {
		return nil
	}
	c.count++
	own := filepath.Join(runDir, strconv.Itoa(c.count))
	if err := write(own, data, mode); err != nil {
		return fmt.Errorf("covering %s: %w", path, err)
	}
	if err := unix.Mount(own, path, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("covering %s: %w", path, err)
	}
	return seal(path, 0)
}

// write makes a file with exactly this mode.
func write(path string, data []byte, mode fs.FileMode) error {
	if err := os.WriteFile(path, data, 0o600); err != nil {
		return err
	}
	return os.Chmod(path, mode)
}

// target follows the links of path. Without a file there, or where it cannot be
// reached (and so by no command either), info is nil.
func target(path string) (string, fs.FileInfo, error) {
	resolved, err := filepath.EvalSymlinks(path)
	if err == nil {
		var info fs.FileInfo
		if info, err = os.Lstat(resolved); err == nil {
			return resolved, info, nil
		}
	}
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.ENOTDIR) {
		return path, nil, nil
	}
	return path, nil, err
}

// freshRun mounts an empty /run that programs can use as they expect, with the
// files of the overlay that belong there.
func freshRun(s *start) error {
	links := map[string]string{}
	for _, o := range s.Overlay {
		links[o.Path] = landing(o.Path)
	}
	if err := unix.Mount("tmpfs", runDir, "tmpfs", plainMount, "mode=0755"); err != nil {
		return fmt.Errorf("covering %s: %w", runDir, err)
	}
	uid := os.Getuid()
	if s.User != nil {
		uid = int(s.User.UID)
	}
	own := filepath.Join(runDir, "user", strconv.Itoa(uid))
	if err := errors.Join(os.MkdirAll(own, 0o700), os.Mkdir(filepath.Join(runDir, "lock"), 0o777),
		os.Chmod(filepath.Join(runDir, "user"), 0o755), os.Chmod(filepath.Join(runDir, "lock"), 0o1777)); err != nil {
		return err
	}
	if uid != os.Getuid() {
		if err := os.Chown(own, uid, int(s.User.GID)); err != nil {
			return err
		}
	}
	for _, o := range s.Overlay {
		path := links[o.Path]
		if !below(path, runDir) {
			continue
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := write(path, o.data, 0o444); err != nil {
			return err
		}
	}
	return nil
}

// landing is where the links of path lead, even where nothing is there.
func landing(path string) string {
	for range 40 {
		link, err := os.Readlink(path)
		if err != nil {
			break
		}
		if !filepath.IsAbs(link) {
			link = filepath.Join(filepath.Dir(path), link)
		}
		path = link
	}
	if rest, found := strings.CutPrefix(path, "/var/run/"); found {
		return filepath.Join(runDir, rest)
	}
	return path
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
		h[landing(path)] = fd
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
	if _, err := os.Lstat(path); err == nil {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, nil, 0o644)
}

func (h held) close() {
	for _, fd := range h {
		_ = unix.Close(fd)
	}
}

// below says whether path is dir or lies in it.
func below(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}

// outermost leaves out what lies below another of the paths.
func outermost(paths []string) []string {
	sorted := make([]string, 0, len(paths))
	for _, path := range paths {
		sorted = append(sorted, filepath.Clean(path))
	}
	slices.Sort(sorted)
	var kept []string
	for _, path := range sorted {
		if !slices.ContainsFunc(kept, func(outer string) bool { return below(path, outer) }) {
			kept = append(kept, path)
		}
	}
	return kept
}
