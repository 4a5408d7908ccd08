package setup

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"postern/internal/catalog"
	"postern/internal/change"
	"postern/internal/credential"
	"postern/internal/secret"
)

// home is an installation in one sealed file, written anew by every change:
// safe, agents and journal in one, so that a killed process leaves what a real
// store would. step is told of every write.
type home struct {
	dir  string
	step func()
}

type content struct {
	Credentials  []credential.Credential
	Values       map[string][]byte
	Agents       []credential.Agent
	Placeholders []credential.Placeholder
	Runs         []change.RunInfo
	Changes      []change.Change
	Left         map[string][]string
}

func (h home) aead() cipher.AEAD {
	block, err := aes.NewCipher(bytes.Repeat([]byte{9}, 32))
	if err != nil {
		panic(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		panic(err)
	}
	return aead
}

func (h home) Seal(_ context.Context, purpose string, plain []byte) ([]byte, error) {
	nonce := make([]byte, 12)
	_, _ = rand.Read(nonce)
	return h.aead().Seal(nonce, nonce, plain, []byte(purpose)), nil
}

func (h home) Unseal(_ context.Context, purpose string, sealed []byte) ([]byte, error) {
	return h.aead().Open(nil, sealed[:12], sealed[12:], []byte(purpose))
}

func (h home) path() string { return filepath.Join(h.dir, "state") }

func (h home) load() (content, error) {
	c := content{Values: map[string][]byte{}}
	sealed, err := os.ReadFile(h.path())
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return c, err
	}
	plain, err := h.Unseal(context.Background(), "state", sealed)
	if err != nil {
		return c, err
	}
	return c, json.Unmarshal(plain, &c)
}

func (h home) edit(do func(*content)) error {
	c, err := h.load()
	if err != nil {
		return err
	}
	do(&c)
	plain, err := json.Marshal(c)
	if err != nil {
		return err
	}
	sealed, err := h.Seal(context.Background(), "state", plain)
	if err != nil {
		return err
	}
	if err := os.WriteFile(h.path()+".new", sealed, 0o600); err != nil {
		return err
	}
	if err := os.Rename(h.path()+".new", h.path()); err != nil {
		return err
	}
	if h.step != nil {
		h.step()
	}
	return nil
}

// safeOf, agentsOf and journalOf are the faces of a home.
type (
	safeOf    struct{ home }
	agentsOf  struct{ home }
	journalOf struct{ home }
)

func (s safeOf) List(context.Context) ([]credential.Credential, error) {
	c, err := s.load()
	return c.Credentials, err
}

func (s safeOf) Fingerprint(v secret.Value) (string, error) {
	return v.Fingerprint([]byte("test")), nil
}

func (s safeOf) Put(_ context.Context, c credential.Credential, v secret.Value) (credential.Version, error) {
	version := credential.Version{Number: 1, State: credential.Current, Fingerprint: v.Fingerprint([]byte("test"))}
	c.Versions = []credential.Version{version}
	return version, s.edit(func(all *content) {
		all.Credentials = append(all.Credentials, c)
		_ = v.Reveal(func(b []byte) error { all.Values[c.Name] = bytes.Clone(b); return nil })
	})
}

func (s safeOf) SetRestored(_ context.Context, name string, restored bool) error {
	return s.edit(func(all *content) {
		for i := range all.Credentials {
			if all.Credentials[i].Name == name {
				all.Credentials[i].Restored = restored
			}
		}
	})
}

func (a agentsOf) List(context.Context) ([]credential.Agent, error) {
	c, err := a.load()
	return c.Agents, err
}

func (a agentsOf) Add(_ context.Context, agent credential.Agent) error {
	return a.edit(func(c *content) { c.Agents = append(c.Agents, agent) })
}

func (a agentsOf) Placeholders(_ context.Context, agent string) ([]credential.Placeholder, error) {
	c, err := a.load()
	return slices.DeleteFunc(c.Placeholders, func(p credential.Placeholder) bool { return p.Agent != agent }), err
}

func (a agentsOf) AddPlaceholder(_ context.Context, p credential.Placeholder) error {
	return a.edit(func(c *content) { c.Placeholders = append(c.Placeholders, p) })
}

func (a agentsOf) Left(_ context.Context, agent string) ([]string, error) {
	c, err := a.load()
	return c.Left[agent], err
}

func (a agentsOf) SetLeft(_ context.Context, agent string, prints []string) error {
	return a.edit(func(c *content) { c.Left = map[string][]string{agent: prints} })
}

func (j journalOf) BeginRun(_ context.Context, command string, at time.Time) (id int64, err error) {
	err = j.edit(func(c *content) {
		id = int64(len(c.Runs) + 1)
		c.Runs = append(c.Runs, change.RunInfo{ID: id, Command: command, Started: at, State: change.Open})
	})
	return id, err
}

