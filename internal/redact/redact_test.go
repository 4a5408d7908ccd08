package redact

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"postern/internal/secret"
)

const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"

func randomText(r *rand.Rand, n int, from string) string {
	var b strings.Builder
	for range n {
		b.WriteByte(from[r.IntN(len(from))])
	}
	return b.String()
}

// mustNew takes values and replacements in turn.
func mustNew(t testing.TB, pairs ...string) *Matcher {
	t.Helper()
	var known []Known
	for i := 0; i < len(pairs); i += 2 {
		known = append(known, Known{Value: secret.New([]byte(pairs[i])), Replacement: pairs[i+1]})
	}
	m, err := New(known)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// A value with every byte that some encoder escapes, and a replacement of its
// length.
func awkward() (value, placeholder string) {
	r := rand.New(rand.NewPCG(7, 7))
	return "pk/" + randomText(r, 9, alphabet) + `+="\<>&'` + "`é~ " + randomText(r, 12, alphabet) + "/%!*()",
		"pk/" + randomText(r, 44, alphabet)
}

func TestEachEncodingDecodesToTheReplacement(t *testing.T) {
	plain := func(s string) string { return s }
	unhex := func(s string) string { b, _ := hex.DecodeString(s); return string(b) }
	unquery := func(s string) string { out, _ := url.QueryUnescape(s); return out }
	unpath := func(s string) string { out, _ := url.PathUnescape(s); return out }
	unjson := func(s string) string {
		var out string
		_ = json.Unmarshal([]byte(`"`+s+`"`), &out)
		return out
	}
	each := func(format string) func(string) string {
		return func(s string) string {
			var b strings.Builder
			for _, c := range []byte(s) {
				fmt.Fprintf(&b, format, c)
			}
			return b.String()
		}
	}
	everyUnit := func(format string) func(string) string {
		return func(s string) string {
			var b strings.Builder
			for _, c := range s {
				fmt.Fprintf(&b, format, c)
			}
			return b.String()
		}
	}
	quoted := func(s string) string { b, _ := json.Marshal(s); return string(b[1 : len(b)-1]) }
	unescaped := func(s string) string {
		var b bytes.Buffer
		e := json.NewEncoder(&b)
		e.SetEscapeHTML(false)
		_ = e.Encode(s)
		return strings.Trim(b.String(), "\n")[1 : b.Len()-2]
	}
	ascii := func(s string) string { return strings.ReplaceAll(unescaped(s), "é", `\u00e9`) }
	tests := []struct {
		name           string
		encode, decode func(string) string
	}{
		{"plain", plain, plain},
		{"hex", func(s string) string { return hex.EncodeToString([]byte(s)) }, unhex},
		{"hex upper", func(s string) string { return strings.ToUpper(hex.EncodeToString([]byte(s))) }, unhex},
		{"Go query", url.QueryEscape, unquery},
		{"Go path", url.PathEscape, unpath},
		{"JavaScript component", component, unpath},
		{"percent lower", func(s string) string { return lowerEscapes(url.QueryEscape(s)) }, unquery},
		{"percent all", each("%%%02x"), unpath},
		{"percent all upper", each("%%%02X"), unpath},
		{"JSON of Go", quoted, unjson},
		{"JSON of JavaScript", unescaped, unjson},
		{"JSON of PHP", func(s string) string { return strings.ReplaceAll(ascii(s), "/", `\/`) }, unjson},
		{"JSON of Python", ascii, unjson},
		{"JSON all", everyUnit(`\u%04x`), unjson},
		{"JSON all upper", everyUnit(`\u%04X`), unjson},
	}
	value, placeholder := awkward()
	m := mustNew(t, value, placeholder)
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			in := test.encode("<(" + value + ") ")
			got, hits := m.Replace([]byte(in))
			if diff := cmp.Diff("<("+placeholder+") ", test.decode(string(got))); diff != "" || hits != 1 {
				t.Errorf("%d hits in %q (-want +got):\n%s", hits, in, diff)
			}
		})
	}
}

