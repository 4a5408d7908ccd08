package safe

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"postern/internal/fail"
	"postern/internal/secret"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wants(t testing.TB, err error, kind fail.Kind) *fail.Error {
	t.Helper()
	var known *fail.Error
	if !fail.Is(err, kind) || !errors.As(err, &known) {
		t.Fatalf("got %v (kind %d), want kind %d", err, fail.KindOf(err), kind)
	}
	return known
}

func key(t testing.TB, r Root, salt []byte) secret.Value {
	t.Helper()
	k, err := r.Key(t.Context(), salt)
	must(t, err)
	if k.Len() != keyBytes {
		t.Fatalf("the key has %d bytes", k.Len())
	}
	return k
}

func TestAKeyFileIsForItsOwnerAlone(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "root.key")
	made, err := NewKeyFile(path)
	must(t, err)
	info, err := os.Lstat(path)
	must(t, err)
	if info.Mode() != 0o600 {
		t.Errorf("it has mode %v", info.Mode())
	}
	again := KeyFile(path)
	if again.Kind() != KindKeyFile || !key(t, again, nil).Equal(key(t, made, nil)) {
		t.Error("it does not read back")
	}
	_, err = NewKeyFile(path)
	wants(t, err, fail.Conflict)
	if !key(t, again, nil).Equal(key(t, made, nil)) {
		t.Error("it was replaced")
	}
	for _, mode := range []fs.FileMode{0o640, 0o604, 0o620, 0o660, 0o777} {
		must(t, os.Chmod(path, mode))
		_, err := again.Key(t.Context(), nil)
		if e := wants(t, err, fail.Locked); len(e.Next) == 0 || !strings.HasPrefix(e.Next[0], "chmod 600 ") {
			t.Errorf("mode %o: %v names no command", mode, e)
		}
	}
	must(t, os.Chmod(path, 0o400))
	key(t, again, nil)
	if names, err := os.ReadDir(filepath.Dir(path)); err != nil || len(names) != 1 {
		t.Errorf("%d files are there (%v)", len(names), err)
	}
}

func TestWhatIsNoKeyFile(t *testing.T) {
	t.Parallel()
	good := filepath.Join(t.TempDir(), "good")
	_, err := NewKeyFile(good)
	must(t, err)
	text, err := os.ReadFile(good)
	must(t, err)
	write := func(b []byte) func(string) error {
		return func(path string) error { return os.WriteFile(path, b, 0o600) }
	}
	for name, makeIt := range map[string]func(string) error{
		"missing":    func(string) error { return nil },
		"empty":      write(nil),
		"cut off":    write(text[:len(text)-5]),
		"head only":  write([]byte(keyHead)),
		"bent":       write(bytes.Replace(text, []byte("root"), []byte("toor"), 1)),
		"two keys":   write(append(bytes.TrimSpace(text), text...)),
		"big":        write(append(text, bytes.Repeat([]byte(" "), 1000)...)),
		"NUL":        write(append(text, 0)),
		"directory":  func(path string) error { return os.Mkdir(path, 0o700) },
		"link":       func(path string) error { return os.Symlink(good, path) },
		"link loop":  func(path string) error { return os.Symlink(path, path) },
		"fifo":       func(path string) error { return syscall.Mkfifo(path, 0o600) },
		"other form": write([]byte("postern-root-key-2 " + strings.Repeat("A", 43))),
	} {
		path := filepath.Join(t.TempDir(), "root.key")
		must(t, makeIt(path))
		_, err := KeyFile(path).Key(t.Context(), nil)
		if e := wants(t, err, fail.Locked); e.ID != "P-E069" || strings.Contains(e.Error(), string(text[20:40])) {
			t.Errorf("%s: %v", name, e)
		}
	}
}

func TestKeyFilesMadeAtTheSameTime(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "root.key")
	var group sync.WaitGroup
	made := make(chan Root, 8)
	for range 8 {
		group.Go(func() {
			if root, err := NewKeyFile(path); err == nil {
				made <- root
			}
		})
	}
	group.Wait()
	if len(made) != 1 {
		t.Errorf("%d think that they have made it", len(made))
	}
}

func TestRootMakesAKeyFileForTheOwnerOfTheDirectory(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away")
	}
	const somebody = 12345
	dir := t.TempDir()
	must(t, os.Chown(dir, somebody, somebody))
	path := filepath.Join(dir, "root.key")
	root, err := NewKeyFile(path)
	must(t, err)
	info, err := os.Stat(path)
	must(t, err)
	if owner := info.Sys().(*syscall.Stat_t).Uid; owner != somebody {
		t.Errorf("it belongs to %d", owner)
	}
	key(t, root, nil)
}

func FuzzParseKey(f *testing.F) {
	f.Add([]byte(keyHead))
	f.Add([]byte(keyHead + strings.Repeat("A", 43) + "\n"))
	f.Add([]byte(keyHead + strings.Repeat("=", 43)))
	f.Fuzz(func(t *testing.T, text []byte) {
		if v, err := parseKey(text); err == nil && v.Len() != keyBytes {
			t.Fatalf("a key of %d bytes", v.Len())
		}
	})
}

// cheap is a passphrase with the lowest cost that is taken.
func cheap(text string) passphrase {
	return passphrase{func() (secret.Value, error) { return secret.New([]byte(text)), nil }, cost{memoryKiB: 8 << 10, passes: 1, lanes: 1}}
}

