// Package catalog is the one place that knows providers: what a credential
// looks like, where it may go, how it is put into a request, checked, replaced
// and taken back. Facts stand in providers/*.yaml, one file a provider; files
// of the user in the same format stand beside them.
package catalog

import (
	"embed"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"postern/internal/fail"
)

//go:embed providers/*.yaml
var embedded embed.FS

// Catalog answers questions about kinds. It is safe for concurrent use; what it
// returns is shared and must not be changed.
type Catalog struct {
	files map[string][]*file // by provider; the embedded one first
	all   func() ([]*Kind, error)
}

// file is one provider's file, read when it is first asked for.
type file struct {
	name, provider string
	embedded       bool
	read           func() ([]byte, error)
	once           sync.Once
	kinds          []*Kind
	problems       fail.Problems
}

// Open lists the files; none is read before it is asked for. userDir may be
// empty or not exist; its *.yaml files extend the embedded ones.
func Open(userDir string) (*Catalog, error) {
	c := &Catalog{files: map[string][]*file{}}
	c.all = sync.OnceValues(c.loadAll)
	entries, err := embedded.ReadDir("providers")
	if err != nil {
		return nil, err
	}
	for _, entry := range entries {
		name := "providers/" + entry.Name()
		c.add(name, true, func() ([]byte, error) { return embedded.ReadFile(name) })
	}
	if userDir == "" {
		return c, nil
	}
	users, err := os.ReadDir(userDir)
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return c, fail.New(fail.Invalid, "P-E081", "the catalogue directory %q cannot be read", userDir).Wrap(err)
	}
	for _, entry := range users {
		if filepath.Ext(entry.Name()) == ".yaml" {
			name := filepath.Join(userDir, entry.Name())
			c.add(name, false, func() ([]byte, error) { return readUser(name) })
		}
	}
	return c, nil
}

func (c *Catalog) add(name string, embedded bool, read func() ([]byte, error)) {
	provider := strings.TrimSuffix(filepath.Base(name), ".yaml")
	c.files[provider] = append(c.files[provider], &file{name: name, provider: provider, embedded: embedded, read: read})
}

// Kind returns the kind with id, reading only its provider's files. It returns
// fail.NotFound for an unknown id, and the mistakes of the file where it could
// not be read.
func (c *Catalog) Kind(id string) (*Kind, error) {
	provider, _, _ := strings.Cut(id, ".")
	var problems fail.Problems
	for _, f := range c.files[provider] {
		f.load()
		for _, k := range f.kinds {
			if k.ID == id {
				return k, nil
			}
		}
		problems = append(problems, f.problems...)
	}
	if len(problems) > 0 {
		return nil, problems
	}
	return nil, fail.New(fail.NotFound, "P-E080", "there is no kind %q in the catalogue", id).Hint("postern catalog ls")
}

// Kinds returns all kinds, sorted by id. A broken file of the user does not
// hide the others: then both the good kinds and the mistakes come back.
func (c *Catalog) Kinds() ([]*Kind, error) { return c.all() }

func (c *Catalog) loadAll() ([]*Kind, error) {
	var kinds []*Kind
	var problems fail.Problems
	seen := map[string]*Kind{}
	for _, provider := range c.providers() {
		for _, f := range c.files[provider] {
			f.load()
			problems = append(problems, f.problems...)
			for _, k := range f.kinds {
				if first, found := seen[k.ID]; found {
					problems = append(problems, k.problem(k.ID, "the kind %q stands in %s already, and a file of yours cannot change it; give yours another id", k.ID, first.file))
					continue
				}
				seen[k.ID] = k
				kinds = append(kinds, k)
			}
		}
	}
	slices.SortFunc(kinds, func(a, b *Kind) int { return strings.Compare(a.ID, b.ID) })
	return kinds, problems.Err()
}

func (c *Catalog) providers() []string {
	names := make([]string, 0, len(c.files))
	for name := range c.files {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