func component(s string) string {
	return strings.NewReplacer("+", "%20", "%21", "!", "%2A", "*", "%27", "'", "%28", "(", "%29", ")").Replace(url.QueryEscape(s))
}

func lowerEscapes(s string) string {
	b := []byte(s)
	for i := 0; i+2 < len(b); i++ {
		if b[i] == '%' {
			copy(b[i+1:i+3], bytes.ToLower(b[i+1:i+3]))
		}
	}
	return string(b)
}

func TestBase64InAnyAlignmentDecodesToTheReplacement(t *testing.T) {
	r := rand.New(rand.NewPCG(8, 8))
	// Where the value's text is the same in both alphabets, the replacement's is
	// that of the standard one.
	oneAlphabet := strings.NewReplacer("-", "+", "_", "/", "=", "")
	encodings := map[string]*base64.Encoding{"std": base64.StdEncoding, "url": base64.URLEncoding, "raw std": base64.RawStdEncoding, "raw url": base64.RawURLEncoding}
	for name, encoding := range encodings {
		for size := 16; size < 22; size++ {
			for before := range 4 {
				for after := range 4 {
					value, placeholder := "s"+randomText(r, size-1, alphabet+"?>~"), "s"+randomText(r, size-1, alphabet+"?>~")
					m := mustNew(t, value, placeholder)
					in := randomText(r, before, alphabet) + value + randomText(r, after, alphabet)
					got, hits := m.Replace([]byte(encoding.EncodeToString([]byte(in))))
					read, err := base64.RawStdEncoding.DecodeString(oneAlphabet.Replace(string(got)))
					if want := strings.Replace(in, value, placeholder, 1); err != nil || string(read) != want || hits != 1 {
						t.Errorf("%s, %d bytes between %d and %d: got %q, %d hits, %v; want %q", name, size, before, after, read, hits, err, want)
					}
				}
			}
		}
	}
}

func TestBase64KeepsTheAlignmentOfWhatFollows(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 9))
	value := randomText(r, 30, alphabet)
	for size := range 12 {
		m := mustNew(t, value, value[:1]+randomText(r, size+3, alphabet))
		for before := range 3 {
			in := base64.StdEncoding.EncodeToString([]byte("0123"[:before] + value + " and more"))
			got, _ := m.Replace([]byte(in))
			read, err := base64.StdEncoding.DecodeString(string(got))
			if err != nil || !strings.HasSuffix(string(read), " and more") || strings.Contains(string(read), value) {
				t.Errorf("behind %d bytes, replacement of %d: got %q, %v", before, size+4, read, err)
			}
		}
	}
}

func TestShortValuesCountAtTokenBordersOnly(t *testing.T) {
	const value, placeholder = "hunter2hunter", "PLACEHOLDER--"
	b64 := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	tests := []struct {
		name, in string
		hit      bool
	}{
		{"alone", value, true},
		{"between quotes", `"` + value + `"`, true},
		{"user and password", "user:" + value + "@host", true},
		{"letter before", "x" + value, false},
		{"letter behind", value + "x", false},
		{"dash before", "-" + value, false},
		{"underscore behind", value + "_", false},
		{"dot behind", value + ".", true},
		{"escape before", "p%3D" + value, true},
		{"escaped letter before", "%41" + value, false},
		{"escape behind", value + "%3D", true},
		{"new line of JSON before", `\n` + value, true},
		{"unicode escape before", `\u0022` + value, true},
		{"unicode escaped letter before", `\u0041` + value, false},
		{"colour before", "\x1b[1;31m" + value + "\x1b[0m", true},
		{"no colour before", "[1;31m" + value, false},
		{"base64 alone", b64(value), true},
		{"base64 behind a colon", b64("user:" + value), true},
		{"base64 behind a letter", b64("a" + value), false},
		{"base64 behind two letters", b64("ab" + value), false},
		{"base64 behind three letters", b64("abc" + value), false},
		{"base64 behind a colon, two", b64("a:" + value), true},
		{"base64 before a letter", b64(":" + value + "x"), false},
		{"base64 before a line end", b64(":" + value + "\n"), true},
		{"base64 before a letter, two", b64("::" + value + "x"), false},
		{"base64 before a line end, two", b64("::" + value + "\n"), true},
		{"base64 before a letter, three", b64(value + "x"), false},
		{"base64 before a line end, three", b64(value + "\n"), true},
		{"hex alone", hex.EncodeToString([]byte(value)), true},
		{"hex behind a letter", hex.EncodeToString([]byte("a" + value)), false},
		{"hex before a letter", hex.EncodeToString([]byte(value + "a")), false},
		{"hex between colons", hex.EncodeToString([]byte(":" + value + ":")), true},
	}
	m := mustNew(t, value, placeholder)
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got, hits := m.Replace([]byte(test.in)); (hits > 0) != test.hit {
				t.Errorf("%q became %q, want a hit: %v", test.in, got, test.hit)
			}
			s := m.Stream()
			var got []byte
			for i := range test.in {
				got = s.Write(got, []byte(test.in[i:i+1]))
			}
			if got = s.Close(got); (s.Hits() > 0) != test.hit {
				t.Errorf("byte by byte, %q became %q, want a hit: %v", test.in, got, test.hit)
			}
		})
	}
}

