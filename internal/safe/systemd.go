package safe

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"postern/internal/fail"
	"postern/internal/secret"
)

// CredentialName is the name that systemd knows the root key by:
//
//	[Service]
//	LoadCredentialEncrypted=postern-root-key:/etc/postern/root.cred
const CredentialName = "postern-root-key"

// credentialTimeout bounds one call of systemd-creds, which may ask a TPM.
const credentialTimeout = 20 * time.Second

// credentialMax bounds an encrypted credential; one of ours has about 300 bytes.
const credentialMax = 64 << 10

type systemd struct {
	path   string
	getenv func(string) string
}

// SystemdCredential is a key that systemd keeps, bound to this machine and its
// TPM where there is one. In a unit that loads it, it is read from
// $CREDENTIALS_DIRECTORY; elsewhere systemd-creds decrypts the file at path,
// which takes root.
func SystemdCredential(path string, getenv func(string) string) Root { return systemd{path, getenv} }

// NewSystemdCredential encrypts a new random key into the file at path, mode
// 0600, and reads it back. fail.Unavailable, with the reason, where
// systemd-creds does not work; fail.Conflict where the file is there.
func NewSystemdCredential(ctx context.Context, path string, getenv func(string) string) (Root, error) {
	if _, err := os.Lstat(path); err == nil {
		return nil, fail.New(fail.Conflict, "P-E070", "could not make the systemd credential %s", path).
			Because("there is a file of this name, and another safe may need it")
	}
	key := make([]byte, keyBytes)
	defer clear(key)
	if _, err := rand.Read(key); err != nil {
		return nil, credentialError(path, err)
	}
	text := keyText(key)
	defer clear(text)
	sealed, err := systemdCreds(ctx, text, "encrypt", "--name="+CredentialName, "-", "-")
	if err != nil {
		return nil, credentialError(path, err)
	}
	back, err := systemdCreds(ctx, sealed, "decrypt", "--name="+CredentialName, "-", "-")
	defer clear(back)
	if err != nil || !bytes.Equal(back, text) {
		return nil, credentialError(path, errors.Join(errors.New("what was encrypted does not decrypt again"), err))
	}
	if err := writeNew(path, sealed); err != nil {
		return nil, credentialError(path, err)
	}
	return systemd{path, getenv}, nil
}

func (s systemd) Kind() string             { return KindSystemd }
func (s systemd) NewSalt() ([]byte, error) { return newSalt() }

func (s systemd) Key(ctx context.Context, _ []byte) (secret.Value, error) {
	text, err := s.text(ctx)
	defer clear(text)
	if err != nil {
		return secret.Value{}, credentialError(s.path, err)
	}
	key, err := parseKey(text)
	if err != nil {
		return secret.Value{}, credentialError(s.path, err)
	}
	return key, nil
}

func (s systemd) text(ctx context.Context) ([]byte, error) {
	if dir := s.getenv("CREDENTIALS_DIRECTORY"); filepath.IsAbs(dir) {
		f, err := os.Open(filepath.Join(dir, CredentialName))
		if err == nil {
			defer f.Close()
			return readSmall(f)
		}
		if !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
	}
	info, err := os.Stat(s.path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > credentialMax {
		return nil, errors.New("it is not an encrypted credential")
	}
	return systemdCreds(ctx, nil, "decrypt", "--name="+CredentialName, s.path, "-")
}

// systemdCreds runs the tool and returns its standard output.
func systemdCreds(ctx context.Context, in []byte, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, credentialTimeout)
	defer cancel()
	tool, err := exec.LookPath("systemd-creds")
	if err != nil {
		return nil, errors.New("systemd-creds is not installed")
	}
	cmd := exec.CommandContext(ctx, tool, args...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"}
	cmd.Stdin = bytes.NewReader(in)
	var out, problem bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problem
	if err := cmd.Run(); err != nil {
		clear(out.Bytes())
		if last := lastLine(problem.String()); last != "" {
			return nil, fmt.Errorf("systemd-creds says: %s", last)
		}
		return nil, fmt.Errorf("systemd-creds: %w", err)
	}
	return out.Bytes(), nil
}

func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	last := lines[len(lines)-1]
	return last[:min(len(last), 200)]
}

func credentialError(path string, err error) error {
	return fail.New(fail.Unavailable, "P-E070", "could not use the systemd credential %s", path).Wrap(err)
}
