package setup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"postern/internal/change"
	"postern/internal/dotenv"
	"postern/internal/placeholder"
	"postern/internal/secret"
)

// Merge takes a change of setup out of a file that was edited since, and
// keeps the edits; it is the Merge of the journal. An edited .env.example or
// ecosystem file stays as it is: it holds no secret. Of the others, every block
// of lines that the change wrote is put back as it was where it still stands;
// in a .env file a placeholder on another line gets its value back too.
func Merge(path string, before, after, now []byte) ([]byte, error) {
	name := filepath.Base(path)
	if name == exampleName || name == pm2Name {
		return now, nil
	}
	lines, missed := revert(split(before), split(after), split(now))
	data := bytes.Join(lines, []byte("\n"))
	if bytes.HasSuffix(now, []byte("\n")) && len(lines) > 0 {
		data = append(data, '\n')
	}
	if !isEnvName(name) {
		if missed > 0 && name != ignoreName {
			return nil, fmt.Errorf("%d changed places are no longer as they were written", missed)
		}
		return data, nil
	}
	return restoreValues(dotenv.Detect(filepath.Dir(path)), before, after, data)
}

// split gives the lines without their ends; a last line end makes no line.
func split(b []byte) [][]byte {
	if len(b) == 0 {
		return nil
	}
	return bytes.Split(bytes.TrimSuffix(b, []byte("\n")), []byte("\n"))
}

// revert puts the old lines in the place of each block that differs between
// before and after, where that block stands exactly once in now. It counts the
// blocks that it did not find.
func revert(before, after, now [][]byte) (out [][]byte, missed int) {
	out = now
	for _, h := range hunks(before, after) {
		at := find(out, h.next, h.above)
		if at < 0 {
			missed++
			continue
		}
		out = slices.Concat(out[:at], h.old, out[at+len(h.next):])
	}
	return out, missed
}

// hunk is a block of lines that was replaced; above is the line before it.
type hunk struct{ old, next, above [][]byte }

// hunks are the differing blocks, the last one first. The longest common
// subsequence is taken over what remains between common first and last lines.
func hunks(before, after [][]byte) []hunk {
	head := 0
	for head < len(before) && head < len(after) && bytes.Equal(before[head], after[head]) {
		head++
	}
	b, a := before[head:], after[head:]
	for len(b) > 0 && len(a) > 0 && bytes.Equal(b[len(b)-1], a[len(a)-1]) {
		b, a = b[:len(b)-1], a[:len(a)-1]
	}
	if len(a)*len(b) > 1<<24 { // too many to compare; one block
		return []hunk{{old: b, next: a, above: lineAbove(after, head)}}
	}
	table := common(b, a)
	var found []hunk
	i, j := 0, 0
	for i < len(b) || j < len(a) {
		from, to := i, j
		for i < len(b) || j < len(a) {
			if i < len(b) && j < len(a) && bytes.Equal(b[i], a[j]) {
				break
			}
			if j == len(a) || i < len(b) && table[i+1][j] >= table[i][j+1] {
				i++
			} else {
				j++
			}
		}
		found = append(found, pieceHunks(b[from:i], a[to:j], after, head+to)...)
		for i < len(b) && j < len(a) && bytes.Equal(b[i], a[j]) {
			i, j = i+1, j+1
		}
	}
	slices.Reverse(found)
	return found
}

// pieceHunks makes a block of as many new lines as old ones a hunk for each, so
// that one of them is found where another was edited.
func pieceHunks(old, next, after [][]byte, at int) []hunk {
	if len(old) != len(next) {
		return []hunk{{old: old, next: next, above: lineAbove(after, at)}}
	}
	var found []hunk
	for i := range old {
		found = append(found, hunk{old: old[i : i+1], next: next[i : i+1], above: lineAbove(after, at+i)})
	}
	return found
}

func lineAbove(lines [][]byte, at int) [][]byte {
	if at == 0 {
		return nil
	}
	return lines[at-1 : at]
}

// common is the table of longest common subsequences of the tails.
func common(b, a [][]byte) [][]int {
	table := make([][]int, len(b)+1)
	for i := range table {
		table[i] = make([]int, len(a)+1)
	}
	for i := len(b) - 1; i >= 0; i-- {
		for j := len(a) - 1; j >= 0; j-- {
			if bytes.Equal(b[i], a[j]) {
				table[i][j] = table[i+1][j+1] + 1
			} else {
				table[i][j] = max(table[i+1][j], table[i][j+1])
			}
		}
	}
	return table
}

// find is where block stands in lines: right after the line above, or else
// anywhere; -1 where it does not stand there, or more than once.
func find(lines, block, above [][]byte) int {
	if len(block) == 0 {
		return -1
	}
	var all, right []int
	for i := 0; i+len(block) <= len(lines); i++ {
		if !slices.EqualFunc(lines[i:i+len(block)], block, bytes.Equal) {
			continue
		}
		all = append(all, i)
		if i == 0 && len(above) == 0 || i > 0 && len(above) > 0 && bytes.Equal(lines[i-1], above[0]) {
			right = append(right, i)
		}
	}
	switch {
	case len(right) == 1:
		return right[0]
	case len(right) == 0 && len(all) == 1:
		return all[0]
	}
	return -1
}

