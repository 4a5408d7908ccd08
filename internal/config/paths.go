package config

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"postern/internal/fail"
)

// Paths are the directories of an installation, all absolute. The files in
// them have fixed names; the methods know them.
type Paths struct {
	Home    string // what POSTERN_HOME says; empty where the system's places are used
	Config  string // config.yaml, policy.yaml, catalog/
	State   string // state.db, ledger/, keys and certificates
	Runtime string // sockets
	uid     int
}

// Locate finds the directories for the calling user. POSTERN_HOME puts all of
// them in one place; else a user has the XDG directories and root /etc/postern,
// /var/lib/postern and /run/postern. POSTERN_CONFIG and POSTERN_STATE override
// one directory each. Nothing is created.
func Locate(getenv func(string) string) (Paths, error) {
	return locateFor(getenv, os.Geteuid(), "/run/user")
}

func locateFor(getenv func(string) string, uid int, runtimes string) (Paths, error) {
	p := Paths{uid: uid}
	var err error
	home := getenv("POSTERN_HOME")
	switch {
	case home != "":
		if p.Home, err = filepath.Abs(home); err != nil {
			return Paths{}, noHome().Wrap(err)
		}
		p.Config, p.State, p.Runtime = p.Home, p.Home, filepath.Join(p.Home, "run")
	case uid == 0:
		p.Config, p.State, p.Runtime = "/etc/postern", "/var/lib/postern", "/run/postern"
	default:
		if p.Config, err = xdg(getenv, "XDG_CONFIG_HOME", ".config"); err != nil {
			return Paths{}, err
		}
		if p.State, err = xdg(getenv, "XDG_STATE_HOME", ".local/state"); err != nil {
			return Paths{}, err
		}
	}
	for _, over := range []struct {
		name   string
		target *string
	}{{"POSTERN_CONFIG", &p.Config}, {"POSTERN_STATE", &p.State}} {
		if dir := getenv(over.name); dir != "" {
			if *over.target, err = filepath.Abs(dir); err != nil {
				return Paths{}, noHome().Wrap(err)
			}
		}
	}
	if p.Runtime == "" {
		p.Runtime = runtimeDir(getenv, uid, runtimes, p.State)
	}
	return p, nil
}

func xdg(getenv func(string) string, name, below string) (string, error) {
	if dir := getenv(name); filepath.IsAbs(dir) { // a relative one is to be ignored, says the XDG specification
		return filepath.Join(dir, "postern"), nil
	}
	if home := getenv("HOME"); filepath.IsAbs(home) {
		return filepath.Join(home, below, "postern"), nil
	}
	return "", noHome().Because("neither POSTERN_HOME nor HOME is set to an absolute path")
}

func noHome() *fail.Error {
	return fail.New(fail.Invalid, "P-E020", "could not tell where Postern's files are").
		Hint("export POSTERN_HOME=/path/to/a/directory")
}

// runtimeDir is the place for sockets. A session has XDG_RUNTIME_DIR, a cron job
// of the same user has not: both must find the same place.
func runtimeDir(getenv func(string) string, uid int, runtimes, state string) string {
	for _, dir := range []string{getenv("XDG_RUNTIME_DIR"), filepath.Join(runtimes, strconv.Itoa(uid))} {
		if filepath.IsAbs(dir) && checkPrivate(dir, uid) == nil {
			return filepath.Join(dir, "postern")
		}
	}
	return filepath.Join(state, "run")
}

// ConfigFile is the file that Load reads.
func (p Paths) ConfigFile() string { return filepath.Join(p.Config, "config.yaml") }

// PolicyFile says who may use what.
func (p Paths) PolicyFile() string { return filepath.Join(p.Config, "policy.yaml") }

// CatalogDir holds the user's own kinds.
func (p Paths) CatalogDir() string { return filepath.Join(p.Config, "catalog") }

// Database is the file of the store.
func (p Paths) Database() string { return filepath.Join(p.State, "state.db") }

// LedgerDir is the directory of the ledger.
func (p Paths) LedgerDir() string { return filepath.Join(p.State, "ledger") }

// LedgerPublic holds the key that the ledger's checkpoints verify with.
func (p Paths) LedgerPublic() string { return filepath.Join(p.State, "ledger.pub") }

// RootKey is the default place of the key file.
func (p Paths) RootKey() string { return filepath.Join(p.State, "root.key") }

// RootCredential is the default place of the encrypted systemd credential.
func (p Paths) RootCredential() string { return filepath.Join(p.State, "root.cred") }

// CACert is the certificate of the local authority.
func (p Paths) CACert() string { return filepath.Join(p.State, "ca.pem") }

const (
	maxSocketPath = 107 // what sun_path holds without its final NUL (unix(7))
	maxSocketName = 24
)

// SocketDir is where sockets lie: Runtime, or, where its path is too long for
// the path of a socket, a directory with a short, hashed name.
func (p Paths) SocketDir() string {
	if len(p.Runtime)+1+maxSocketName <= maxSocketPath {
		return p.Runtime
	}
	return p.shortRuntime()
}

// Socket is the path of the socket called name, of at most 24 bytes. It is
// refused where SocketDir exists and is not ours, or open to others.
func (p Paths) Socket(name string) (string, error) {
	dir := p.SocketDir()
	if err := checkPrivate(dir, p.uid); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", socketError(dir).Wrap(err)
	}
	if len(name) > maxSocketName {
		return "", socketError(dir).Because("%q is too long for the name of a socket", name)
	}
	return filepath.Join(dir, name), nil
}

func socketError(dir string) *fail.Error {
	return fail.New(fail.Invalid, "P-E023", "could not place a socket in %s", dir).
		Hint("export POSTERN_HOME=/a/shorter/path")
}

// shortRuntime stands in for a runtime directory with a long path. Other users
// can take the name in /tmp first, which checkPrivate finds.
func (p Paths) shortRuntime() string {
	sum := sha256.Sum256([]byte(p.Runtime))
	hash := hex.EncodeToString(sum[:8])
	if p.uid == 0 {
		return "/run/postern-" + hash
	}
	return fmt.Sprintf("/tmp/postern-%d-%s", p.uid, hash)
}
