package app

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"postern/internal/config"
	"postern/internal/run"
)

// secretPlaces are where programs keep keys, histories and logins below a home
// directory.
func secretPlaces() []string {
	return []string{
		".ssh", ".aws", ".azure", ".kube", ".docker", ".gnupg", ".password-store", ".oci", ".terraform.d",
		".config/gh", ".config/gcloud", ".config/op", ".config/doppler", ".config/hub", ".config/sops", ".config/rclone",
		".config/google-chrome", ".config/chromium", ".mozilla", ".local/share/keyrings", ".local/share/kwalletd",
		".netrc", ".pypirc", ".npmrc", ".git-credentials", ".config/git/credentials", ".vault-token", ".pgpass", ".my.cnf",
		".bash_history", ".zsh_history", ".python_history", ".node_repl_history", ".psql_history", ".lesshst",
		".pm2", // the environments of all its programs, and its sockets
	}
}

// startPlaces are run by shells, sessions and git without being asked for: who
// can write them runs outside of the sandbox the next time.
func startPlaces() []string {
	return []string{
		".bashrc", ".bash_profile", ".bash_login", ".bash_logout", ".bash_aliases", ".profile", ".zshrc", ".zshenv", ".zprofile", ".zlogin",
		".config/fish", ".config/systemd", ".config/autostart", ".config/environment.d", ".local/share/systemd", ".xprofile", ".xinitrc",
		".gitconfig", ".config/git", ".vimrc", ".vim", ".config/nvim", ".tmux.conf", ".pam_environment",
		// Hidden where they are there; where not, tools that find them later do what they say.
		".ssh/authorized_keys", ".ssh/config", ".ssh/rc", ".aws/config", ".kube/config", ".npmrc", ".docker/config.json",
	}
}

// socketPatterns are sockets outside of /run that lead out.
func socketPatterns() []string {
	return []string{"/tmp/ssh-*", "/tmp/tmux-*", "/tmp/screens", "/tmp/.X11-unix", "/tmp/.ICE-unix", "/tmp/dbus-*", "/tmp/postern-[0-9]*-*", "/var/run/docker.sock"}
}

// hidden are the places that are empty inside, but for those that are granted. A
// place stays hidden where only something below it is granted: run shows that.
func hidden(paths config.Paths, home, runtime string, granted []string) []string {
	places := []string{paths.State, paths.Config, paths.Runtime, paths.SocketDir()}
	if runtime != "" {
		places = append(places, runtime)
	}
	var open []string
	for _, place := range secretPlaces() {
		if home != "" {
			open = append(open, filepath.Join(home, place))
		}
	}
	for _, pattern := range socketPatterns() {
		found, err := filepath.Glob(pattern)
		if err == nil {
			open = append(open, found...)
		}
	}
	open = slices.DeleteFunc(open, func(place string) bool {
		return slices.ContainsFunc(granted, func(g string) bool { return within(place, g) })
	})
	places = append(places, open...)
	slices.Sort(places)
	return slices.Compact(places)
}

// tmuxDir is where the tmux of a user puts its sockets; tmp is TMUX_TMPDIR. It is
// made where it is missing: only what exists can be hidden, and a server that is
// started later would run whatever it is told outside. The last run that needs it
// takes it away again where it is empty.
func tmuxDir(tmp string, who *run.User) (dir string, release func()) {
	uid, gid := os.Geteuid(), os.Getegid()
	if who != nil {
		uid, gid = int(who.UID), int(who.GID)
	}
	if !filepath.IsAbs(tmp) {
		tmp = "/tmp"
	}
	dir = filepath.Join(tmp, "tmux-"+strconv.Itoa(uid))
	for range 10 { // another run may take it away just now
		if os.Mkdir(dir, 0o700) == nil && who != nil {
			_ = os.Lchown(dir, uid, gid) // tmux says so where it cannot use it
		}
		fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			break
		}
		var held, there unix.Stat_t
		if unix.Flock(fd, unix.LOCK_SH) == nil && unix.Fstat(fd, &held) == nil && unix.Lstat(dir, &there) == nil && held.Ino == there.Ino {
			return dir, func() {
				if unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) == nil {
					_ = os.Remove(dir) // one with sockets in it stays
				}
				_ = unix.Close(fd)
			}
		}
		_ = unix.Close(fd)
	}
	return dir, func() {}
}

// within says whether path is dir or lies below it.
func within(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}

// readOnly are the places that cannot be changed inside: start-up files, hooks,
// and this very program.
func readOnly(home, dir string) []string {
	places := append(startFiles(home), hooks(dir)...)
	if program, err := os.Executable(); err == nil {
		places = append(places, program)
	}
	return places
}

// hooks are the directories of git's hooks that a command in dir could reach: of
// its own repository, of those around it, and where a work tree's file leads.
func hooks(dir string) []string {
	var places []string
	for at := dir; ; at = filepath.Dir(at) {
		git := filepath.Join(at, ".git")
		places = append(places, filepath.Join(git, "hooks"))
		if text, err := readShort(git); err == nil {
			if to, found := strings.CutPrefix(text, "gitdir: "); found {
				places = append(places, linkedHooks(at, to)...)
			}
		}
		if at == filepath.Dir(at) {
			return places
		}
	}
}

// linkedHooks are the hooks of a repository that lies elsewhere: to is what the
// .git file in at says.
func linkedHooks(at, to string) []string {
	if !filepath.IsAbs(to) {
		to = filepath.Join(at, to)
	}
	places := []string{filepath.Join(to, "hooks")}
	if common, err := readShort(filepath.Join(to, "commondir")); err == nil {
		if !filepath.IsAbs(common) {
			common = filepath.Join(to, common)
		}
		places = append(places, filepath.Join(common, "hooks"))
	}
	return places
}

// readShort is the first line of a small ordinary file.
func readShort(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() || info.Size() > 4096 {
		return "", os.ErrInvalid
	}
	data, err := os.ReadFile(path)
	line, _, _ := strings.Cut(string(data), "\n")
	return strings.TrimSpace(line), err
}

func startFiles(home string) []string {
	var places []string
	for _, place := range startPlaces() {
		if home != "" {
			places = append(places, filepath.Join(home, place))
		}
	}
	return places
}

// missing are those of paths that do not exist.
func missing(paths []string) []string {
	return slices.DeleteFunc(slices.Clone(paths), func(path string) bool {
		_, err := os.Lstat(path)
		return err == nil
	})
}
