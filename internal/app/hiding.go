package app

import (
	"os"
	"path/filepath"
	"slices"
	"strings"

	"postern/internal/config"
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
		".pm2/dump.pm2", ".pm2/dump.pm2.bak",
	}
}

// startPlaces are run by shells, sessions and git without being asked for: who
// can write them runs outside of the sandbox the next time.
func startPlaces() []string {
	return []string{
		".bashrc", ".bash_profile", ".bash_login", ".bash_logout", ".bash_aliases", ".profile", ".zshrc", ".zshenv", ".zprofile", ".zlogin",
		".config/fish", ".config/systemd", ".config/autostart", ".config/environment.d", ".local/share/systemd", ".xprofile", ".xinitrc",
		".gitconfig", ".config/git", ".vimrc", ".vim", ".config/nvim", ".tmux.conf", ".pam_environment", ".pm2/module_conf.json",
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

// within says whether path is dir or lies below it.
func within(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}

// readOnly are the places that cannot be changed inside: start-up files, hooks,
// and this very program.
func readOnly(home, dir string) []string {
	places := append(startFiles(home), filepath.Join(dir, ".git", "hooks"))
	if program, err := os.Executable(); err == nil {
		places = append(places, program)
	}
	return places
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
