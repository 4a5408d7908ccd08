package setup

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"postern/internal/catalog"
	"postern/internal/dotenv"
	"postern/internal/placeholder"
)

// The files that setup extends.
const (
	ignoreName  = ".gitignore"
	exampleName = dotenv.ExampleName
	shareMode   = 0o644 // of a new one: both are meant to be shared
)

// TextPlan is a file without secrets as it will be: .gitignore, .env.example,
// the ecosystem file for pm2.
type TextPlan struct {
	Name  string `json:"name"`
	New   bool   `json:"new"`
	Lines int    `json:"lines"` // added
	was   []byte
	data  []byte
	mode  fs.FileMode // of a new one, shareMode where it is 0
}

// planTexts decides which lines are missing where. A file that cannot be read
// as an ordinary one becomes a problem and stays.
func (p *Plan) planTexts() []TextPlan {
	var texts []TextPlan
	for _, make := range []func(*Plan) (TextPlan, bool, error){planIgnore, planExample, planPM2} {
		t, wanted, err := make(p)
		switch {
		case err != nil:
			p.Problems = append(p.Problems, problem(t.Name, err))
		case wanted:
			texts = append(texts, t)
		}
	}
	return texts
}

// planIgnore keeps .env files out of git, where git is in use.
func planIgnore(p *Plan) (TextPlan, bool, error) {
	t, err := readText(p.Dir, ignoreName)
	if err != nil || t.New && !p.found.Git || len(p.found.Files) == 0 {
		return t, false, err
	}
	names := make([]string, 0, len(p.found.Files))
	for _, f := range p.found.Files {
		names = append(names, f.Name)
	}
	missing := dotenv.IgnoreLines(t.was, names...)
	t.add(missing)
	return t, len(missing) > 0, nil
}

// planExample makes .env.example from the first .env file, or adds to it the
// variables that it lacks. What stands in it stays.
func planExample(p *Plan) (TextPlan, bool, error) {
	t, err := readText(p.Dir, exampleName)
	if err != nil || len(p.found.Files) == 0 {
		return t, false, err
	}
	model, err := p.example(p.found.Files[0])
	if err != nil {
		return t, false, err
	}
	if t.New {
		t.data, t.Lines = model.Bytes(), bytes.Count(model.Bytes(), []byte("\n"))
		return t, len(model.Entries()) > 0, nil
	}
	there, err := dotenv.Parse(t.was, p.found.Dialect)
	if err != nil {
		return t, false, err
	}
	has := map[string]bool{}
	for _, e := range there.Entries() {
		has[e.Key] = true
	}
	var missing []string
	for _, e := range model.Entries() {
		if has[e.Key] || e.Bare {
			continue
		}
		// What no line can say alike to every loader goes without.
		if line, err := dotenv.Line(e.Key, e.Literal); err == nil && !strings.ContainsAny(line, "\r\n") {
			has[e.Key] = true
			missing = append(missing, line)
		}
	}
	t.add(missing)
	return t, len(missing) > 0, nil
}

// example is a .env file with a template in the place of every secret, those
// in comments included. What is not certain to be harmless is a template too.
func (p *Plan) example(src EnvFile) (*dotenv.File, error) {
	data := src.snap.Data
	for _, c := range commented(src.file, p.kinds) {
		if m, found := c.known(p.kinds); found {
			data = bytes.ReplaceAll(data, []byte(c.value), []byte(exampleOf(m.Kind)))
		}
	}
	file, err := dotenv.Parse(data, p.found.Dialect)
	if err != nil {
		return nil, err
	}
	if file, err = dotenv.Example(file, p.template); err != nil {
		return nil, err
	}
	out := file.Bytes()
	for _, s := range p.Secrets { // whatever is embedded elsewhere
		err := s.value.Reveal(func(b []byte) error {
			out = bytes.ReplaceAll(out, b, []byte(exampleOf(s.kind)))
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	for _, at := range slices.Backward(placeholder.Find(out)) {
		out = slices.Concat(out[:at[0]], []byte("your-value-here"), out[at[1]:])
	}
	return dotenv.Parse(out, p.found.Dialect)
}

// exampleOf is what stands in the place of a secret of a kind, which may be nil.
func exampleOf(k *catalog.Kind) string {
	if k != nil && k.Example != "" {
		return k.Example
	}
	return "your-value-here"
}

// template is what stands in an example in the place of a secret. A list of keys
// becomes one word, a text around a key stays.
func (p *Plan) template(e dotenv.Entry) (string, bool) {
	found := pieces(p.kinds, e.Key, e.Literal)
	if len(found) == 0 {
		return "", false
	}
	text, word, around := e.Literal, "", e.Literal
	for _, piece := range slices.Backward(found) {
		word = exampleOf(piece.match.Kind)
		if piece.ours {
			word = exampleOf(p.kindOf(e.Literal[piece.start:piece.end]))
		}
		text = text[:piece.start] + word + text[piece.end:]
		around = around[:piece.start] + around[piece.end:]
	}
	if strings.Trim(around, " \t\r\n,;") == "" {
		return word, true
	}
	return text, true
}

// kindOf is the kind behind a placeholder of this agent, nil where it is not
// known.
func (p *Plan) kindOf(token string) *catalog.Kind {
	k, err := p.kinds.Kind(p.stored[p.holdings[token]].Kind)
	if err != nil {
		return nil
	}
	return k
}

// readText reads a small ordinary file; New where there is none.
func readText(dir, name string) (TextPlan, error) {
	t := TextPlan{Name: name}
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) {
		t.New = true
		return t, nil
	}
	if err != nil {
		return t, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return t, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxOther {
		return t, errors.New("it is not an ordinary small file")
	}
	t.was, err = io.ReadAll(io.LimitReader(f, maxOther))
	return t, err
}

// add appends lines, in the line ends of the file.
func (t *TextPlan) add(lines []string) {
	end := "\n"
	if bytes.Contains(t.was, []byte("\r\n")) {
		end = "\r\n"
	}
	t.data = slices.Clone(t.was)
	if n := len(t.data); n > 0 && t.data[n-1] != '\n' {
		t.data = append(t.data, end...)
	}
	for _, l := range lines {
		t.data = append(t.data, l+end...)
	}
	t.Lines = len(lines)
}
