package dotenv

import (
	"bytes"
	"slices"
	"strings"

	"postern/internal/fail"
)

// Set gives entry i another value and touches no byte outside it: comments,
// line ends, spaces stay. It keeps the quotes where it can, and otherwise takes
// the first form that every one of loaders (by default the file's own) reads
// back; what they read elsewhere must stay as it was. Where there is no such
// form it fails with fail.Invalid and the file stays as it was.
//
// The value is meant as it is: where python-dotenv would expand a ${NAME} in
// it, it is refused.
func (f *File) Set(i int, value string, loaders ...Dialect) error {
	if f.expands(loaders) && variable.MatchString(value) {
		return f.cannot(i, "python-dotenv would expand the ${…} in it, whatever the quotes")
	}
	return f.SetLiteral(i, value, loaders...)
}

func (f *File) expands(loaders []Dialect) bool {
	return slices.Contains(loaders, Python) || len(loaders) == 0 && f.dialect == Python
}

// SetLiteral is Set for a text in which ${NAME} is meant to be expanded by the
// loaders that do so.
func (f *File) SetLiteral(i int, literal string, loaders ...Dialect) error {
	e := f.entries[i]
	if e.Bare {
		return f.cannot(i, `it has no "=", so no loader sets it`)
	}
	if strings.IndexByte(literal, 0) >= 0 {
		return f.cannot(i, "no environment variable can hold a NUL byte")
	}
	if len(loaders) == 0 {
		loaders = []Dialect{f.dialect}
	}
	if literal == e.Literal && !slices.ContainsFunc(loaders, func(d Dialect) bool { return d != f.dialect }) {
		return nil
	}
	before := map[Dialect][]Entry{}
	for _, d := range loaders {
		if err := check(f.data, d); err != nil {
			return err
		}
		before[d], _ = parse(f.data, d) // an endless expansion shows only in the end
	}
	size := len(f.data) - (e.end - e.start) + len(literal)
	if size > MaxBytes {
		return f.cannot(i, "the file would be larger than %d MiB", MaxBytes>>20)
	}
	list := forms(f.data[e.start:e.end], literal, bytes.Contains(f.data, []byte("\r\n")))
	for _, all := range []bool{true, false} {
		for _, form := range list {
			data := slices.Concat(f.data[:e.start], []byte(form), f.data[e.end:])
			if !readBack(data, e.key, literal, before, loaders, all) {
				continue
			}
			entries, err := parse(data, f.dialect)
			if err != nil {
				return err
			}
			f.data, f.entries = data, entries
			return nil
		}
	}
	names := make([]string, 0, len(loaders))
	for _, d := range loaders {
		names = append(names, d.library())
	}
	return f.cannot(i, "no way to write it is read back by %s", strings.Join(names, " and "))
}

func (f *File) cannot(i int, why string, args ...any) error {
	return fail.New(fail.Invalid, "P-E033", "could not give %s another value on line %d", f.entries[i].Key, f.entries[i].Line).
		Because(why, args...).Hint("postern env check FILE   shows the lines that loaders read differently")
}

// readBack says whether every loader reads literal for the key at byte key,
// and everything else as before. Unless all must, a loader that did not see the
// key need not see it now.
func readBack(data []byte, key int, literal string, before map[Dialect][]Entry, loaders []Dialect, all bool) bool {
	for _, d := range loaders {
		if check(data, d) != nil {
			return false
		}
		entries, _ := parse(data, d)
		old := before[d]
		is := func(e Entry) bool { return e.key == key }
		at, was := slices.IndexFunc(entries, is), slices.IndexFunc(old, is)
		if was >= 0 {
			old = slices.Delete(slices.Clone(old), was, was+1)
		}
		switch {
		case at >= 0 && entries[at].Literal != literal, at < 0 && (all || was >= 0), at >= 0 && entries[at].Bare:
			return false
		case at >= 0:
			entries = slices.Delete(entries, at, at+1)
		}
		same := func(a, b Entry) bool { return a.Key == b.Key && a.Literal == b.Literal && a.Bare == b.Bare }
		if !slices.EqualFunc(entries, old, same) {
			return false
		}
	}
	return true
}

// forms are the ways to write a text, the best first: in the quotes that are
// there, plain, in other quotes, with escapes.
func forms(was []byte, text string, crlf bool) []string {
	lines := text
	if crlf {
		lines = strings.ReplaceAll(text, "\n", "\r\n") // loaders read LF
	}
	list := []string{text, "'" + lines + "'", `"` + lines + `"`, "`" + lines + "`"}
	if len(was) > 1 && was[0] == was[len(was)-1] {
		if at := strings.IndexByte(`x'"`+"`", was[0]); at > 0 {
			list = append([]string{list[at]}, list...)
		}
	}
	breaks := strings.NewReplacer("\n", `\n`, "\r", `\r`)
	single := strings.NewReplacer(`\`, `\\`, `'`, `\'`)
	double := strings.NewReplacer(`\`, `\\`, `"`, `\"`)
	return append(list,
		`"`+breaks.Replace(text)+`"`,
		"'"+single.Replace(lines)+"'",
		`"`+double.Replace(lines)+`"`,
		`"`+breaks.Replace(double.Replace(text))+`"`)
}

// Line is NAME=value as all of loaders read it back, without a line end.
func Line(name, value string, loaders ...Dialect) (string, error) {
	frame := []byte(name + "=\n")
	f, err := Parse(frame, Node)
	if err != nil {
		return "", err
	}
	if len(f.entries) != 1 || f.entries[0].Key != name {
		return "", fail.New(fail.Invalid, "P-E034", "%q cannot be the name of a variable", name).
			Because("loaders read letters, digits, _ . and -")
	}
	if len(loaders) == 0 {
		loaders = []Dialect{Node, Python}
	}
	if err := f.Set(0, value, loaders...); err != nil {
		return "", err
	}
	return strings.TrimSuffix(string(f.data), "\n"), nil
}
