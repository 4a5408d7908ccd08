package placeholder

import (
	"encoding/base64"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"

	"postern/internal/catalog"
)

// drawn is a candidate.
type drawn struct {
	text    string
	runs    []string // its random runs
	secrets []string // the secret parts of the real value, which must not stand in them
}

// draw makes one candidate.
func draw(kind *catalog.Kind, real string, random io.Reader) (drawn, error) {
	shape := kind.Placeholder
	if shape.Part != "" {
		return drawAddress(shape, real, random)
	}
	switch shape.Style {
	case "jwt":
		return drawToken(real, random)
	case "derived":
		form, secrets := derive(real)
		return fill(form, nil, secrets, random)
	}
	return drawForm(shape.Forms, real, random)
}

// drawAddress replaces the secret part of an address and keeps the rest.
func drawAddress(shape catalog.Shape, real string, random io.Reader) (drawn, error) {
	start, end, ok := catalog.AddressPart(real, shape.Part)
	if !ok {
		return drawn{}, fmt.Errorf("the value is no address with a secret part (%s)", shape.Part)
	}
	d, err := drawForm(shape.Forms, real[start:end], random)
	d.text = real[:start] + d.text + real[end:]
	return d, err
}

// drawForm draws from the first form that the real value has, else from the
// first form at its shortest.
func drawForm(forms []string, real string, random io.Reader) (drawn, error) {
	var first catalog.Template
	for i, form := range forms {
		t, err := catalog.ParseTemplate(form)
		if err != nil {
			return drawn{}, err
		}
		if i == 0 {
			first = t
		}
		parts, err := fit(t, real)
		if err != nil {
			return drawn{}, err
		}
		if parts != nil {
			return fill(t, parts, secretParts(t, parts), random)
		}
	}
	return fill(first, nil, []string{real}, random)
}

// fit cuts real into the pieces of t; nil where it has another form.
func fit(t catalog.Template, real string) ([]string, error) {
	var b strings.Builder
	b.WriteString(`\A`)
	for _, p := range t {
		if p.Class == "" {
			fmt.Fprintf(&b, "(%s)", regexp.QuoteMeta(p.Literal))
			continue
		}
		alphabet, _ := catalog.Alphabet(p.Class)
		fmt.Fprintf(&b, "([%s]{%d,%d})", strings.ReplaceAll(regexp.QuoteMeta(alphabet), "-", `\-`), p.Min, p.Max)
	}
	b.WriteString(`\z`)
	re, err := regexp.Compile(b.String())
	if err != nil {
		return nil, err
	}
	if found := re.FindStringSubmatch(real); found != nil {
		return found[1:], nil
	}
	return nil, nil
}

func secretParts(t catalog.Template, parts []string) []string {
	var secrets []string
	for i, p := range t {
		if p.Class != "" && !p.Keep {
			secrets = append(secrets, parts[i])
		}
	}
	return secrets
}

// fill writes a text of form t: what is kept and the lengths from parts, the
// rest from random, and the mark at the end of the last run that has room.
func fill(t catalog.Template, parts, secrets []string, random io.Reader) (drawn, error) {
	d := drawn{secrets: secrets}
	var text []byte
	var spans [][2]int
	start, end, alphabet := 0, 0, ""
	for i, p := range t {
		piece, err := fillPiece(p, parts, i, random)
		if err != nil {
			return drawn{}, err
		}
		if letters, _ := catalog.Alphabet(p.Class); p.Class != "" && !p.Keep {
			spans = append(spans, [2]int{len(text), len(text) + len(piece)})
			if n, fits := catalog.MarkLength(letters); fits && len(piece) > n {
				start, end, alphabet = len(text), len(text)+len(piece), letters
			}
		}
		text = append(text, piece...)
	}
	if err := catalog.Mark(text, start, end, alphabet); err != nil {
		return drawn{}, err
	}
	d.text = string(text)
	for _, s := range spans {
		d.runs = append(d.runs, d.text[s[0]:s[1]])
	}
	return d, nil
}

func fillPiece(p catalog.Piece, parts []string, i int, random io.Reader) (string, error) {
	if p.Class == "" {
		return p.Literal, nil
	}
	n := p.Min
	if parts != nil {
		if p.Keep {
			return parts[i], nil
		}
		n = len(parts[i])
	}
	alphabet, _ := catalog.Alphabet(p.Class)
	return catalog.Random(random, alphabet, n)
}

// The lengths of placeholders for what no entry knows: below the shortest there
// is no room for 128 bits and the mark.
const (
	shortest = 32
	longest  = 128
)

// derive makes a form for a value of no known kind from its alphabet, its length
// and a short prefix like "key-" or "sk_live_".
func derive(real string) (catalog.Template, []string) {
	prefix := regexp.MustCompile(`\A[A-Za-z]{2,6}[-_](?:[a-z]{2,5}[-_])?`).FindString(real)
	body := real[len(prefix):]
	if len(body) < 16 {
		prefix, body = "", real
	}
	class := "alnum"
	for _, narrow := range []string{"hex", "lalnum"} {
		alphabet, _ := catalog.Alphabet(narrow)
		if strings.Trim(body, alphabet) == "" && strings.ContainsAny(body, "abcdef") {
			class = narrow
			break
		}
	}
	n := strconv.Itoa(min(max(len(body), shortest), longest))
	t, err := catalog.ParseTemplate(prefix + "{" + class + ":" + n + "}")
	if err != nil {
		return nil, nil
	}
	return t, []string{body}
}

// drawToken makes a JSON web token: the real header, a payload of its own that
// never expires, a signature of the real one's length.
func drawToken(real string, random io.Reader) (drawn, error) {
	parts := strings.Split(real, ".")
	header, signature := encode(`{"alg":"HS256","typ":"JWT"}`), 43
	var secrets []string
	if len(parts) == 3 {
		if len(parts[0]) <= 200 {
			header = parts[0]
		}
		signature = min(max(len(parts[2]), 43), 128)
		secrets = parts[1:]
	}
	id, err := catalog.Random(random, "0123456789", 12)
	if err != nil {
		return drawn{}, err
	}
	t, err := catalog.ParseTemplate(header + "." + encode(`{"sub":"`+id+`"}`) + ".{b64u:" + strconv.Itoa(signature) + "}")
	if err != nil {
		return drawn{}, err
	}
	return fill(t, nil, secrets, random)
}

func encode(json string) string { return base64.RawURLEncoding.EncodeToString([]byte(json)) }
