package ledger

import (
	"bytes"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
	"pgregory.net/rapid"
)

// made is a closed ledger of n entries.
func made(t testing.TB, n int) (dir, key string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "ledger")
	private := newKey(t)
	l := open(t, dir, private)
	record(t, l, 1, n)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return dir, PublicKey(private)
}

func verify(t testing.TB, dir, key string, witnessed ...[]byte) Report {
	t.Helper()
	r, err := Verify(t.Context(), dir, key, witnessed...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func files(t testing.TB, dir string) map[string][]byte {
	t.Helper()
	all := map[string][]byte{}
	if err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		all[path], err = os.ReadFile(path)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return all
}

func put(t testing.TB, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestVerifyAcceptsWhatIsWhole(t *testing.T) {
	for _, n := range []int{0, 1, 255, 256, 257, 1024, 1279, 1281} {
		dir, key := made(t, n)
		r := verify(t, dir, key)
		if !r.OK() || r.Entries != uint64(n) || r.Signed != uint64(n) {
			t.Errorf("%d entries: got %+v", n, r)
		}
	}
}

// Tiles, bundles and checkpoints are what other implementations expect.
func TestOthersCanVerify(t *testing.T) {
	for _, n := range []int64{1, 255, 256, 700, 1500} {
		dir, key := made(t, int(n))
		verifier, err := note.NewVerifier(key)
		if err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(filepath.Join(dir, "checkpoint"))
		if err != nil {
			t.Fatal(err)
		}
		signed, err := note.Open(text, note.VerifierList(verifier))
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(signed.Text, "\n")
		root, err := tlog.ParseHash(lines[2])
		if err != nil || lines[1] != fmt.Sprint(n) {
			t.Fatalf("%v, %q", err, signed.Text)
		}
		hashes := tlog.TileHashReader(tlog.Tree{N: n, Hash: root}, tiles{t, dir})
		read := int64(0)
		for index := int64(0); index*256 < n; index++ {
			width := min(n-index*256, 256)
			data, err := os.ReadFile(filepath.Join(dir, tilePath(entries, uint64(index), int(width))))
			if err != nil {
				t.Fatal(err)
			}
			for len(data) > 0 {
				entry, rest, err := cutBundle(data)
				if err != nil {
					t.Fatal(err)
				}
				if read%97 == 0 {
					proof, err := tlog.ProveRecord(n, read, hashes)
					if err != nil {
						t.Fatal(err)
					}
					if err := tlog.CheckRecord(proof, n, root, read, tlog.RecordHash(entry)); err != nil {
						t.Errorf("entry %d of %d: %v", read, n, err)
					}
				}
				read, data = read+1, rest
			}
		}
		if read != n {
			t.Errorf("%d entries in bundles, want %d", read, n)
		}
	}
}

// tiles reads tiles for the library, whose paths have the height in them.
type tiles struct {
	t   *testing.T
	dir string
}

func (tiles) Height() int { return 8 }

func (s tiles) ReadTiles(list []tlog.Tile) ([][]byte, error) {
	var all [][]byte
	for _, tile := range list {
		data, err := os.ReadFile(filepath.Join(s.dir, "tile", strings.TrimPrefix(tile.Path(), "tile/8/")))
		if err != nil {
			return nil, err
		}
		all = append(all, data)
	}
	return all, nil
}

func (tiles) SaveTiles([]tlog.Tile, [][]byte) {}

func TestTreeAgreesWithTheLibrary(t *testing.T) {
	var mine tree
	stored := []tlog.Hash{}
	reader := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		var list []tlog.Hash
		for _, i := range indexes {
			list = append(list, stored[i])
		}
		return list, nil
	})
	for i := range int64(3000) {
		entry := fmt.Appendf(nil, "entry %d", i)
		mine.add(leafHash(append([]byte{0}, entry...)), nil)
		more, err := tlog.StoredHashes(i, entry, reader)
		if err != nil {
			t.Fatal(err)
		}
		stored = append(stored, more...)
		if i > 600 && i%61 != 0 {
			continue
		}
		want, err := tlog.TreeHash(i+1, reader)
		if err != nil {
			t.Fatal(err)
		}
		if got := mine.root(); got != hash(want) {
			t.Fatalf("root over %d entries differs", i+1)
		}
	}
}

func TestTilePath(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		level := rapid.IntRange(0, 5).Draw(t, "level")
		index := rapid.Int64Range(0, 1<<40).Draw(t, "index")
		width := rapid.IntRange(1, 256).Draw(t, "width")
		want := strings.Replace(tlog.Tile{H: 8, L: level, N: index, W: width}.Path(), "tile/8/", "tile/", 1)
		if got := tilePath(level, uint64(index), width); got != want {
			t.Fatalf("got %s, want %s", got, want)
		}
	})
	if got := tilePath(entries, 1234067, 256); got != "tile/entries/x001/x234/067" {
		t.Errorf("got %s", got)
	}
}

