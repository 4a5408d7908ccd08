package inflate

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/zstd"
	"pgregory.net/rapid"
)

type flusher interface {
	io.WriteCloser
	Flush() error
}

// form is one coding with an encoder for it.
type form struct {
	name, coding string
	marked       bool // wrong bytes are seen by Open
	summed       bool // wrong bytes are seen at the end at the latest
	encoder      func(io.Writer) flusher
}

func forms() []form {
	return []form{
		{"gzip", "gzip", true, true, func(w io.Writer) flusher { return gzip.NewWriter(w) }},
		{"x-gzip", " X-GZIP ", true, true, func(w io.Writer) flusher { return gzip.NewWriter(w) }},
		{"zlib", "deflate", false, true, func(w io.Writer) flusher { return zlib.NewWriter(w) }},
		{"deflate", "Deflate", false, false, func(w io.Writer) flusher {
			f, _ := flate.NewWriter(w, flate.DefaultCompression)
			return f
		}},
		{"brotli", "br", false, false, func(w io.Writer) flusher { return brotli.NewWriterLevel(w, 5) }},
		{"zstd", "zstd", true, true, func(w io.Writer) flusher {
			z, _ := zstd.NewWriter(w, zstd.WithEncoderConcurrency(1))
			return z
		}},
	}
}

func (f form) encode(plain []byte) []byte {
	var out bytes.Buffer
	w := f.encoder(&out)
	_, _ = w.Write(plain)
	_ = w.Close()
	return out.Bytes()
}

// text is compressible, and longer than any buffer on the way.
func text(n int) []byte {
	r := rand.New(rand.NewPCG(1, 1))
	words := strings.Fields("the model answers with content that says nothing about tokens and keys")
	var b bytes.Buffer
	for b.Len() < n {
		fmt.Fprintf(&b, "%s %d ", words[r.IntN(len(words))], r.IntN(1000))
	}
	return b.Bytes()[:n]
}

func readAll(coding string, body io.Reader) ([]byte, error) {
	r, err := Open(coding, body)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

func TestReadsWhatOthersWrote(t *testing.T) {
	plain := text(300_000)
	for _, f := range forms() {
		t.Run(f.name, func(t *testing.T) {
			packed := f.encode(plain)
			for name, body := range map[string]io.Reader{
				"at once":      bytes.NewReader(packed),
				"byte by byte": iotest.OneByteReader(bytes.NewReader(packed)),
				"end with it":  iotest.DataErrReader(bytes.NewReader(packed)),
			} {
				if got, err := readAll(f.coding, body); err != nil || !bytes.Equal(got, plain) {
					t.Errorf("%s: %d bytes, %v", name, len(got), err)
				}
			}
			if got, err := readAll(f.coding, bytes.NewReader(f.encode(nil))); err != nil || len(got) != 0 {
				t.Errorf("nothing, compressed: %q, %v", got, err)
			}
			if got, err := readAll(f.coding, strings.NewReader("")); err != nil || len(got) != 0 {
				t.Errorf("no body: %q, %v", got, err)
			}
		})
	}
}

func TestIdentity(t *testing.T) {
	for _, coding := range []string{"", "identity", "Identity"} {
		if got, err := readAll(coding, strings.NewReader("as it is")); err != nil || string(got) != "as it is" {
			t.Errorf("%q: %q, %v", coding, got, err)
		}
	}
}

func TestUnknownCodingsAreRefused(t *testing.T) {
	for _, coding := range []string{"compress", "x-compress", "gzip, br", "gzip,gzip", "dcz", "dcb", "aes128gcm", "*", "utf-8", "gzip\x00", "bzip2"} {
		read := false
		body := readerFunc(func([]byte) (int, error) { read = true; return 0, io.EOF })
		if _, err := Open(coding, body); !errors.Is(err, ErrUnknown) || read {
			t.Errorf("%q: %v, body touched: %v", coding, err, read)
		}
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// What was flushed by the sender arrives before anything more is sent: event
// streams may be compressed.
func TestWhatWasFlushedDoesNotWait(t *testing.T) {
	for _, f := range forms() {
		t.Run(f.name, func(t *testing.T) {
			in, out := io.Pipe()
			defer in.Close()
			next := make(chan int)
			go func() {
				w := f.encoder(out)
				for i := range next {
					fmt.Fprintf(w, "data: %d\n\n", i)
					_ = w.Flush()
				}
				_ = w.Close()
				_ = out.Close()
			}()
			next <- 0
			r, err := Open(f.coding, in)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			for i := range 5 {
				if i > 0 {
					next <- i
				}
				want := fmt.Sprintf("data: %d\n\n", i)
				got := make([]byte, len(want))
				if _, err := io.ReadFull(r, got); err != nil || string(got) != want {
					t.Fatalf("got %q, %v", got, err)
				}
			}
			close(next)
			if rest, err := io.ReadAll(r); err != nil || len(rest) != 0 {
				t.Errorf("at the end: %q, %v", rest, err)
			}
		})
	}
}

func TestGzipMembers(t *testing.T) {
	gz := forms()[0]
	first, second := gz.encode([]byte("first,")), gz.encode([]byte("second"))
	empty := gz.encode(nil)
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	tests := []struct {
		name string
		in   []byte
		want string
		err  error
	}{
		{"two", join(first, second), "first,second", nil},
		{"empty ones between", join(empty, first, empty, empty, second, empty), "first,second", nil},
		{"garbage behind", join(first, []byte("garbage behind it")), "first,", ErrDamaged},
		{"cut in the second head", join(first, second[:5]), "first,", io.ErrUnexpectedEOF},
		{"cut in the second sum", join(first, second[:len(second)-3]), "first,second", io.ErrUnexpectedEOF},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := readAll("gzip", bytes.NewReader(test.in))
			if string(got) != test.want || !errors.Is(err, test.err) {
				t.Errorf("got %q, %v; want %q, %v", got, err, test.want, test.err)
			}
		})
	}
}

func TestTheEndOfAMemberDoesNotWaitForTheNext(t *testing.T) {
	in, out := io.Pipe()
	defer in.Close()
	go func() { _, _ = out.Write(forms()[0].encode([]byte("one event"))) }()
	r, err := Open("gzip", in)
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 100)
	if n, err := r.Read(got); string(got[:n]) != "one event" || err != nil {
		t.Errorf("got %q, %v", got[:n], err)
	}
}

