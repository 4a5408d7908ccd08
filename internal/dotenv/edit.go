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
	before, err := f.readings(loaders)
	if err != nil {
		return err
	}
	size := len(f.data) - (e.end - e.start) + len(literal)
	if size > MaxBytes {
		return f.cannot(i, "the file would be larger than %d MiB", MaxBytes>>20)
	}
	list := forms(f.data[e.start:e.end], literal, bytes.Contains(f.data, []byte("\r\n")))
	for _, all := range []bool{true, false} {
		for _, form := range list {
			data := slices.Concat(f.data[:e.start], []byte(form), f.data[e.end:])
			after, ok := readBack(data, e.key, literal, before, loaders, all)
			if !ok {
				continue
			}
			entries, known := after[f.dialect]
			if !known {
				if entries, err = parse(data, f.dialect); err != nil {
					return err
				}
			}
			f.data, f.entries, f.others = data, entries, after
			return nil
		}
	}
	names := make([]string, 0, len(loaders))
	for _, d := range loaders {
		names = append(names, d.Library())
	}
	return f.cannot(i, "no way to write it is read back by %s", strings.Join(names, " and "))
}

func (f *File) cannot(i int, why string, args ...any) error {
	return fail.New(fail.Invalid, "P-E033", "could not give %s another value on line %d", f.entries[i].Key, f.entries[i].Line).
		Because(why, args...).Hint("postern env check FILE   shows the lines that are read differently")
}

// readings are what each loader reads in the file as it stands.
func (f *File) readings(loaders []Dialect) (map[Dialect][]Entry, error) {
	readings := map[Dialect][]Entry{f.dialect: f.entries}
	for _, d := range loaders {
		if entries, known := f.others[d]; known {
			readings[d] = entries
			continue
		}
		if err := check(f.data, d); err != nil {
			return nil, err
		}
		entries, err := parse(f.data, d)
		if err != nil {
			return nil, err
		}
		readings[d] = entries
	}
	return readings, nil
}

// readBack says whether every loader reads literal for the key at byte key,
// and everything else as before, and gives what they read. Unless all must, a
// loader that did not see the key need not see it now.
func readBack(data []byte, key int, literal string, before map[Dialect][]Entry, loaders []Dialect, all bool) (map[Dialect][]Entry, bool) {
	after := map[Dialect][]Entry{}
	for _, d := range loaders {
		if check(data, d) != nil {
			return nil, false
		}
		entries, err := parse(data, d)
		if err != nil {
			return nil, false
		}
		after[d] = entries
		is := func(e Entry) bool { return e.key == key }
		at, was := slices.IndexFunc(entries, is), slices.IndexFunc(before[d], is)
		if at < 0 && (all || was >= 0) || at >= 0 && (entries[at].Bare || entries[at].Literal != literal) {
			return nil, false
		}
		same := func(a, b Entry) bool { return a.Key == b.Key && a.Literal == b.Literal && a.Bare == b.Bare }
		if !slices.EqualFunc(without(entries, at), without(before[d], was), same) {
			return nil, false
		}
	}
	return after, true
}

func without(entries []Entry, at int) []Entry {
	if at < 0 {
		return entries
	}
	return slices.Concat(entries[:at], entries[at+1:])
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

// needsQuotes is what a shell or another loader may take for more than itself.
func needsQuotes(r rune) bool {
	return r <= ' ' || r > '~' || strings.ContainsRune("'\"`#$\\&|;<>()*?[]{}!~^", r)
}

// Line is NAME=value as all of loaders (by default both) read it back, without
// a line end. Shells read it alike where that can be.
func Line(name, value string, loaders ...Dialect) (string, error) {
	frame := name + "=\n"
	if strings.ContainsFunc(value, needsQuotes) {
		frame = name + "=''\n"
	}
	f, err := Parse([]byte(frame), Node)
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