func TestAPassphraseGivesItsKey(t *testing.T) {
	t.Parallel()
	p := cheap("words")
	salt, err := p.NewSalt()
	must(t, err)
	other, err := p.NewSalt()
	must(t, err)
	if !key(t, p, salt).Equal(key(t, p, salt)) {
		t.Error("the same words and salt give two keys")
	}
	if key(t, p, salt).Equal(key(t, p, other)) || key(t, p, salt).Equal(key(t, cheap("Words"), salt)) {
		t.Error("other words or another salt give the same key")
	}
	// The cost is the safe's, not that of the program that opens it.
	dear := p
	dear.cost = today()
	if !key(t, p, salt).Equal(key(t, dear, salt)) {
		t.Error("a safe made with another cost does not open")
	}
}

func TestThePassphraseOfNewSafesIsDear(t *testing.T) {
	t.Parallel()
	salt, err := Passphrase(nil).NewSalt()
	must(t, err)
	c, err := parseCost(salt)
	must(t, err)
	if want := (cost{64 << 10, 3, 1}); c != want {
		t.Errorf("got %+v, want %+v", c, want)
	}
}

func TestASaltOutOfBoundsIsRefused(t *testing.T) {
	t.Parallel()
	good, err := cheap("x").NewSalt()
	must(t, err)
	set := func(at int, n uint32) []byte {
		salt := bytes.Clone(good)
		binary.BigEndian.PutUint32(salt[at:], n)
		return salt
	}
	lanes := bytes.Clone(good)
	lanes[9] = 0
	form := bytes.Clone(good)
	form[0] = 9
	for name, salt := range map[string][]byte{
		"none": nil, "short": good[:20], "long": append(bytes.Clone(good), 0), "4 TiB": set(1, 1<<32-1), "no memory": set(1, 0), "no passes": set(5, 0),
		"years": set(5, 1<<31), "no lanes": lanes, "form": form,
	} {
		asked := false
		p := Passphrase(func() (secret.Value, error) { asked = true; return secret.Value{}, nil })
		_, err := p.Key(t.Context(), salt)
		if e := wants(t, err, fail.Invalid); e.ID != "P-E065" || asked {
			t.Errorf("%s: %v (asked %v)", name, e, asked)
		}
	}
}

func TestAPassphraseThatIsNotGiven(t *testing.T) {
	t.Parallel()
	salt, err := cheap("x").NewSalt()
	must(t, err)
	no := errors.New("no terminal")
	_, err = Passphrase(func() (secret.Value, error) { return secret.Value{}, no }).Key(t.Context(), salt)
	if !errors.Is(err, no) {
		t.Errorf("got %v", err)
	}
	_, err = cheap("").Key(t.Context(), salt)
	wants(t, err, fail.Invalid)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err = cheap("x").Key(ctx, salt); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func nothing(string) string { return "" }

func TestASystemdCredentialInItsUnit(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	random := []byte(rand.Text() + rand.Text())[:keyBytes]
	must(t, os.WriteFile(filepath.Join(dir, CredentialName), keyText(random), 0o400))
	getenv := func(name string) string { return map[string]string{"CREDENTIALS_DIRECTORY": dir}[name] }
	root := SystemdCredential("/nonexistent", getenv)
	if root.Kind() != KindSystemd || !key(t, root, nil).Equal(secret.New(random)) {
		t.Error("the credential of the unit is not used")
	}
	must(t, os.Remove(filepath.Join(dir, CredentialName)))
	_, err := root.Key(t.Context(), nil)
	wants(t, err, fail.Unavailable)
	_, err = SystemdCredential("/dev/zero", nothing).Key(t.Context(), nil)
	wants(t, err, fail.Unavailable)
}

func TestASystemdCredentialOfThisMachine(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "root.cred")
	made, err := NewSystemdCredential(t.Context(), path, nothing)
	if err != nil {
		if e := wants(t, err, fail.Unavailable); e.Why == "" {
			t.Errorf("%v gives no reason", e)
		}
		if _, err := os.Lstat(path); err == nil {
			t.Error("a file was left")
		}
		t.Skip("no systemd credentials here: ", err)
	}
	k := key(t, made, nil)
	if !key(t, SystemdCredential(path, nothing), nil).Equal(k) {
		t.Error("it does not read back")
	}
	text, err := os.ReadFile(path)
	must(t, err)
	must(t, k.Reveal(func(b []byte) error {
		if bytes.Contains(text, keyText(b)[len(keyHead):60]) {
			t.Error("the file holds the key")
		}
		return nil
	}))
	_, err = NewSystemdCredential(t.Context(), path, nothing)
	wants(t, err, fail.Conflict)
	must(t, os.WriteFile(path, append([]byte("AAAA"), text...), 0o600))
	_, err = made.Key(t.Context(), nil)
	wants(t, err, fail.Unavailable)
}

func TestWithoutTheToolThereAreNoSystemdCredentials(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	_, err := NewSystemdCredential(t.Context(), filepath.Join(t.TempDir(), "root.cred"), nothing)
	if e := wants(t, err, fail.Unavailable); !strings.Contains(e.Why, "not installed") {
		t.Errorf("got %v", e)
	}
	if _, err := exec.LookPath("systemd-creds"); err == nil {
		t.Error("the test has found the tool all the same")
	}
}