func TestCutOffAnywhere(t *testing.T) {
	plain := text(3000)
	for _, f := range forms() {
		t.Run(f.name, func(t *testing.T) {
			packed := f.encode(plain)
			for cut := 1; cut < len(packed); cut++ {
				got, err := readAll(f.coding, bytes.NewReader(packed[:cut]))
				if !errors.Is(err, io.ErrUnexpectedEOF) {
					t.Errorf("cut at %d of %d: %d bytes, %v", cut, len(packed), len(got), err)
				}
				if !bytes.HasPrefix(plain, got) {
					t.Errorf("cut at %d: other bytes came out", cut)
				}
			}
		})
	}
}

func TestWrongCodingIsSeenAtOnce(t *testing.T) {
	for _, f := range forms() {
		if !f.marked {
			continue
		}
		for _, body := range []string{`{"error":"plain after all"}`, "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"} {
			if _, err := Open(f.coding, strings.NewReader(body)); !errors.Is(err, ErrDamaged) {
				t.Errorf("%s: %v", f.name, err)
			}
		}
	}
}

func TestDamageIsNeverTakenForTheEnd(t *testing.T) {
	plain := text(3000)
	for _, f := range forms() {
		if !f.summed {
			continue
		}
		packed := f.encode(plain)
		for at := len(packed) / 4; at < len(packed); at += 7 {
			spoiled := bytes.Clone(packed)
			spoiled[at] ^= 0x55
			if got, err := readAll(f.coding, bytes.NewReader(spoiled)); err == nil {
				t.Errorf("%s, damaged at %d of %d: %d bytes without an error", f.name, at, len(packed), len(got))
			}
		}
	}
}

func TestErrorsOfTheBodyComeThrough(t *testing.T) {
	broken := errors.New("connection reset")
	for _, f := range forms() {
		packed := f.encode(text(30_000))
		body := io.MultiReader(bytes.NewReader(packed[:len(packed)/2]), iotest.ErrReader(broken))
		if _, err := readAll(f.coding, body); !errors.Is(err, broken) {
			t.Errorf("%s: %v", f.name, err)
		}
	}
}

// zeros is a stream of n zero bytes that costs nothing.
type zeros struct{ n int64 }

func (z *zeros) Read(p []byte) (int, error) {
	if z.n == 0 {
		return 0, io.EOF
	}
	n := min(int64(len(p)), z.n)
	clear(p[:n])
	z.n -= n
	return int(n), nil
}