// mutate changes data in one of the ways in which files are changed.
func mutate(data []byte) (mutated []byte, what string) {
	bad := bytes.Clone(data)
	from := rand.IntN(len(bad))
	to := from + 1 + rand.IntN(min(len(bad)-from, 600))
	part := bytes.Clone(bad[from:to])
	switch rand.IntN(8) {
	case 0:
		return bad[:from], fmt.Sprintf("cut at %d", from)
	case 1:
		return slices.Delete(bad, from, to), fmt.Sprintf("%d to %d deleted", from, to)
	case 2:
		return slices.Insert(bad, to, part...), fmt.Sprintf("%d to %d doubled", from, to)
	case 3:
		clear(bad[from:to])
		return bad, fmt.Sprintf("%d to %d zeroed", from, to)
	}
	bit := rand.IntN(8)
	bad[from] ^= 1 << bit
	return bad, fmt.Sprintf("bit %d of byte %d flipped", bit, from)
}

func TestVerifyFindsAChangeAnywhere(t *testing.T) {
	dir, key := made(t, 1290)
	for path, data := range files(t, dir) {
		for range min(6, len(data)) { // the lock is empty
			bad, what := mutate(data)
			if bytes.Equal(bad, data) {
				continue
			}
			put(t, path, bad)
			if r := verify(t, dir, key); r.OK() && r.Torn == 0 {
				t.Errorf("%s: %s, and not found", path, what)
			}
		}
		put(t, path, data)
	}
	if r := verify(t, dir, key); !r.OK() {
		t.Errorf("whole again: %+v", r.Problems)
	}
}

func TestVerifyFindsOtherChanges(t *testing.T) {
	dir, key := made(t, 1290)
	bundle0 := filepath.Join(dir, "tile/entries/000")
	all := files(t, dir)
	older := map[string][]byte{}
	otherDir, _ := made(t, 300)
	for path, data := range files(t, otherDir) {
		older[strings.Replace(path, otherDir, dir, 1)] = data
	}
	tests := []struct {
		name   string
		change func()
		first  uint64
	}{
		{"entries swapped", func() {
			a, rest, _ := cutBundle(all[bundle0])
			b, rest, _ := cutBundle(rest)
			data := append([]byte{byte(len(b) >> 8), byte(len(b))}, b...)
			data = append(append(data, byte(len(a)>>8), byte(len(a))), a...)
			put(t, bundle0, append(data, rest...))
		}, 1},
		{"entry dropped", func() {
			_, rest, _ := cutBundle(all[bundle0])
			put(t, bundle0, rest)
		}, 1},
		{"entry changed", func() {
			put(t, bundle0, bytes.Replace(all[bundle0], []byte(`"r-7"`), []byte(`"r-8"`), 1))
		}, 7},
		{"bundle removed", func() { _ = os.Remove(bundle0) }, 1},
		{"tile removed", func() { _ = os.Remove(filepath.Join(dir, "tile/0/002")) }, 513},
		{"partial tile removed", func() { _ = os.Remove(filepath.Join(dir, "tile/0/005.p/10")) }, 1281},
		{"checkpoint removed", func() { _ = os.Remove(filepath.Join(dir, "checkpoint")) }, 0},
		{"journal cut", func() {
			path := filepath.Join(dir, "journal")
			put(t, path, all[path][:len(all[path])-1])
		}, 1290},
		{"another ledger's bundle", func() { put(t, bundle0, older[bundle0]) }, 1},
	}
	for _, test := range tests {
		test.change()
		if r := verify(t, dir, key); r.OK() || r.FirstBad != test.first {
			t.Errorf("%s: first bad %d, want %d; %+v", test.name, r.FirstBad, test.first, r.Problems)
		}
		for path, data := range all {
			put(t, path, data)
		}
	}
}

// A ledger that was put back to an earlier state is whole in itself; only what
// is kept elsewhere shows it.
func TestVerifyWithAWitness(t *testing.T) {
	dir, private := filepath.Join(t.TempDir(), "ledger"), newKey(t)
	key := PublicKey(private)
	keep := func(first, n int) (map[string][]byte, []byte) {
		l := open(t, dir, private)
		record(t, l, first, n)
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		all := files(t, dir)
		return all, all[filepath.Join(dir, "checkpoint")]
	}
	early, first := keep(1, 100)
	_, second := keep(101, 300)
	r := verify(t, dir, key, first, second)
	if !r.OK() || r.Witnessed != 2 || len(r.Limits()) != 0 {
		t.Errorf("got %+v", r)
	}
	if r := verify(t, dir, key); !r.OK() || len(r.Limits()) != 1 || !strings.Contains(r.Limits()[0], "rewritten") {
		t.Errorf("without a witness: got %+v", r)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	for path, data := range early {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		put(t, path, data)
	}
	if r := verify(t, dir, key); !r.OK() {
		t.Errorf("rolled back, without a witness: got %+v", r)
	}
	if r := verify(t, dir, key, second); r.OK() || r.FirstBad != 101 {
		t.Errorf("rolled back: got %+v", r)
	}
	keep(101, 400) // and written anew
	if r := verify(t, dir, key, first, second); r.OK() || r.Witnessed != 1 {
		t.Errorf("rewritten: got %+v", r)
	}
	if _, err := Verify(t.Context(), dir, "no key"); err == nil {
		t.Error("a bad key was taken")
	}
	if r := verify(t, dir, PublicKey(newKey(t))); r.OK() {
		t.Error("another key verified it")
	}
}

func BenchmarkVerify(b *testing.B) {
	dir, key := made(b, 20000)
	for b.Loop() {
		if r, err := Verify(b.Context(), dir, key); err != nil || !r.OK() {
			b.Fatal(err, r)
		}
	}
	b.ReportMetric(float64(20000*b.N)/b.Elapsed().Seconds(), "entries/s")
}
