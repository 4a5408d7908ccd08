package run

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

const maxSockets = 512 // that are hidden one by one

// hostSockets are the local sockets of the host that a process in another mount
// namespace could still connect to: those that listen now, wherever they lie, and
// the directories in which the usual agents make theirs. What lies below /run is
// hidden as a whole.
func hostSockets(shown []string) []string {
	data, err := os.ReadFile("/proc/net/unix")
	if err != nil {
		data = nil
	}
	found := listening(data)
	for _, pattern := range []string{"/tmp/ssh-*", "/tmp/tmux-*", "/tmp/screens", "/tmp/.X11-unix", "/tmp/.ICE-unix", "/tmp/dbus-*", "/tmp/.s.PGSQL.*"} {
		if names, err := filepath.Glob(pattern); err == nil {
			found = append(found, names...)
		}
	}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) && dir != "/" {
		found = append(found, dir)
	}
	found = slices.DeleteFunc(found, func(path string) bool {
		return below(path, runDir) || below(path, "/var/run") || slices.ContainsFunc(shown, func(granted string) bool { return below(path, granted) })
	})
	slices.Sort(found)
	found = slices.Compact(found)
	return found[:min(len(found), maxSockets)]
}

// listening reads the paths of listening sockets from the kernel's table.
func listening(table []byte) []string {
	const accepting = "00010000" // __SO_ACCEPTCON
	var paths []string
	for line := range bytes.Lines(table) {
		// Num RefCount Protocol Flags Type St Inode Path
		fields := strings.SplitN(strings.Join(strings.Fields(string(line)), " "), " ", 8)
		if len(fields) == 8 && fields[3] == accepting && strings.HasPrefix(fields[7], "/") {
			paths = append(paths, filepath.Clean(fields[7]))
		}
	}
	return paths
}