func TestABombEndsEarlyAndInLittleMemory(t *testing.T) {
	const size, free = 8 << 20, 2 << 20
	for _, f := range forms() {
		t.Run(f.name, func(t *testing.T) {
			var packed bytes.Buffer
			w := f.encoder(&packed)
			if _, err := io.Copy(w, &zeros{n: size}); err != nil {
				t.Fatal(err)
			}
			_ = w.Close()
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			r, err := Open(f.coding, &packed)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			r.free = free
			n, err := io.Copy(io.Discard, onlyReader{r})
			runtime.ReadMemStats(&after)
			if !errors.Is(err, ErrBomb) || n > free+1<<20 {
				t.Errorf("%d bytes, %v", n, err)
			}
			if used := after.TotalAlloc - before.TotalAlloc; used > 3*maxWindow {
				t.Errorf("%d MB allocated", used>>20)
			}
			if _, err := r.Read(make([]byte, 10)); !errors.Is(err, ErrBomb) {
				t.Errorf("afterwards: %v", err)
			}
		})
	}
}

type onlyReader struct{ io.Reader }

func TestALargeHonestBodyPasses(t *testing.T) {
	plain := text(1 << 20)
	for _, f := range forms() {
		r, err := Open(f.coding, bytes.NewReader(f.encode(plain)))
		if err != nil {
			t.Fatal(err)
		}
		r.free = 1 << 10
		if n, err := io.Copy(io.Discard, onlyReader{r}); n != int64(len(plain)) || err != nil {
			t.Errorf("%s: %d bytes, %v", f.name, n, err)
		}
		_ = r.Close()
	}
}

func TestAWindowThatIsTooLargeIsRefused(t *testing.T) {
	var packed bytes.Buffer
	w, err := zstd.NewWriter(&packed, zstd.WithWindowSize(64<<20), zstd.WithEncoderConcurrency(1), zstd.WithSingleSegment(false))
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(w, onlyReader{io.LimitReader(rand.NewChaCha8([32]byte{}), 20<<20)})
	_ = w.Close()
	if _, err := readAll("zstd", &packed); !errors.Is(err, ErrDamaged) {
		t.Errorf("got %v", err)
	}
}

func TestFramesOfZstdThatAreSkipped(t *testing.T) {
	skipped := binary.LittleEndian.AppendUint32(nil, 0x184D2A53)
	skipped = append(binary.LittleEndian.AppendUint32(skipped, 3), "abc"...)
	body := append(skipped, forms()[5].encode([]byte("plain"))...)
	if got, err := readAll("zstd", bytes.NewReader(body)); string(got) != "plain" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestClosedReaderGivesNothing(t *testing.T) {
	for _, f := range forms() {
		r, err := Open(f.coding, bytes.NewReader(f.encode(text(1000))))
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(r.Close(), r.Close()); err != nil {
			t.Error(err)
		}
		if n, err := r.Read(make([]byte, 10)); n != 0 || !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("%s: %d, %v", f.name, n, err)
		}
	}
}

func TestAnyTextInAnyPieces(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := rapid.SampledFrom(forms()).Draw(t, "form")
		plain := bytes.Repeat(rapid.SliceOf(rapid.Byte()).Draw(t, "plain"), rapid.IntRange(1, 50).Draw(t, "times"))
		body := &pieces{rest: f.encode(plain), next: func() int { return rapid.IntRange(1, 40).Draw(t, "piece") }}
		if got, err := readAll(f.coding, body); err != nil || !bytes.Equal(got, plain) {
			t.Errorf("%d bytes of %d, %v", len(got), len(plain), err)
		}
	})
}

type pieces struct {
	rest []byte
	next func() int
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(b, p.rest[:min(len(p.rest), p.next())])
	p.rest = p.rest[n:]
	return n, nil
}

// FuzzRead feeds hostile bodies to each coding: there is an end, and an error
// that quotes nothing.
func FuzzRead(f *testing.F) {
	for i, form := range forms() {
		f.Add(uint8(i), form.encode([]byte("a body with some text, text, text")))
	}
	all := forms()
	f.Fuzz(func(t *testing.T, which uint8, body []byte) {
		r, err := Open(all[int(which)%len(all)].coding, bytes.NewReader(body))
		if err == nil {
			_, err = io.Copy(io.Discard, onlyReader{r})
			_ = r.Close()
		}
		if err != nil && !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrBomb) && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%v", err)
		}
	})
}

func BenchmarkRead(b *testing.B) {
	plain := text(1 << 20)
	for _, f := range forms() {
		packed := f.encode(plain)
		b.Run(f.name, func(b *testing.B) {
			b.SetBytes(int64(len(plain)))
			for b.Loop() {
				r, err := Open(f.coding, bytes.NewReader(packed))
				if err != nil {
					b.Fatal(err)
				}
				if _, err := io.Copy(io.Discard, onlyReader{r}); err != nil {
					b.Fatal(err)
				}
				_ = r.Close()
			}
		})
	}
}