func TestLongValuesCountAnywhere(t *testing.T) {
	r := rand.New(rand.NewPCG(10, 10))
	value := randomText(r, 16, alphabet)
	m := mustNew(t, value, "placeholder")
	if got, hits := m.Replace([]byte("x" + value + "x")); hits != 1 || string(got) != "xplaceholderx" {
		t.Errorf("got %q, %d hits", got, hits)
	}
}

func TestValuesUnderEightBytesAreSkippedAndNamed(t *testing.T) {
	m := mustNew(t, "1234567", "a", "12345678", "b", "", "c", "  123  \n", "d")
	if diff := cmp.Diff([]int{0, 2, 3}, m.Skipped()); diff != "" {
		t.Errorf("skipped (-want +got):\n%s", diff)
	}
	if got, hits := m.Replace([]byte("1234567 12345678")); string(got) != "1234567 b" || hits != 1 {
		t.Errorf("got %q, %d hits", got, hits)
	}
}

func TestNothingToLookFor(t *testing.T) {
	var none *Matcher
	m := mustNew(t)
	if !m.Empty() || !none.Empty() || !(&Matcher{}).Empty() {
		t.Error("a matcher without values is not empty")
	}
	in := []byte("what comes in goes out")
	if got, hits := m.Replace(in); string(got) != string(in) || hits != 0 {
		t.Errorf("Replace gave %q, %d hits", got, hits)
	}
	s := m.Stream()
	if got := s.Close(s.Flush(s.Write(nil, in))); string(got) != string(in) {
		t.Errorf("the stream gave %q", got)
	}
}

func pemLike(r *rand.Rand, label string) string {
	lines := []string{"-----BEGIN " + label + "-----"}
	for range 5 {
		lines = append(lines, randomText(r, 64, alphabet+"+/"))
	}
	return strings.Join(append(lines, randomText(r, 20, alphabet), "-----END "+label+"-----"), "\n") + "\n"
}

