package ledger

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"postern/internal/event"
)

// A hostile journal is refused or read, never worse; what is read of it is what
// stands there.
func FuzzJournal(f *testing.F) {
	var grown tree
	for range 600 {
		grown.add(hash{1}, nil)
	}
	grown.size -= grown.size % tileWidth
	whole := appendHeader(nil, &grown)
	for _, text := range []string{`{"seq":513,"time":"2026-03-01T12:00:00Z","kind":"use"}`, `{"seq":514,"time":"2026-03-01T12:00:00Z","kind":"use"}`} {
		frame := append(startFrame(nil), text...)
		endFrame(frame)
		whole = append(whole, frame...)
	}
	f.Add(whole)
	f.Add(whole[:len(whole)-3])
	f.Add(appendHeader(nil, &tree{}))
	f.Add([]byte(journalMagic))
	f.Fuzz(func(t *testing.T, data []byte) {
		head, n, err := cutHeader(data)
		if err != nil {
			return
		}
		again := appendHeader(nil, &head)
		for rest := data[n:]; ; {
			entry, next, err := cutFrame(rest)
			if err != nil || entry == nil {
				again = append(again, rest...)
				break
			}
			frame := append(startFrame(nil), entry...)
			endFrame(frame)
			again, rest = append(again, frame...), next
		}
		if !bytes.Equal(again, data) {
			t.Errorf("read %q, wrote %q", data, again)
		}
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, journalFile), data, 0o600); err != nil {
			t.Fatal(err)
		}
		_ = Find(t.Context(), dir, Filter{}, func(event.Event) bool { return true })
		_, _ = ReadTail(dir, 3)
		if l, err := Open(dir, Options{}); err == nil {
			if err := l.Record(t.Context(), event.Event{Kind: event.Use}, false); err != nil {
				t.Errorf("opened, but: %v", err)
			}
			_ = l.Close()
		}
	})
}

// A journal whose checksums are right may still hold anything.
func FuzzEntries(f *testing.F) {
	f.Add([]byte(`{"seq":1,"time":"2026-03-01T12:00:00Z","kind":"use"}`), []byte(`{"seq":2,"time":"2026-02-01T12:00:00Z","kind":"use","detail":{"a":"b"}}`))
	f.Add([]byte("null"), []byte("[]"))
	f.Add([]byte(`{"time":"0000-01-01T00:00:00Z"}`), []byte(`{"seq":18446744073709551615,"time":"9999-12-31T23:59:59.999999999Z"}`))
	key := newKey(f)
	f.Fuzz(func(t *testing.T, first, second []byte) {
		if len(first) == 0 || len(second) == 0 || len(first) > maxEntry || len(second) > maxEntry {
			return
		}
		data := appendHeader(nil, &tree{})
		for _, entry := range [][]byte{first, second} {
			frame := append(startFrame(nil), entry...)
			endFrame(frame)
			data = append(data, frame...)
		}
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, journalFile), data, 0o600); err != nil {
			t.Fatal(err)
		}
		_ = Find(t.Context(), dir, Filter{}, func(event.Event) bool { return true })
		if l, err := Open(dir, Options{Key: key}); err == nil {
			_ = l.Close()
		}
		if r, err := Verify(t.Context(), dir, PublicKey(key)); err != nil || r.Entries != 2 {
			t.Errorf("got %+v, %v", r, err)
		}
	})
}

func FuzzBundle(f *testing.F) {
	f.Add([]byte{0, 2, '{', '}', 0, 1, 'x'})
	f.Add([]byte{0xff, 0xff, 0})
	f.Add([]byte{0, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		length := 0
		for rest := data; len(rest) > 0; {
			entry, next, err := cutBundle(rest)
			if err != nil {
				return
			}
			length += 2 + len(entry)
			rest = next
		}
		if length != len(data) {
			t.Errorf("%d bytes of %d read", length, len(data))
		}
	})
}

// Whatever stands in place of the checkpoint, only what the key has signed is
// taken, and written in no other way.
func FuzzCheckpoint(f *testing.F) {
	s := newSigner(newKey(f))
	signed, err := s.sign(checkpoint{size: 7, root: hash{1, 2, 3}})
	if err != nil {
		f.Fatal(err)
	}
	l := &Ledger{signer: s}
	verifier, err := l.verifier()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(signed)
	f.Add(bytes.Replace(signed, []byte("7"), []byte("07"), 1))
	f.Add([]byte("a\n1\nAAAA\n\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		_, _ = peekCheckpoint(data)
		c, err := openCheckpoint(data, verifier)
		if err == nil && (c.size != 7 || !bytes.HasPrefix(data, signed)) {
			t.Errorf("took %q", data)
		}
	})
}
