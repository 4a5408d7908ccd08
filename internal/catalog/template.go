package catalog

import (
	"encoding/base64"
	"fmt"
	"hash/crc32"
	"io"
	"strconv"
	"strings"
)

// Piece is a literal, or some characters of an alphabet.
type Piece struct {
	Literal  string
	Class    string
	Min, Max int
	Keep     bool // not secret: a placeholder keeps what the real value has
}

// Template is a value's form: "sk-ant-api03-{b64u:93}AA". A class in braces
// carries a length "40", a range "24-34", or nothing for one; "=" before it says
// that the part is no secret. Templates stand in the catalogue instead of
// samples, so that no file holds what a scanner takes for a key.
type Template []Piece

const (
	lower = "abcdefghijklmnopqrstuvwxyz"
	upper = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	digit = "0123456789"
	alnum = digit + upper + lower
)

// Alphabet returns the characters of a class. snowflake (the base64 form of so
// many digits), crc62 (so many characters and their checksum) and jwt (a token
// whose signature is so long) have none: they can only be generated.
func Alphabet(class string) (string, bool) {
	switch class {
	case "lower":
		return lower, true
	case "upper":
		return upper, true
	case "letter":
		return upper + lower, true
	case "digit":
		return digit, true
	case "alnum":
		return alnum, true
	case "lalnum":
		return digit + lower, true
	case "ualnum":
		return digit + upper, true
	case "hex":
		return "0123456789abcdef", true
	case "base32":
		return upper + "234567", true
	case "bech32":
		return "QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L", true
	case "b64u":
		return alnum + "-_", true
	case "b64":
		return alnum + "+/", true
	case "dash":
		return "-", true
	case "nl":
		return "\n", true
	case "space":
		return " ", true
	case "open":
		return "{", true
	case "close":
		return "}", true
	case "snowflake", "crc62", "jwt":
		return "", true
	}
	return "", false
}

// ParseTemplate reads a template.
func ParseTemplate(s string) (Template, error) {
	var t Template
	for s != "" {
		before, rest, found := strings.Cut(s, "{")
		if before != "" {
			t = append(t, Piece{Literal: before})
		}
		if !found {
			break
		}
		inside, after, closed := strings.Cut(rest, "}")
		if !closed {
			return nil, fmt.Errorf("a brace is not closed before %q", rest)
		}
		p, err := parsePiece(inside)
		if err != nil {
			return nil, err
		}
		t, s = append(t, p), after
	}
	return t, nil
}

func parsePiece(s string) (Piece, error) {
	class, length, _ := strings.Cut(s, ":")
	class, keep := strings.CutPrefix(class, "=")
	if _, known := Alphabet(class); !known {
		return Piece{}, fmt.Errorf("there is no class %q", class)
	}
	if length == "" {
		length = "1"
	}
	from, to, ranged := strings.Cut(length, "-")
	if !ranged {
		to = from
	}
	low, err := strconv.Atoi(from)
	if err != nil {
		return Piece{}, fmt.Errorf("the length %q of %q is no number", length, class)
	}
	high, err := strconv.Atoi(to)
	if err != nil || low < 1 || high < low || high > 4096 {
		return Piece{}, fmt.Errorf("the length %q of %q is out of range", length, class)
	}
	return Piece{Class: class, Min: low, Max: high, Keep: keep}, nil
}

// Generate makes a value of the template's form with characters from random.
func (t Template) Generate(random io.Reader) (string, error) {
	var b strings.Builder
	for _, p := range t {
		text, err := p.generate(random)
		if err != nil {
			return "", err
		}
		b.WriteString(text)
	}
	return b.String(), nil
}

func (p Piece) generate(random io.Reader) (string, error) {
	if p.Class == "" {
		return p.Literal, nil
	}
	n := p.Min
	if p.Max > p.Min {
		more, err := below(random, p.Max-p.Min+1)
		if err != nil {
			return "", err
		}
		n += more
	}
	alphabet, _ := Alphabet(p.Class)
	switch p.Class {
	case "snowflake":
		digits, err := Random(random, "123456789", n)
		return base64.RawURLEncoding.EncodeToString([]byte(digits)), err
	case "crc62":
		body, err := Random(random, alnum, n)
		return body + CRC62(body), err
	case "jwt":
		signature, err := Random(random, alnum, n)
		return jwtPart(`{"alg":"HS256","typ":"JWT"}`) + "." + jwtPart(`{"sub":"1"}`) + "." + signature, err
	}
	return Random(random, alphabet, n)
}

func jwtPart(json string) string { return base64.RawURLEncoding.EncodeToString([]byte(json)) }

// Random returns n characters of alphabet, each equally likely.
func Random(random io.Reader, alphabet string, n int) (string, error) {
	limit := 256 - 256%len(alphabet)
	out := make([]byte, 0, n)
	buf := make([]byte, n+16)
	for len(out) < n {
		if _, err := io.ReadFull(random, buf); err != nil {
			return "", fmt.Errorf("reading random bytes: %w", err)
		}
		for _, b := range buf {
			if int(b) < limit && len(out) < n {
				out = append(out, alphabet[int(b)%len(alphabet)])
			}
		}
	}
	return string(out), nil
}

// below returns a number from 0 to n-1; n is at most 4096.
func below(random io.Reader, n int) (int, error) {
	var b [2]byte
	if _, err := io.ReadFull(random, b[:]); err != nil {
		return 0, fmt.Errorf("reading random bytes: %w", err)
	}
	return (int(b[0])<<8 | int(b[1])) % n, nil
}

// CRC62 is the checksum of GitHub's and npm's tokens: CRC-32 (IEEE) of body in
// base 62, digits before upper before lower case, six characters.
// Source: the announcement "Behind GitHub's new authentication token formats".
func CRC62(body string) string {
	sum := crc32.ChecksumIEEE([]byte(body))
	out := [6]byte{}
	for i := 5; i >= 0; i-- {
		out[i] = alnum[sum%62]
		sum /= 62
	}
	return string(out[:])
}
