// Package config says where Postern's files are and what the owner chose:
// defaults, then config.yaml, then the environment, into typed structs. Flags
// come last and are the command's own business.
package config

import (
	"errors"
	"io/fs"
	"os"
	"strconv"

	"postern/internal/fail"
	"postern/internal/strictyaml"
)

// Config is everything that can be chosen outside policy.yaml.
type Config struct {
	Upstream Upstream `yaml:"upstream,omitempty"`
	Safe     Safe     `yaml:"safe,omitempty"`
	Ledger   Ledger   `yaml:"ledger,omitempty"`
	Run      Run      `yaml:"run,omitempty"`
}

// Upstream is how the providers are reached.
type Upstream struct {
	// Dial leads "host:port" to "addr:port", for tests and self-hosted
	// providers. It goes past the address check and is shown wherever the state
	// is shown. Hosts are lower case, without a final dot.
	Dial map[string]string `yaml:"dial,omitempty"`
	// CAFile holds more roots that upstream certificates may come from, beside
	// the public ones; absolute once loaded.
	CAFile string `yaml:"ca_file,omitempty"`
}

// Safe is how the safe is unlocked.
type Safe struct {
	Root           string `yaml:"root,omitempty"`            // one of the Root constants; empty: nobody chose yet
	KeyFile        string `yaml:"key_file,omitempty"`        // for RootKeyFile, absolute once loaded
	CredentialFile string `yaml:"credential_file,omitempty"` // for RootSystemd: the encrypted credential, absolute once loaded
}

// The sources of the safe's root key.
const (
	RootKeyFile    = "keyfile"
	RootPassphrase = "passphrase"
	RootSystemd    = "systemd"
)

// Ledger is how the ledger is kept.
type Ledger struct {
	ReserveMB int `yaml:"reserve_mb,omitempty"` // MiB set aside for refusals when the disk is full
}

const (
	defaultReserveMB = 8 // some 20,000 records
	maxReserveMB     = 1024
)

// Run is how agents are started.
type Run struct {
	Mode    string `yaml:"mode,omitempty"`     // one of the Mode constants
	NewKeys string `yaml:"new_keys,omitempty"` // one of the NewKeys constants
}

// The run modes: ModeAuto takes the enforced one where the system allows it, and
// says so where it does not; ModeEnforced refuses to start without it.
const (
	ModeAuto        = "auto"
	ModeEnforced    = "enforced"
	ModeCooperative = "cooperative"
)

// What to do about a real key that has appeared in a protected file.
const (
	NewKeysAsk    = "ask"
	NewKeysAdopt  = "adopt"
	NewKeysRefuse = "refuse"
)

// Load reads the configuration: defaults, then the file at p.ConfigFile, which
// need not exist, then the environment. Mistakes come back all at once as
// fail.Problems, each with its line.
func Load(p Paths, getenv func(string) string) (Config, error) {
	file := p.ConfigFile()
	data, err := readOwn(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Config{}, fail.New(fail.Invalid, "P-E021", "could not read %s", file).Wrap(err)
	}
	c, err := Parse(p, data)
	if err != nil {
		return Config{}, err
	}
	var problems fail.Problems
	for _, v := range c.variables() {
		if text := getenv(v.name); text != "" {
			if why := v.set(text); why != "" {
				problems = append(problems, fail.Problem{File: v.name, Text: why})
			}
		}
	}
	if problems != nil {
		return Config{}, problems
	}
	return c, nil
}

// Parse is Load for the text of the file, without the environment.
func Parse(p Paths, data []byte) (Config, error) {
	var c Config
	if err := strictyaml.Decode(p.ConfigFile(), data, &c); err != nil {
		return Config{}, err
	}
	c.fill(p, data)
	check := checker{file: p.ConfigFile(), base: p.Config, data: data}
	check.upstream(&c.Upstream)
	check.safe(&c.Safe)
	check.ledger(&c.Ledger)
	check.run(&c.Run)
	if err := check.problems.Err(); err != nil {
		return Config{}, err
	}
	return c, nil
}

// fill puts the defaults where the file, whose text is data, says nothing. It
// comes after decoding: an empty section would wipe out what stood there before.
func (c *Config) fill(p Paths, data []byte) {
	for _, setting := range []struct {
		target *string
		value  string
	}{
		{&c.Safe.KeyFile, p.RootKey()},
		{&c.Safe.CredentialFile, p.RootCredential()},
		{&c.Run.Mode, ModeAuto},
		{&c.Run.NewKeys, NewKeysAsk},
	} {
		if *setting.target == "" {
			*setting.target = setting.value
		}
	}
	if _, _, said := locate(data, []string{"ledger", "reserve_mb"}); c.Ledger.ReserveMB == 0 && !said {
		c.Ledger.ReserveMB = defaultReserveMB
	}
}

// variable is a setting that the environment may override. upstream is not
// among them: where keys are sent is for the file that the owner keeps.
type variable struct {
	name string
	set  func(text string) (problem string)
}

func (c *Config) variables() []variable {
	choice := func(target *string, options ...string) func(string) string {
		return func(text string) string {
			*target = text
			return oneOf(text, options...)
		}
	}
	return []variable{
		{"POSTERN_SAFE_ROOT", choice(&c.Safe.Root, RootKeyFile, RootPassphrase, RootSystemd)},
		{"POSTERN_SAFE_KEY_FILE", func(text string) string {
			c.Safe.KeyFile = text
			return absolute(text)
		}},
		{"POSTERN_RUN_MODE", choice(&c.Run.Mode, ModeAuto, ModeEnforced, ModeCooperative)},
		{"POSTERN_RUN_NEW_KEYS", choice(&c.Run.NewKeys, NewKeysAsk, NewKeysAdopt, NewKeysRefuse)},
		{"POSTERN_LEDGER_RESERVE_MB", func(text string) string {
			n, err := strconv.Atoi(text)
			c.Ledger.ReserveMB = n
			if err != nil {
				return "must be a number of MiB"
			}
			return reserveInRange(n)
		}},
	}
}

// RootsPEM is the content of ca_file, nil without one.
func (u Upstream) RootsPEM() ([]byte, error) {
	if u.CAFile == "" {
		return nil, nil
	}
	data, err := readRegular(u.CAFile, strictyaml.MaxBytes)
	if err == nil && !holdsCertificate(data) {
		err = errors.New("the file holds no certificate in PEM form")
	}
	if err != nil {
		return nil, fail.New(fail.Invalid, "P-E024", "could not read upstream.ca_file %s", u.CAFile).Wrap(err).
			Hint("openssl x509 -in %s -noout -subject   is it a certificate?", u.CAFile)
	}
	return data, nil
}

// readOwn reads a file that decides where keys go: nobody but its owner may be
// able to write it, and the owner must be us, root or the owner of the directory.
func readOwn(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Mode().Perm()&0o002 != 0 {
		return nil, errors.New("every user of this machine may write it; chmod o-w it first")
	}
	if !trustedOwner(path, info) {
		return nil, errors.New("it belongs to another user")
	}
	return readRegular(path, strictyaml.MaxBytes+1)
}