func (j journalOf) PutChange(_ context.Context, one change.Change) error {
	return j.edit(func(c *content) {
		i := slices.IndexFunc(c.Changes, func(o change.Change) bool { return o.Run == one.Run && o.Seq == one.Seq })
		if i < 0 {
			c.Changes = append(c.Changes, one)
		} else {
			c.Changes[i] = one
		}
	})
}

func (j journalOf) SetRun(_ context.Context, id int64, state string, at time.Time) error {
	return j.edit(func(c *content) { c.Runs[id-1].State, c.Runs[id-1].Finished = state, at })
}

func (j journalOf) Runs(context.Context) ([]change.RunInfo, error) {
	c, err := j.load()
	return c.Runs, err
}

func (j journalOf) Changes(_ context.Context, run int64) ([]change.Change, error) {
	c, err := j.load()
	return slices.DeleteFunc(c.Changes, func(o change.Change) bool { return o.Run != run }), err
}

// lines is a policy of one line a grant.
type lines struct{ path string }

func (l lines) Path() string { return l.path }

func (l lines) WithGrants(current []byte, g Grants) ([]byte, error) {
	out := slices.Clone(current)
	add := func(line string) {
		if !bytes.Contains(out, []byte(line+"\n")) {
			out = append(out, line+"\n"...)
		}
	}
	for _, c := range g.Credentials {
		add(fmt.Sprintf("%s %s %s", g.Agent, c.Credential, strings.Join(c.Hosts, " ")))
	}
	for _, t := range g.TCP {
		add(g.Agent + " tcp " + t)
	}
	return out, nil
}

func (h home) journal() *change.Journal {
	j := change.New(journalOf{h}, h)
	j.Merge = Merge
	return j
}

func (h home) deps() Deps {
	return Deps{
		Safe: safeOf{h}, Agents: agentsOf{h}, Policy: lines{filepath.Join(h.dir, "policy")}, Journal: h.journal(), Choices: agentsOf{h},
		Now: time.Now, Random: rand.Reader,
	}
}

func kinds(t testing.TB) *catalog.Catalog {
	t.Helper()
	c, err := catalog.Open("")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (h home) plan(t testing.TB, dir string) *Plan {
	t.Helper()
	found, err := Find(dir)
	if err != nil {
		t.Fatal(err)
	}
	p, err := MakePlan(t.Context(), h.input(t, found))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (h home) input(t testing.TB, found Found) Input {
	t.Helper()
	return Input{Found: found, Kinds: kinds(t), Inventory: safeOf{h}, Agents: agentsOf{h}, Choices: agentsOf{h}}
}

func (h home) apply(t testing.TB, dir string) Result {
	t.Helper()
	result, err := h.plan(t, dir).Apply(t.Context(), h.deps(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return result
}

func (h home) undo(t testing.TB) change.Report {
	t.Helper()
	report, err := h.journal().Undo(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	return report
}

// random is n characters; no literal token stands in this file.
func random(n int) string {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
	b := make([]byte, n)
	for i := range b {
		b[i] = letters[mathrand.IntN(len(letters))]
	}
	return string(b)
}

func anthropicKey() string { return "sk-ant-api03-" + random(93) + "AA" }
func stripeKey() string    { return "sk_" + "live_" + random(24) }
func openaiKey() string    { return "sk-proj-" + random(74) + "T3Blbk" + "FJ" + random(74) }

func put(t testing.TB, dir, name, data string, mode fs.FileMode) {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

func get(t testing.TB, dir, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// snap is every file of dir with its bytes, mode, owner and time.
func snap(t testing.TB, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		data := ""
		if info.Mode().IsRegular() {
			data = get(t, dir, e.Name())
		}
		owner := info.Sys().(*syscall.Stat_t)
		all[e.Name()] = fmt.Sprintf("%v %d:%d %d\n%s", info.Mode(), owner.Uid, owner.Gid, info.ModTime().UnixNano(), data)
	}
	return all
}

func same(t testing.TB, what string, got, want map[string]string) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("%s (-want +got):\n%s", what, diff)
	}
}

// forms are the ways in which a value might be written down.
func forms(value string) []string {
	list := []string{value, hex.EncodeToString([]byte(value))}
	for shift := range 3 {
		text := base64.StdEncoding.EncodeToString([]byte(strings.Repeat("x", shift) + value))
		list = append(list, strings.Trim(text[4:min(len(text)-4, 44)], "="))
	}
	return list
}

// search fails where a value stands in any form in any file below dir.
func search(t testing.TB, dir string, values ...string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, v := range values {
			for _, form := range forms(v) {
				if bytes.Contains(b, []byte(form)) {
					t.Errorf("a value is readable in %s", path)
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
