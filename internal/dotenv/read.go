package dotenv

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"postern/internal/fail"
)

// Snapshot is a file at the moment of reading.
type Snapshot struct {
	Path string // absolute, without symbolic links
	Data []byte
	Mode fs.FileMode // permission bits with setuid, setgid and sticky
	UID  int
	GID  int
	// Links is how many names the file has. A change reaches only one of them.
	Links uint64
}

// Read reads an ordinary file of at most MaxBytes. A symbolic link at path is
// followed only within its own directory; a FIFO or device is refused without
// waiting on it.
func Read(path string) (Snapshot, error) {
	real, err := locate(path)
	if err != nil {
		return Snapshot{}, err
	}
	// Opening a FIFO must not wait for a writer, and a link that has come in
	// between must not be followed.
	f, err := os.OpenFile(real, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return Snapshot{}, unreadable(path, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return Snapshot{}, unreadable(path, err)
	}
	if !info.Mode().IsRegular() {
		return Snapshot{}, refuse(path, "it is %s, not an ordinary file", sort(info.Mode()))
	}
	s := Snapshot{Path: real, Mode: info.Mode() & (fs.ModePerm | fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky)}
	if st, is := info.Sys().(*syscall.Stat_t); is {
		s.UID, s.GID, s.Links = int(st.Uid), int(st.Gid), uint64(st.Nlink)
	}
	if s.Data, err = io.ReadAll(io.LimitReader(f, MaxBytes+1)); err != nil {
		return Snapshot{}, unreadable(path, err)
	}
	if info.Size() > MaxBytes || len(s.Data) > MaxBytes {
		return Snapshot{}, refuse(path, "it is larger than %d MiB", MaxBytes>>20)
	}
	return s, nil
}

// locate follows the links to the directory, and one at path itself only
// within that directory.
func locate(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", unreadable(path, err)
	}
	dir, err := filepath.EvalSymlinks(filepath.Dir(abs))
	if err != nil {
		return "", unreadable(path, err)
	}
	full := filepath.Join(dir, filepath.Base(abs))
	info, err := os.Lstat(full)
	if err != nil {
		return "", unreadable(path, err)
	}
	switch {
	case info.Mode()&fs.ModeSymlink != 0:
		target, err := filepath.EvalSymlinks(full)
		if err != nil {
			return "", refuse(path, "it is a symbolic link that leads nowhere")
		}
		if filepath.Dir(target) != dir {
			return "", refuse(path, "it is a symbolic link to %s, outside its own directory", target)
		}
		return target, nil
	case !info.Mode().IsRegular():
		return "", refuse(path, "it is %s, not an ordinary file", sort(info.Mode()))
	}
	return full, nil
}

// sort is a mode in words.
func sort(m fs.FileMode) string {
	switch {
	case m.IsDir():
		return "a directory"
	case m&fs.ModeNamedPipe != 0:
		return "a FIFO"
	case m&fs.ModeSocket != 0:
		return "a socket"
	case m&fs.ModeDevice != 0:
		return "a device"
	}
	return "something special"
}

func refuse(path, why string, args ...any) error {
	return fail.New(fail.Invalid, "P-E030", "will not read %s", path).Because(why, args...).
		Hint("ls -l %s   then make it an ordinary file of its own", path)
}

func unreadable(path string, err error) error {
	if errors.Is(err, syscall.ELOOP) {
		return refuse(path, "it has become a symbolic link")
	}
	e := fail.New(fail.Invalid, "P-E032", "could not read %s", path).Wrap(err)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		e.Kind = fail.NotFound
		return e.Because("there is no such file").Hint("postern env init   makes one")
	case errors.Is(err, fs.ErrPermission):
		return e.Because("this user may not read it").Hint("ls -l %s", path)
	}
	return e.Because("%v", reasonOf(err))
}

// reasonOf leaves out the path, which stands in the text already.
func reasonOf(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

// Detect says which loader the project in dir uses.
func Detect(dir string) Dialect {
	d, _ := DetectWhy(dir)
	return d
}

// DetectWhy is Detect with the reason, a clause for people. A project chooses by
// a comment "# dotenv: python" or "# dotenv: node" before the first variable of
// its .env. Else its files tell; Node's reading is taken where both loaders are
// in use or nothing tells.
func DetectWhy(dir string) (Dialect, string) {
	if snap, err := Read(filepath.Join(dir, ".env")); err == nil {
		if d, found := chosen(snap.Data); found {
			return d, "its first lines say so"
		}
	}
	has := func(names ...string) string {
		for _, name := range names {
			if _, err := os.Lstat(filepath.Join(dir, name)); err == nil {
				return name
			}
		}
		return ""
	}
	node := has("package.json", "node_modules", "deno.json", "bun.lockb")
	python := has("requirements.txt", "pyproject.toml", "uv.lock", "poetry.lock", "Pipfile", "setup.py", "setup.cfg")
	if node == "" && python == "" {
		node, python = byEnding(dir)
	}
	switch {
	case node != "" && python != "":
		return Node, fmt.Sprintf("there are %s and %s; Node's reading is taken", node, python)
	case python != "":
		return Python, "there is " + python
	case node != "":
		return Node, "there is " + node
	}
	return Node, "nothing tells which loader is in use"
}

// chosen reads the project's own choice in the comments at the top.
func chosen(data []byte) (Dialect, bool) {
	for line := range strings.Lines(strings.TrimPrefix(string(data), "\ufeff")) {
		text, comment := strings.CutPrefix(strings.TrimSpace(line), "#")
		if !comment && text != "" {
			return Node, false
		}
		if name, found := strings.CutPrefix(strings.TrimSpace(text), "dotenv:"); found {
			if d, err := ParseDialect(strings.TrimSpace(name)); err == nil {
				return d, true
			}
		}
	}
	return Node, false
}

// byEnding names the first program of either language.
func byEnding(dir string) (node, python string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", ""
	}
	for _, e := range entries {
		switch filepath.Ext(e.Name()) {
		case ".js", ".mjs", ".cjs", ".ts":
			if node == "" {
				node = e.Name()
			}
		case ".py":
			if python == "" {
				python = e.Name()
			}
		}
	}
	return node, python
}
