package catalog

import (
	"strings"
)

// How sure a Match is.
const (
	High   = "high"   // the shape is the kind's own
	Medium = "medium" // the variable's name and the shape agree
	Low    = "low"    // a name like a secret's and a value like one, of no known kind
)

// GenericID is the kind of what no entry knows.
const GenericID = "generic"

// maxValue bounds what Identify looks at; a service account has 2.4 kB, a chain
// of certificates with its key some 10 kB.
const maxValue = 64 << 10

// Match is what Identify found.
type Match struct {
	Kind       *Kind
	Confidence string
	Spans      []Span // each key in the value, in order; one for a value that is a key as a whole
}

// Span is one key inside a value.
type Span struct {
	Start, End int // offsets in the value
	Kind       *Kind
	Confidence string
}

// Identify says which kind the value of a variable is. Placeholders of ours,
// templates (your-key-here), references (${X}, op://…) and ordinary settings are
// none. A value that holds several keys, separated by commas, semicolons or line
// ends, gives one span for each; Kind is that of the first. Broken files of the
// user are passed over. Identify never fails on hostile input: it reads at most
// 64 KiB, in linear time.
func (c *Catalog) Identify(variable, value string) (Match, bool) {
	trimmed := strings.TrimSpace(value)
	if trimmed == "" || len(trimmed) > maxValue {
		return Match{}, false
	}
	if Marked(trimmed) || reference(trimmed) {
		return Match{}, false
	}
	name := parseName(variable)
	whole, isWhole := c.span(name, value, 0, len(value))
	if isWhole && whole.Confidence != Low {
		return matchOf([]Span{whole}), true
	}
	var spans []Span
	sure := false
	for _, p := range Split(value) {
		if s, ok := c.span(name, value, p[0], p[1]); ok {
			spans = append(spans, s)
			sure = sure || s.Confidence != Low
		}
	}
	switch {
	case isWhole && !sure && (len(spans) < 2 || !name.plural()):
		return matchOf([]Span{whole}), true
	case len(spans) > 0:
		return matchOf(spans), true
	}
	return Match{}, false
}

func matchOf(spans []Span) Match {
	return Match{Kind: spans[0].Kind, Confidence: spans[0].Confidence, Spans: spans}
}

// span identifies what stands in value[start:end]; blanks around it and a scheme
// word as in "Bearer x" stay outside the span.
func (c *Catalog) span(name varName, value string, start, end int) (Span, bool) {
	text := strings.TrimSpace(value[start:end])
	start += strings.Index(value[start:end], text)
	for _, word := range []string{"Bearer ", "Bot ", "token ", "Token ", "bearer "} {
		if rest, found := strings.CutPrefix(text, word); found {
			start, text = start+len(word), rest
			break
		}
	}
	if text == "" || Marked(text) || reference(text) {
		return Span{}, false
	}
	kinds, _ := c.Kinds() // the mistakes of user files are Check's to tell
	if k, confidence := known(kinds, name, text); k != nil {
		return Span{Start: start, End: start + len(text), Kind: k, Confidence: confidence}, true
	}
	if !name.secret() || name.public() || !looksSecret(name, text) {
		return Span{}, false
	}
	k, err := c.Kind(GenericID)
	if err != nil {
		return Span{}, false
	}
	return Span{Start: start, End: start + len(text), Kind: k, Confidence: Low}, true
}

// known finds the kind whose shape the value has. Where several do, an embedded
// one wins over one of the user, then one that the variable's name speaks for,
// then one that needs no name, then the one with the longer keyword.
func known(kinds []*Kind, name varName, value string) (*Kind, string) {
	var best *Kind
	bestScore, bestConfidence := 0, ""
	for _, k := range kinds {
		score := k.score(name, value)
		if score <= bestScore || !k.Matches(value) {
			continue
		}
		confidence, ok := k.judge(name, value)
		if ok {
			best, bestScore, bestConfidence = k, score, confidence
		}
	}
	return best, bestConfidence
}

// score is 0 where the kind is out of the question, without its pattern.
func (k *Kind) score(name varName, value string) int {
	longest := 0
	for _, word := range k.Detect.Keywords {
		if k.Detect.Context && name.has(word) || !k.Detect.Context && strings.Contains(value, word) {
			longest = max(longest, len(word))
		}
	}
	if longest == 0 {
		return 0
	}
	longest = min(longest, 99)
	if name.is(k.Env) {
		longest += 200
	}
	if !k.Detect.Context {
		longest += 100
	}
	if !k.own {
		longest += 400
	}
	return longest
}

// Matches says whether the kind's pattern matches the whole value.
func (k *Kind) Matches(value string) bool {
	if k.Detect.Pattern == "" {
		return false
	}
	re, err := k.compile()
	return err == nil && re.MatchString(value)
}

// judge looks closer at a value whose pattern matched.
func (k *Kind) judge(name varName, value string) (string, bool) {
	if k.Detect.Context && (!name.secret() && !name.is(k.Env) || name.public() || sample(value)) {
		return "", false
	}
	if k.Detect.Public && name.public() {
		return "", false
	}
	if k.Protocol == HTTP && sample(strings.TrimPrefix(value, k.tag(value))) {
		return "", false
	}
	confidence := High
	if k.Detect.Context {
		confidence = Medium
	}
	return k.further(value, confidence)
}

// Split returns the offsets of the parts of a value that may hold several keys:
// what stands between commas, semicolons and line ends, without the blanks and
// quotes around it. A value with none of them, a JSON document, a PEM block or an
// address with commas in it comes back as one part.
func Split(value string) [][2]int {
	whole := [][2]int{trimSpan(value, 0, len(value))}
	trimmed := strings.TrimSpace(value)
	if trimmed == "" || strings.HasPrefix(trimmed, "{") || strings.Contains(trimmed, "-----BEGIN") {
		return whole
	}
	var parts [][2]int
	start := 0
	for i := 0; i <= len(value); i++ {
		if i < len(value) && strings.IndexByte(",;\n\r", value[i]) < 0 {
			continue
		}
		if p := trimSpan(value, start, i); p[0] < p[1] {
			parts = append(parts, p)
		}
		start = i + 1
	}
	addresses := 0
	for _, p := range parts {
		if strings.Contains(value[p[0]:p[1]], "://") {
			addresses++
		}
	}
	if len(parts) == 0 || addresses > 0 && addresses < len(parts) {
		return whole // nothing, or an address that names several hosts
	}
	return parts
}

func trimSpan(value string, start, end int) [2]int {
	const around = " \t\r\n\"'[]"
	for start < end && strings.IndexByte(around, value[start]) >= 0 {
		start++
	}
	for end > start && strings.IndexByte(around, value[end-1]) >= 0 {
		end--
	}
	return [2]int{start, end}
}
