package redact

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"testing"

	"postern/internal/secret"
)

func randomMatcher(tb testing.TB, values, size int) *Matcher {
	tb.Helper()
	r := rand.New(rand.NewPCG(3, uint64(values)))
	var known []Known
	for range values {
		known = append(known, Known{
			Value:       secret.New([]byte("sk-live-" + randomText(r, size-8, alphabet+"-_"))),
			Replacement: "sk-live-" + randomText(r, size-8, alphabet+"-_"),
		})
	}
	m, err := New(known)
	if err != nil {
		tb.Fatal(err)
	}
	return m
}

// inputs are what brokers carry: JSON answers, event streams, base64 and noise.
func inputs() map[string][]byte {
	r := rand.New(rand.NewPCG(4, 4))
	words := []string{"the", "model", "answers", "with", "content", "that", "says", "nothing", "secret", "about", "tokens"}
	var document, events bytes.Buffer
	for i := range 400 {
		text := ""
		for range 12 {
			text += words[r.IntN(len(words))] + " "
		}
		item, _ := json.Marshal(map[string]any{"id": fmt.Sprintf("msg_%016x", r.Uint64()), "index": i, "type": "content_block_delta", "text": text})
		document.Write(item)
		document.WriteByte(',')
		fmt.Fprintf(&events, "event: content_block_delta\ndata: %s\n\n", item)
	}
	noise := make([]byte, 64<<10)
	for i := range noise {
		noise[i] = byte(r.Uint32())
	}
	return map[string][]byte{
		"json": document.Bytes(), "sse": events.Bytes(), "noise": noise,
		"base64": []byte(randomText(r, 64<<10, alphabet+"+/")),
	}
}

// BenchmarkWrite is one write of a whole buffer; with 10 values of 40 bytes it is
// the figure that the project quotes.
func BenchmarkWrite(b *testing.B) {
	for _, load := range []struct{ values, size int }{{10, 40}, {10, 108}, {10, 16}, {10, 12}, {100, 40}, {1000, 40}} {
		m := randomMatcher(b, load.values, load.size)
		for name, in := range inputs() {
			b.Run(fmt.Sprintf("values=%d/size=%d/%s", load.values, load.size, name), func(b *testing.B) {
				s := m.Stream()
				dst := make([]byte, 0, 2*len(in))
				b.SetBytes(int64(len(in)))
				b.ReportAllocs()
				for b.Loop() {
					dst = s.Write(dst[:0], in)
				}
			})
		}
	}
}

// BenchmarkReplace is the same without a copy.
func BenchmarkReplace(b *testing.B) {
	m := randomMatcher(b, 10, 40)
	for name, in := range inputs() {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(in)))
			b.ReportAllocs()
			for b.Loop() {
				m.Replace(in)
			}
		})
	}
}

// BenchmarkFramed is the same bytes in writes of the size that TLS records,
// events and terminals have: the end of each must be tested.
func BenchmarkFramed(b *testing.B) {
	for _, values := range []int{10, 1000} {
		m := randomMatcher(b, values, 40)
		for name, in := range inputs() {
			for _, size := range []int{150, 4096} {
				b.Run(fmt.Sprintf("values=%d/%s/write=%d", values, name, size), func(b *testing.B) {
					s := m.Stream()
					dst := make([]byte, 0, 2*size)
					b.SetBytes(int64(len(in)))
					b.ReportAllocs()
					for b.Loop() {
						for at := 0; at < len(in); at += size {
							dst = s.Write(dst[:0], in[at:min(at+size, len(in))])
						}
					}
				})
			}
		}
	}
}

func BenchmarkNew(b *testing.B) {
	for _, values := range []int{10, 1000} {
		b.Run(fmt.Sprintf("values=%d", values), func(b *testing.B) {
			for b.Loop() {
				randomMatcher(b, values, 40)
			}
		})
	}
}

// keyFile has the shape of a private key in a file.
func keyFile() []byte {
	r := rand.New(rand.NewPCG(5, 5))
	var value bytes.Buffer
	value.WriteString("-----BEGIN TEST KEY-----\n")
	for range 50 {
		value.WriteString(randomText(r, 64, alphabet) + "\n")
	}
	value.WriteString("-----END TEST KEY-----\n")
	return value.Bytes()
}

func BenchmarkNewKeyFile(b *testing.B) {
	known := []Known{{Value: secret.New(keyFile())}}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := New(known); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkFramedKeyFile has forms of many thousand bytes, which may begin far
// before the end of a write.
func BenchmarkFramedKeyFile(b *testing.B) {
	m, err := New([]Known{{Value: secret.New(keyFile())}})
	if err != nil {
		b.Fatal(err)
	}
	for name, in := range inputs() {
		for _, size := range []int{150, 32 << 10} {
			b.Run(fmt.Sprintf("%s/write=%d", name, size), func(b *testing.B) {
				s := m.Stream()
				dst := make([]byte, 0, 2*size)
				b.SetBytes(int64(len(in)))
				for b.Loop() {
					for at := 0; at < len(in); at += size {
						dst = s.Write(dst[:0], in[at:min(at+size, len(in))])
					}
				}
			})
		}
	}
}
