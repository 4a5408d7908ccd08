package dotenv

import (
	"bytes"
	"slices"
	"testing"
)

func FuzzParse(f *testing.F) {
	for _, input := range ownInputs() {
		f.Add(input)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, d := range []Dialect{Node, Python} {
			file, err := Parse(data, d)
			if err != nil {
				continue
			}
			at := 0
			for _, e := range file.Entries() {
				if e.key < at || e.end < e.start || e.end > len(data) || !e.Bare && e.start < e.key || e.Line < 1 || e.Line > len(data)+1 {
					t.Fatalf("%s: entry out of place: %+v", d, e)
				}
				at = max(e.key, e.end)
			}
			if !bytes.Equal(file.Bytes(), data) {
				t.Fatalf("%s: reading changed the file", d)
			}
		}
		Compare(data)
	})
}

func FuzzSet(f *testing.F) {
	for i, input := range ownInputs() {
		f.Add(input, uint8(i), string(input), i%2 == 0)
	}
	f.Fuzz(func(t *testing.T, data []byte, which uint8, value string, python bool) {
		d := Node
		if python {
			d = Python
		}
		file, err := Parse(data, d)
		if err != nil || len(file.Entries()) == 0 {
			return
		}
		i := int(which) % len(file.Entries())
		before := file.Entries()
		if err := file.Set(i, value, Node, Python); err != nil {
			if !bytes.Equal(file.Bytes(), data) {
				t.Fatal("a refused edit changed the file")
			}
			return
		}
		e, after := before[i], file.Bytes()
		if !bytes.HasPrefix(after, data[:e.start]) || !bytes.HasSuffix(after, data[e.end:]) {
			t.Fatalf("%q became %q", data, after)
		}
		again, err := Parse(after, d)
		if err != nil {
			t.Fatal(err)
		}
		is := slices.IndexFunc(again.Entries(), func(o Entry) bool { return o.key == e.key })
		if is < 0 || again.Entries()[is].Value != value || len(again.Entries()) != len(before) {
			t.Fatalf("%q is not read back from %q", value, after)
		}
	})
}
