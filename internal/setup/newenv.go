package setup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"postern/internal/catalog"
	"postern/internal/change"
	"postern/internal/dotenv"
	"postern/internal/fail"
)

const envName = ".env"

// NewEnv is a .env made from nothing, with its .env.example and .gitignore
// lines. Nothing of it is written yet.
type NewEnv struct {
	Dir   string     // absolute, without symbolic links
	Files []TextPlan // what is made or extended, .env last
}

// PlanNewEnv plans a .env in dir with the variables, or with those of the
// .env.example that is there. It fails with fail.Conflict where there is a .env
// already. kinds give comments and examples to the variables that they know.
func PlanNewEnv(dir string, kinds []*catalog.Kind, variables []string) (*NewEnv, error) {
	real, err := resolve(dir)
	if err != nil {
		return nil, err
	}
	if _, err := os.Lstat(filepath.Join(real, envName)); err == nil {
		return nil, fail.New(fail.Conflict, "P-E036", "will not make %s", filepath.Join(dir, envName)).
			Because("there is one already").Hint("postern setup %s   to protect what is in it", dir)
	}
	ignore, err := readText(real, ignoreName)
	if err != nil {
		return nil, unmade(ignoreName, err)
	}
	example, err := readText(real, exampleName)
	if err != nil {
		return nil, unmade(exampleName, err)
	}
	env := TextPlan{Name: envName, New: true, mode: 0o600}
	if env.data, err = newEnvData(&example, kinds, variables); err != nil {
		return nil, err
	}
	env.Lines = bytes.Count(env.data, []byte("\n"))
	n := &NewEnv{Dir: real}
	if missing := dotenv.IgnoreLines(ignore.was); len(missing) > 0 {
		ignore.add(missing)
		n.Files = append(n.Files, ignore)
	}
	if !bytes.Equal(example.data, example.was) {
		n.Files = append(n.Files, example)
	}
	n.Files = append(n.Files, env)
	return n, nil
}

func unmade(name string, err error) error {
	return fail.New(fail.Invalid, "P-E040", "could not look at %s", name).Wrap(err)
}

// newEnvData gives the bytes of the new .env and extends the example.
func newEnvData(example *TextPlan, kinds []*catalog.Kind, variables []string) ([]byte, error) {
	var shown, real []dotenv.Variable
	for i, name := range variables {
		if slices.Contains(variables[:i], name) {
			continue
		}
		text, comment := "your-value-here", ""
		if k := kindOfVariable(kinds, name); k != nil {
			comment = k.Title
			if k.Console != "" {
				comment += ", from " + k.Console
			}
			if k.Example != "" {
				text = k.Example
			}
		}
		shown = append(shown, dotenv.Variable{Name: name, Value: text, Comment: comment})
		real = append(real, dotenv.Variable{Name: name, Comment: comment})
	}
	example.data = example.was
	if example.New {
		data, err := dotenv.Init("Copy this to .env and put the values in. This file is for everybody.", shown)
		if err != nil {
			return nil, err
		}
		example.data, example.Lines = data, bytes.Count(data, []byte("\n"))
		return dotenv.Init("The values of this file are secret: it is not for git.", real)
	}
	there, err := dotenv.Parse(example.was, dotenv.Node)
	if err != nil {
		return nil, err
	}
	missing, added := []string(nil), []dotenv.Variable(nil)
	for i, v := range shown {
		if slices.ContainsFunc(there.Entries(), func(e dotenv.Entry) bool { return e.Key == v.Name }) {
			continue
		}
		line, err := dotenv.Line(v.Name, v.Value)
		if err != nil {
			return nil, err
		}
		missing, added = append(missing, line), append(added, real[i])
	}
	env := TextPlan{was: example.was}
	lines, err := dotenv.Init("", added)
	if err != nil {
		return nil, err
	}
	env.add(nil)
	if len(missing) > 0 {
		example.add(missing)
	}
	return append(env.data, lines...), nil
}

func kindOfVariable(kinds []*catalog.Kind, name string) *catalog.Kind {
	for _, k := range kinds {
		if slices.Contains(k.Env, name) {
			return k
		}
	}
	return nil
}

// Names are the files that are made or extended.
func (n *NewEnv) Names() []string {
	names := make([]string, 0, len(n.Files))
	for _, f := range n.Files {
		names = append(names, f.Name)
	}
	return names
}

// Write makes the files within a run of the journal, so that undo takes them
// back.
func (n *NewEnv) Write(ctx context.Context, run *change.Run) error {
	for _, f := range n.Files {
		if err := f.write(ctx, run, n.Dir); err != nil {
			return err
		}
	}
	return nil
}

// Make makes the files where there is no journal yet. On a failure what was
// made is taken back.
func (n *NewEnv) Make() error {
	for i, f := range n.Files {
		if err := f.make(n.Dir); err != nil {
			for _, done := range n.Files[:i] {
				err = errors.Join(err, done.unmake(n.Dir))
			}
			return fail.New(fail.Invalid, "P-E041", "could not make %s", filepath.Join(n.Dir, f.Name)).Wrap(err)
		}
	}
	return nil
}

// make creates a file, or appends to the one that was read.
func (t TextPlan) make(dir string) error {
	path := filepath.Join(dir, t.Name)
	flags, data := os.O_WRONLY|os.O_CREATE|os.O_EXCL|syscall.O_NOFOLLOW, t.data
	if !t.New {
		if now, err := readText(dir, t.Name); err != nil || !bytes.Equal(now.was, t.was) {
			return errors.Join(err, errors.New("it was changed just now"))
		}
		flags, data = os.O_WRONLY|os.O_APPEND|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, t.data[len(t.was):]
	}
	f, err := os.OpenFile(path, flags, t.modeOrShared())
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(err, t.unmake(dir))
	}
	return nil
}

func (t TextPlan) unmake(dir string) error {
	path := filepath.Join(dir, t.Name)
	if t.New {
		return os.Remove(path)
	}
	return os.Truncate(path, int64(len(t.was)))
}

func (t TextPlan) modeOrShared() fs.FileMode {
	if t.mode != 0 {
		return t.mode
	}
	return shareMode
}

// write makes or extends the file within a run.
func (t TextPlan) write(ctx context.Context, run *change.Run, dir string) error {
	path := filepath.Join(dir, t.Name)
	var err error
	if t.New {
		err = run.Create(ctx, path, t.data, t.modeOrShared())
	} else {
		err = run.Replace(ctx, path, t.was, t.data, 0o777)
	}
	if err != nil {
		return fmt.Errorf("writing %s: %w", t.Name, err)
	}
	return nil
}
