package safe

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"postern/internal/fail"
	"postern/internal/secret"
)

const (
	keyBytes  = 32
	saltBytes = 32
	// keyHead begins the text of a root key in a file or credential.
	keyHead = "postern-root-key-1 "
	// keyTextMax bounds what is read; the text has 63 bytes.
	keyTextMax = 256
)

// keyText is the written form of a root key: one line.
func keyText(key []byte) []byte {
	return append(base64.RawURLEncoding.AppendEncode([]byte(keyHead), key), '\n')
}

// parseKey reads what keyText wrote.
func parseKey(text []byte) (secret.Value, error) {
	rest, found := bytes.CutPrefix(bytes.TrimSpace(text), []byte(keyHead))
	if !found {
		return secret.Value{}, errors.New("it does not hold a root key")
	}
	key, err := base64.RawURLEncoding.Strict().AppendDecode(nil, rest)
	defer clear(key)
	if err != nil || len(key) != keyBytes {
		return secret.Value{}, errors.New("the root key in it is cut off or changed")
	}
	return secret.New(key), nil
}

func newSalt() ([]byte, error) {
	salt := make([]byte, saltBytes)
	_, err := rand.Read(salt)
	return salt, err
}

type keyFile struct {
	path      string
	replacing bool // the key is in the file beside as long as that is there
}

// KeyFile is the key in the file at path, which must be an ordinary file that
// belongs to us or to root and that nobody else can read or write. Whoever can
// read the file can open the safe: it is the weakest of the roots.
func KeyFile(path string) Root { return keyFile{path: path} }

// NewKeyFile makes a key file with a new random key, mode 0600; root gives it to
// the owner of its directory. It is complete and on disk when it appears at
// path; a file that is there is fail.Conflict.
func NewKeyFile(path string) (Root, error) {
	key := make([]byte, keyBytes)
	defer clear(key)
	if _, err := rand.Read(key); err != nil {
		return nil, keyFileError(path, err)
	}
	text := keyText(key)
	defer clear(text)
	if err := writeNew(path, text); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return nil, fail.New(fail.Conflict, "P-E069", "could not make the key file %s", path).
				Because("there is a file of this name, and another safe may need it").Wrap(err)
		}
		return nil, keyFileError(path, err)
	}
	return keyFile{path: path}, nil
}

// nextSuffix names the key file that is about to take the place of another.
const nextSuffix = ".next"

// ReplaceKeyFile makes a new key file in place of the one at path. rekey must
// make the safe open with the root it gets, or fail; after a kill at any point
// KeyFile(path) opens the safe that it opened before.
func ReplaceKeyFile(path string, rekey func(Root) error) error {
	// One that is there was left by a kill or an error, and may be what opens the
	// safe now; it is as good as a new one.
	if _, err := NewKeyFile(path + nextSuffix); err != nil && !fail.Is(err, fail.Conflict) {
		return err
	}
	if err := rekey(keyFile{path: path, replacing: true}); err != nil {
		return err
	}
	return keyFile{path: path}.settle()
}

// Successor is the key file that was about to take the place of this one when a
// process was killed, false where there is none. settle finishes that, and is
// called once the successor has opened the safe.
func (k keyFile) Successor() (next Root, settle func() error, found bool) {
	if _, err := os.Lstat(k.path + nextSuffix); err != nil {
		return nil, nil, false
	}
	return keyFile{path: k.path, replacing: true}, k.settle, true
}

func (k keyFile) settle() error {
	err := os.Rename(k.path+nextSuffix, k.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // done already
	}
	if err != nil {
		return keyFileError(k.path, err)
	}
	return syncDir(filepath.Dir(k.path))
}

func (k keyFile) Kind() string             { return KindKeyFile }
func (k keyFile) NewSalt() ([]byte, error) { return newSalt() }

func (k keyFile) Key(context.Context, []byte) (secret.Value, error) {
	text, err := k.read()
	defer clear(text)
	if err != nil {
		return secret.Value{}, keyFileError(k.path, err)
	}
	key, err := parseKey(text)
	if err != nil {
		return secret.Value{}, keyFileError(k.path, err)
	}
	return key, nil
}

func (k keyFile) read() ([]byte, error) {
	if k.replacing {
		if text, err := readPrivate(k.path + nextSuffix); !errors.Is(err, fs.ErrNotExist) {
			return text, err
		}
	}
	return readPrivate(k.path)
}

func keyFileError(path string, err error) error {
	var known *fail.Error
	if errors.As(err, &known) {
		return err
	}
	e := fail.New(fail.Locked, "P-E069", "could not use the key file %s", path).Wrap(err)
	if errors.Is(err, fs.ErrNotExist) {
		return e.Because("there is no such file")
	}
	if errors.Is(err, errLoose) {
		return e.Hint("chmod 600 %s", path)
	}
	return e
}

var errLoose = errors.New("others can read or write it")

// readPrivate reads a small ordinary file that only its owner can read.
func readPrivate(path string) ([]byte, error) {
	// Not blocking, so that a FIFO cannot hold us up.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if errors.Is(err, syscall.ELOOP) {
		return nil, errors.New("it is a symbolic link")
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("it is not an ordinary file")
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return nil, fmt.Errorf("%w (mode %03o)", errLoose, mode)
	}
	owner, isUnix := info.Sys().(*syscall.Stat_t)
	if us := os.Geteuid(); isUnix && us != 0 && owner.Uid != 0 && int(owner.Uid) != us {
		return nil, errors.New("it belongs to another user")
	}
	return readSmall(f)
}

func readSmall(r io.Reader) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(r, keyTextMax+1))
	if err == nil && len(text) > keyTextMax {
		err = errors.New("it is too long for a root key")
	}
	return text, err
}

// writeNew makes a file that must not be there, mode 0600. It appears under its
// name only when its bytes are on disk.
func writeNew(path string, data []byte) error {
	dir := filepath.Dir(path)
	temp := filepath.Join(dir, ".postern-key-"+rand.Text())
	f, err := os.OpenFile(temp, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = errors.Join(err, giveToOwner(f, dir), f.Sync(), f.Close())
	if err == nil {
		err = unix.Renameat2(unix.AT_FDCWD, temp, unix.AT_FDCWD, path, unix.RENAME_NOREPLACE)
	}
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) { // file systems that know no such rename
		err = errors.Join(os.Link(temp, path), os.Remove(temp))
	}
	if err != nil {
		_ = os.Remove(temp)
		return err
	}
	return syncDir(dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// giveToOwner gives a file that root has just made to the owner of dir.
func giveToOwner(f *os.File, dir string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	owner, isUnix := info.Sys().(*syscall.Stat_t)
	if !isUnix || owner.Uid == 0 {
		return nil
	}
	return f.Chown(int(owner.Uid), int(owner.Gid))
}