// restoreValues gives placeholders of the change that still stand in now
// their values back.
func restoreValues(d dotenv.Dialect, before, after, now []byte) ([]byte, error) {
	pairs, err := replaced(d, before, after)
	if err != nil {
		return nil, err
	}
	file, err := dotenv.Parse(now, d)
	if err != nil {
		return nil, err
	}
	for i, e := range file.Entries() {
		value := e.Literal
		for _, p := range pairs {
			value = strings.ReplaceAll(value, p[0], p[1])
		}
		if value != e.Literal {
			if err := file.SetLiteral(i, value); err != nil {
				return nil, err
			}
		}
	}
	data := file.Bytes()
	for _, p := range pairs {
		data = bytes.ReplaceAll(data, []byte(p[0]), []byte(p[1])) // in comments
	}
	return data, nil
}

// replaced are the placeholders that a change wrote and what stood there.
func replaced(d dotenv.Dialect, before, after []byte) ([][2]string, error) {
	old, err := dotenv.Parse(before, d)
	if err != nil {
		return nil, err
	}
	next, err := dotenv.Parse(after, d)
	if err != nil {
		return nil, err
	}
	a, b := old.Entries(), next.Entries()
	if len(a) != len(b) {
		return nil, errors.New("the lines of the change do not match")
	}
	var pairs [][2]string
	for i := range a {
		if a[i].Literal == b[i].Literal {
			continue
		}
		was, is := cutList(a[i].Literal), cutList(b[i].Literal)
		if len(was) != len(is) {
			was, is = []string{a[i].Literal}, []string{b[i].Literal}
		}
		for k := range is {
			if is[k] != was[k] && placeholder.Is(is[k]) {
				pairs = append(pairs, [2]string{is[k], was[k]})
			}
		}
	}
	for _, h := range hunks(split(before), split(after)) { // comments, which are no entries
		if len(h.old) != 1 || len(h.next) != 1 {
			continue
		}
		pairs = append(pairs, filled(h.old[0], h.next[0])...)
	}
	return pairs, nil
}

// filled gives the placeholders of a line and what stood in their places, as far
// as the text between them tells.
func filled(old, next []byte) (pairs [][2]string) {
	at := placeholder.Find(next)
	from := 0 // in next
	for i, p := range at {
		before := next[from:p[0]]
		if !bytes.HasPrefix(old, before) {
			return pairs
		}
		old, from = old[len(before):], p[1]
		after := next[from:]
		end := len(old) - len(after)
		if i+1 < len(at) {
			between := next[from:at[i+1][0]]
			if len(between) == 0 {
				return pairs
			}
			end = bytes.Index(old, between)
		} else if !bytes.HasSuffix(old, after) {
			return pairs
		}
		if end < 0 {
			return pairs
		}
		if is, was := string(next[p[0]:p[1]]), string(old[:end]); is != was {
			pairs = append(pairs, [2]string{is, was})
		}
		old = old[end:]
	}
	return pairs
}

func cutList(text string) []string {
	parts := strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ';' })
	for i := range parts {
		parts[i] = strings.TrimSpace(parts[i])
	}
	return parts
}

// AfterUndo marks the credentials whose value stands in a file again since
// the undo, and names them. The values stay in the safe.
func AfterUndo(ctx context.Context, safe Safe, kinds Identifier, report change.Report) ([]string, error) {
	list, err := safe.List(ctx)
	if err != nil {
		return nil, fmt.Errorf("listing the safe: %w", err)
	}
	byPrint := map[string]string{}
	restored := map[string]bool{}
	for _, c := range list {
		restored[c.Name] = c.Restored
		for _, v := range c.Versions {
			byPrint[v.Fingerprint] = c.Name
		}
	}
	var marked []string
	for _, f := range report.Files {
		if !isEnvName(filepath.Base(f.Path)) || f.Did == change.DidRemove {
			continue
		}
		names, err := realIn(f.Path, safe, kinds, byPrint)
		if err != nil {
			return marked, err
		}
		for _, name := range names {
			if restored[name] {
				continue
			}
			if err := safe.SetRestored(ctx, name, true); err != nil {
				return marked, fmt.Errorf("marking %s: %w", name, err)
			}
			restored[name] = true
			marked = append(marked, name)
		}
	}
	return marked, nil
}

// realIn names the credentials whose value stands in the file at path.
func realIn(path string, inv Inventory, kinds Identifier, byPrint map[string]string) ([]string, error) {
	if _, err := os.Lstat(path); err != nil {
		return nil, nil //nolint:nilerr // a file that is gone holds nothing
	}
	file, err := readEnv(path, dotenv.Detect(filepath.Dir(path)))
	if err != nil {
		return nil, fmt.Errorf("reading back %s: %w", path, err)
	}
	var values []string
	for _, e := range file.file.Entries() {
		for _, piece := range pieces(kinds, e.Key, e.Value) {
			if !piece.ours {
				values = append(values, e.Value[piece.start:piece.end])
			}
		}
	}
	for _, c := range commented(file.file, kinds) {
		values = append(values, c.value)
	}
	var names []string
	for _, v := range values {
		print, err := inv.Fingerprint(secret.New([]byte(v)))
		if err != nil {
			return nil, fmt.Errorf("taking a fingerprint: %w", err)
		}
		if name, found := byPrint[print]; found {
			names = append(names, name)
		}
	}
	return names, nil
}