func TestSeveralLines(t *testing.T) {
	r := rand.New(rand.NewPCG(11, 11))
	const label = "TEST KEY"
	value, other := pemLike(r, label), pemLike(r, label)
	lines, substitutes := strings.Split(value, "\n"), strings.Split(other, "\n")
	jsonOf := func(s string) string { b, _ := json.Marshal(s); return string(b) }
	tests := []struct{ name, replacement, in, want string }{
		{"whole", "key-1", "<" + value + ">", "<key-1\n>"},
		{"whole, Windows line ends", "key-1", strings.ReplaceAll(value, "\n", "\r\n"), "key-1\r\n"},
		{"whole in JSON", "key-1", jsonOf(value), jsonOf("key-1\n")},
		{"one line", "key-1", "> " + lines[2] + " <", "> " + secret.Mask + " <"},
		{"one line, replacement of the same shape", other, "> " + lines[2] + " <", "> " + substitutes[2] + " <"},
		{"armour alone", "key-1", lines[0] + "\n" + lines[len(lines)-2], lines[0] + "\n" + lines[len(lines)-2]},
		{"indented", "key-1", "  " + strings.Join(lines[1:3], "\n  "), "  " + secret.Mask + "\n  " + secret.Mask},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, _ := mustNew(t, value, test.replacement).Replace([]byte(test.in))
			if diff := cmp.Diff(test.want, string(got)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestADocumentIsFoundByItsSecretMembers(t *testing.T) {
	r := rand.New(rand.NewPCG(16, 16))
	members := map[string]string{
		"type": "service_account", "project_id": "a-project-of-some-length", "private_key_id": randomText(r, 40, "0123456789abcdef"),
		"private_key": pemLike(r, "TEST KEY"), "refresh_token": randomText(r, 40, alphabet), "token_uri": "https://oauth2.example/token",
	}
	document, err := json.MarshalIndent(members, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	m := mustNew(t, string(document), "the-document")
	if got, _ := m.Replace(document); string(got) != "the-document" {
		t.Errorf("the whole became %q", got)
	}
	for name, value := range members {
		in := fmt.Sprintf("%s is %s, it is", name, value)
		got, hits := m.Replace([]byte(in))
		if isSecret := name == "private_key" || name == "refresh_token"; isSecret != (hits > 0) || isSecret == (string(got) == in) {
			t.Errorf("%q became %q", in, got)
		}
	}
	line := strings.Split(members["private_key"], "\n")[3]
	if _, hits := m.Replace([]byte(line)); hits != 1 {
		t.Error("a line of the private key is not found")
	}
}

func TestACutEndIsAHit(t *testing.T) {
	r := rand.New(rand.NewPCG(12, 12))
	value := randomText(r, 40, alphabet)
	m := mustNew(t, value, "placeholder")
	for cut, want := range map[int]string{29: "<" + value[:29], 30: "<placeholder", 39: "<placeholder"} {
		if got, _ := m.Replace([]byte("<" + value[:cut])); string(got) != want {
			t.Errorf("cut at %d: got %q, want %q", cut, got, want)
		}
	}
}

func TestEventsAreNotHeldBack(t *testing.T) {
	m := randomMatcher(t, 100, 40)
	s := m.Stream()
	for _, event := range bytes.SplitAfter(inputs()["sse"], []byte("\n\n")) {
		if got := s.Write(nil, event); len(got) != len(event) {
			t.Fatalf("%d bytes of %d went out", len(got), len(event))
		}
	}
}

func TestFlushShowsABeginningAndHidesTheRest(t *testing.T) {
	r := rand.New(rand.NewPCG(13, 13))
	value := "sk-" + randomText(r, 37, alphabet)
	placeholder := "sk-" + randomText(r, 37, alphabet)
	m := mustNew(t, value, placeholder)
	s := m.Stream()
	if got := s.Write(nil, []byte("? sk-")); string(got) != "? " || s.Held() != 3 {
		t.Errorf("got %q, %d held", got, s.Held())
	}
	if got := s.Flush(nil); string(got) != "sk-" || s.Held() != 0 {
		t.Errorf("flush gave %q, %d held", got, s.Held())
	}
	if got := s.Write(nil, []byte(value[3:]+"!")); string(got) != placeholder[3:]+"!" {
		t.Errorf("got %q, want %q", got, placeholder[3:]+"!")
	}
	if got := s.Flush(s.Write(nil, []byte("sk-other\n"))); string(got) != "sk-other\n" {
		t.Errorf("what turned out different came out as %q", got)
	}
}

func TestAValueByteByByteWithAFlushAfterEach(t *testing.T) {
	r := rand.New(rand.NewPCG(14, 14))
	value := randomText(r, 40, alphabet)
	m := mustNew(t, value, randomText(r, 40, "XYZ"))
	s := m.Stream()
	var got []byte
	for i := range value {
		got = s.Flush(s.Write(got, []byte{value[i]}))
	}
	if got = s.Close(got); strings.Contains(string(got), value[:30]) || s.Hits() != 1 {
		t.Errorf("got %q, %d hits", got, s.Hits())
	}
}

func TestWriteAllocatesNothing(t *testing.T) {
	m := randomMatcher(t, 10, 40)
	in := inputs()["json"]
	s := m.Stream()
	dst := make([]byte, 0, 2*len(in))
	if n := testing.AllocsPerRun(100, func() { dst = s.Write(dst[:0], in) }); n != 0 {
		t.Errorf("Write allocates %v times", n)
	}
	if n := testing.AllocsPerRun(100, func() { m.Replace(in) }); n != 0 {
		t.Errorf("Replace allocates %v times", n)
	}
	needles := m.open().needles
	dst = s.Write(dst[:0], in)
	i := 0
	if n := testing.AllocsPerRun(100, func() {
		text := needles[i%len(needles)].text
		i++
		dst = s.Write(s.Write(dst[:0], text[:9]), text[9:])
	}); n != 0 {
		t.Errorf("Write with a hit over a border allocates %v times", n)
	}
}

func TestNoPrinterShowsAValue(t *testing.T) {
	r := rand.New(rand.NewPCG(15, 15))
	value := randomText(r, 40, alphabet)
	m := mustNew(t, value, "placeholder")
	s := m.Stream()
	s.Write(nil, []byte(value[:39]))
	holder := struct {
		m *Matcher
		s *Stream
		k Matcher
		l []Known
	}{m, s, *m, []Known{{Value: secret.New([]byte(value))}}}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d", "%t"} {
		for _, thing := range []any{m, *m, s, *s, holder, &holder, []any{m, s}, map[string]any{"a": *m}} {
			got := fmt.Sprintf(verb, thing)
			if strings.Contains(got, value[:12]) || strings.Contains(got, hex.EncodeToString([]byte(value[:12]))) {
				t.Errorf("%s of %T shows the value", verb, thing)
			}
		}
	}
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "m", m, "s", s, "holder", holder)
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "m", m, "s", s, "holder", holder)
	if strings.Contains(log.String(), value[:12]) {
		t.Error("slog shows the value")
	}
}

// FuzzStream holds hostile streams against the model: whatever comes in, the
// same goes out by any chunking and no long form is in it.
func FuzzStream(f *testing.F) {
	value, placeholder := awkward()
	m := mustNew(f, value, placeholder, "hunter2hunter", "PLACEHOLDER--", value[:20], "inner")
	for _, n := range m.open().needles {
		f.Add(append([]byte("x:"), n.text...), uint8(7))
	}
	f.Add([]byte{}, uint8(1))
	f.Fuzz(func(t *testing.T, in []byte, size uint8) {
		want, _ := naive(m, in)
		s := m.Stream()
		var got []byte
		for at, step := 0, max(1, int(size)); at < len(in); at += step {
			got = s.Write(got, in[at:min(at+step, len(in))])
		}
		if got = s.Close(got); !bytes.Equal(got, want) {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	})
}

func TestSelfTestNoticesWhatIsNotFound(t *testing.T) {
	value, placeholder := awkward()
	samples := samplesOf([]byte(value))
	tests := []struct {
		name  string
		spoil func(*core)
	}{
		{"no searcher", func(c *core) { c.searchers = nil }},
		{"skips too far", func(c *core) {
			for i := range c.searchers[0].shift {
				c.searchers[0].shift[i]++
			}
		}},
		{"a form is forgotten", func(c *core) {
			for i := range c.needles {
				if c.needles[i].family == asHex {
					c.needles[i].text = []byte("something else")
				}
			}
		}},
		{"hex is replaced by itself", func(c *core) {
			for i := range c.needles {
				if c.needles[i].family == asHex {
					c.needles[i].replacement = c.needles[i].text
				}
			}
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			m := mustNew(t, value, placeholder)
			if err := m.selfTest(samples); err != nil {
				t.Fatalf("before: %v", err)
			}
			test.spoil(m.open())
			if err := m.selfTest(samples); err == nil {
				t.Error("the self-test passes")
			}
		})
	}
}
