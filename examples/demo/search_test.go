package main

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"net/url"
	"strings"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"
)

// Whatever stands around a text, each form of it is found, and the text is not
// found where it is not.
func TestSearch(t *testing.T) {
	ways := map[string]func(before, text, after string) string{
		"plain":   func(b, s, a string) string { return b + s + a },
		"base64":  func(b, s, a string) string { return base64.StdEncoding.EncodeToString([]byte(b + s + a)) },
		"url64":   func(b, s, a string) string { return base64.RawURLEncoding.EncodeToString([]byte(b + s + a)) },
		"hex":     func(b, s, a string) string { return hex.EncodeToString([]byte(b + s + a)) },
		"HEX":     func(b, s, a string) string { return strings.ToUpper(hex.EncodeToString([]byte(b + s + a))) },
		"percent": func(b, s, a string) string { return url.QueryEscape(b + s + a) },
		"wide":    func(b, s, a string) string { return string(wide(b + s + a)) },
	}
	around := rapid.StringMatching(`[ -~]{0,40}`)
	for name, way := range ways {
		t.Run(name, rapid.MakeCheck(func(t *rapid.T) {
			text := rapid.StringMatching(`[A-Za-z0-9:/+_-]{20,60}`).Draw(t, "text")
			s := newSearcher(forms("KEY", text))
			found := 0
			count := func(needle) { found++ }
			hidden := way(around.Draw(t, "before"), text, around.Draw(t, "after"))
			if _, err := s.through(iotest.HalfReader(strings.NewReader(hidden)), count); err != nil {
				t.Fatal(err)
			}
			if found == 0 {
				t.Fatalf("%q was not found in %q", text, hidden)
			}
			found = 0
			s.in([]byte(way(around.Draw(t, "before"), text[:len(text)-2]+"~~", "")), count)
			if found > 0 {
				t.Fatalf("%q was found where it is not", text)
			}
		}))
	}
}

// A value that lies across two reads is found as well.
func TestSearchAcrossReads(t *testing.T) {
	text := strings.Repeat("0123456789abcdef", 4)
	s := newSearcher(forms("KEY", text))
	for gap := range 80 {
		data := append(bytes.Repeat([]byte{'.'}, 1<<20-gap), text...)
		found := 0
		if n, err := s.through(bytes.NewReader(data), func(needle) { found++ }); err != nil || int(n) != len(data) {
			t.Fatal(n, err)
		}
		if found == 0 {
			t.Fatalf("not found %d bytes before the border", gap)
		}
	}
}
