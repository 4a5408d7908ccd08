package broker

import (
	"bytes"
	"encoding/base64"
	"errors"
	"slices"
	"strings"

	"postern/internal/broker/http1"
	"postern/internal/catalog"
	"postern/internal/credential"
	"postern/internal/placeholder"
	"postern/internal/secret"
)

// place is where in a request a placeholder stands.
type place int

const (
	inHeader place = iota // a span of a field's value
	inBasic               // one half of a field's Basic pair
	inQuery               // a span of the target, percent-encoded
	inPath                // the same
	inFrame               // a JSON field of a WebSocket message
)

// match is one placeholder of this agent in a slot where it may stand.
type match struct {
	lent     *lent
	place    place
	field    int // index in the head's fields
	from, to int // span in the field's value, or in the target
	other    []byte
	user     bool // inBasic: the placeholder is the user, other the password
	value    secret.Value
	version  credential.Version
}

// errStale means that the store knows a placeholder which the view does not.
var errStale = errors.New("broker: the view is older than the store")

// find looks at every slot of the request in x.head. It fills x.matches, or
// says why the request is refused. Bodies are never looked at here.
func (x *exchange) find() (*refusal, error) {
	x.matches = x.matches[:0]
	x.marks = len(placeholder.Find(x.head.Raw()))
	if r, err := x.findHeaders(); r != nil || err != nil {
		return r, err
	}
	path, query, _ := bytes.Cut(x.target, []byte("?"))
	if r, err := x.findPath(path); r != nil || err != nil {
		return r, err
	}
	if r, err := x.findQuery(len(path)+1, query); r != nil || err != nil {
		return r, err
	}
	for i, m := range x.matches {
		for _, n := range x.matches[:i] {
			if n.lent == m.lent {
				return &refusal{status: 403, id: "P-E102", kind: "refused", rule: ruleOne, credential: m.lent.Credential,
					message: "the same credential stands in two places of the request"}, nil
			}
		}
	}
	return nil, nil
}

func (x *exchange) findHeaders() (*refusal, error) {
	for i, f := range x.head.Fields {
		name := x.credentialHeader(f.Name)
		if name == "" || len(f.Value) == 0 {
			if r, err := x.findElsewhere(f); r != nil || err != nil {
				return r, err
			}
			continue
		}
		if !http1.EqualFold(f.Name, name) {
			return malformed("a header is spelled like " + name + " but for its hyphens"), nil
		}
		for _, g := range x.head.Fields[:i] {
			if http1.EqualFold(g.Name, name) {
				return &refusal{status: 400, id: "P-E102", kind: "refused", rule: ruleOne, message: "the header " + name + " stands twice in the request"}, nil
			}
		}
		r, err := x.findHeader(i, name, f.Value)
		if r != nil || err != nil {
			return r, err
		}
	}
	return nil, nil
}

// findElsewhere judges a header that is no slot of the agent's kinds. One whose
// value is a placeholder and nothing else is used as a credential all the same;
// one that holds a placeholder among other words quotes it.
func (x *exchange) findElsewhere(f http1.Field) (*refusal, error) {
	if x.marks == 0 || x.head.Hop(f.Name) {
		return nil, nil
	}
	for _, quoting := range [...]string{"cookie", "referer", "user-agent"} {
		if http1.EqualFold(f.Name, quoting) {
			return nil, nil
		}
	}
	return x.stray(lastWord(f.Value))
}

func lastWord(value []byte) []byte { return value[bytes.LastIndexByte(value, ' ')+1:] }

// credentialHeader is the slot that a header's name stands for, "" for the
// others. Underscores count as hyphens, as many servers read them.
func (x *exchange) credentialHeader(name []byte) string {
	for _, slot := range x.view.headers {
		if len(slot) != len(name) {
			continue
		}
		same := true
		for i := 0; i < len(name) && same; i++ {
			c := name[i]
			switch {
			case c >= 'A' && c <= 'Z':
				c |= 0x20
			case c == '_':
				c = '-'
			}
			same = c == slot[i]
		}
		if same {
			return slot
		}
	}
	return ""
}

func (x *exchange) findHeader(field int, name string, value []byte) (*refusal, error) {
	scheme, rest, _ := bytes.Cut(value, []byte(" "))
	if name == "authorization" && http1.EqualFold(scheme, "basic") {
		return x.findBasic(field, bytes.TrimLeft(rest, " "))
	}
	if m, ok := x.inHeaderSlot(field, name, value); ok {
		x.matches = append(x.matches, m)
		return nil, nil
	}
	if r, err := x.stray(lastWord(value)); r != nil || err != nil {
		return r, err
	}
	if !slices.Contains(x.host.headers, name) && !(name == "authorization" && x.host.basic) {
		return nil, nil
	}
	return x.foreignKey(func(s catalog.Slot) bool {
		return s.In == "header" && s.Name == name || s.In == "basic" && name == "authorization"
	})
}

// inHeaderSlot looks for a placeholder that may stand in this header at this
// host, in one of the forms that the catalogue names.
func (x *exchange) inHeaderSlot(field int, name string, value []byte) (match, bool) {
	for _, l := range x.host.lents {
		for _, slot := range l.Kind.Slots {
			if slot.In != "header" || slot.Name != name {
				continue
			}
			for _, format := range slot.Formats {
				before, after, _ := strings.Cut(format, "{secret}")
				if len(value) != len(before)+len(l.token)+len(after) {
					continue
				}
				from, to := len(before), len(before)+len(l.token)
				if string(value[from:to]) == l.token && strings.EqualFold(string(value[:from]), before) && string(value[to:]) == after {
					return match{lent: l, place: inHeader, field: field, from: from, to: to}, true
				}
			}
		}
	}
	return match{}, false
}

func (x *exchange) findBasic(field int, encoded []byte) (*refusal, error) {
	at := len(x.scratch)
	x.scratch = slices.Grow(x.scratch, base64.StdEncoding.DecodedLen(len(encoded)))
	pair := x.scratch[at : at+base64.StdEncoding.DecodedLen(len(encoded))]
	n, err := base64.StdEncoding.Strict().Decode(pair, encoded)
	user, password, ok := bytes.Cut(pair[:n], []byte(":"))
	if err != nil || !ok {
		if x.host.basic || slices.Contains(x.host.headers, "authorization") {
			return malformed("the Basic credentials cannot be decoded"), nil
		}
		return nil, nil
	}
	x.scratch = x.scratch[:at+n]
	for _, l := range x.host.lents {
		for _, slot := range l.Kind.Slots {
			switch {
			case slot.In != "basic":
			case slot.Part == "user" && string(user) == l.token:
				x.matches = append(x.matches, match{lent: l, place: inBasic, field: field, other: password, user: true})
				return x.stray(password)
			case slot.Part == "password" && string(password) == l.token:
				x.matches = append(x.matches, match{lent: l, place: inBasic, field: field, other: user})
				return x.stray(user)
			}
		}
	}
	for _, half := range [][]byte{user, password} {
		if r, err := x.stray(half); r != nil || err != nil {
			return r, err
		}
	}
	if !x.host.basic && !slices.Contains(x.host.headers, "authorization") {
		return nil, nil
	}
	return x.foreignKey(func(s catalog.Slot) bool { return s.In == "basic" || s.In == "header" && s.Name == "authorization" })
}

// stray judges a token that stands in a credential slot and is not a
// placeholder that may stand there.
func (x *exchange) stray(token []byte) (*refusal, error) {
	if own := x.view.byText[string(token)]; own != nil {
		if !x.secure {
			return cleartext(own.Credential), nil
		}
		if own.mayGo(x.t) {
			return tripwire(own.Credential, "the placeholder of "+own.Credential+" stands in a place that its kind does not name"), nil
		}
		return tripwire(own.Credential, "the placeholder of "+own.Credential+" may not go to "+x.t.key), nil
	}
	if len(token) == 0 || len(token) > catalog.MaxMarked || !placeholder.Is(string(token)) {
		return nil, nil
	}
	known, found := x.b.cfg.Placeholders.Lookup(string(token))
	switch {
	case !found:
		return tripwire("", "a placeholder that was never handed out"), nil
	case known.Revoked:
		return tripwire(known.Credential, "the placeholder of "+known.Credential+" has been revoked"), nil
	case known.Agent != x.e.name:
		return tripwire("", "a placeholder of another agent"), nil
	case !x.fresh:
		return nil, errStale
	}
	return tripwire(known.Credential, "the placeholder of "+known.Credential+" stands in a place that its kind does not name"), nil
}

// foreignKey refuses a value that is no placeholder in a slot of a kind that
// the agent holds, unless a grant lets it bring its own keys.
func (x *exchange) foreignKey(uses func(catalog.Slot) bool) (*refusal, error) {
	credential := ""
	for _, l := range x.host.lents {
		if !slices.ContainsFunc(l.Kind.Slots, uses) {
			continue
		}
		credential = l.Credential
		d := x.b.cfg.Decider.Decide(Request{Agent: x.e.name, Credential: l.Credential, Host: x.t.key, Method: x.method, Path: x.path})
		if d.OwnKeys {
			return nil, nil
		}
	}
	return foreign(credential, "a key that is not a placeholder was sent to "+x.t.key+", where the agent uses "+credential), nil
}

func (x *exchange) findPath(path []byte) (*refusal, error) {
	for _, slot := range x.host.paths {
		for _, token := range [...]string{slot.of.token, slot.of.escaped} {
			if token == "" {
				continue
			}
			at := bytes.Index(path, []byte(slot.before+token+slot.after))
			if at < 0 {
				continue
			}
			from := at + len(slot.before)
			to := from + len(token)
			if slot.after == "" && to < len(path) && path[to] != '/' {
				continue
			}
			x.matches = append(x.matches, match{lent: slot.of, place: inPath, from: from, to: to})
			return nil, nil
		}
	}
	for _, slot := range x.host.paths {
		rest, ok := bytes.CutPrefix(path, []byte(slot.before))
		if !ok || slot.before == "/" {
			continue
		}
		token, _, _ := bytes.Cut(rest, []byte("/"))
		if len(token) == 0 {
			continue
		}
		token, _ = appendUnescaped(nil, token, false)
		if r, err := x.stray(token); r != nil || err != nil {
			return r, err
		}
		return x.foreignKey(func(s catalog.Slot) bool { return s.In == "path" })
	}
	return nil, nil
}

func (x *exchange) findQuery(at int, query []byte) (*refusal, error) {
	if len(x.view.queries) == 0 {
		return nil, nil
	}
	var seen []string
	for len(query) > 0 {
		pair, rest, _ := bytes.Cut(query, []byte("&"))
		r, err := x.findParameter(at, pair, &seen)
		if r != nil || err != nil {
			return r, err
		}
		at, query = at+len(pair)+1, rest
	}
	return nil, nil
}

func (x *exchange) findParameter(at int, pair []byte, seen *[]string) (*refusal, error) {
	rawName, rawValue, _ := bytes.Cut(pair, []byte("="))
	name, okName := appendUnescaped(nil, rawName, true)
	index := slices.IndexFunc(x.view.queries, func(q string) bool { return strings.EqualFold(q, string(name)) })
	if index < 0 || len(rawValue) == 0 {
		return nil, nil
	}
	slotName := x.view.queries[index]
	value, okValue := appendUnescaped(nil, rawValue, true)
	if !okName || !okValue {
		return malformed("a query parameter has a broken percent code"), nil
	}
	if slices.Contains(*seen, slotName) {
		return &refusal{status: 400, id: "P-E102", kind: "refused", rule: ruleOne, message: "the query parameter " + slotName + " stands twice"}, nil
	}
	*seen = append(*seen, slotName)
	uses := func(s catalog.Slot) bool { return s.In == "query" && s.Name == slotName }
	for _, l := range x.host.lents {
		if string(value) == l.token && slices.ContainsFunc(l.Kind.Slots, uses) {
			from := at + len(rawName) + 1
			x.matches = append(x.matches, match{lent: l, place: inQuery, from: from, to: from + len(rawValue)})
			return nil, nil
		}
	}
	if r, err := x.stray(value); r != nil || err != nil {
		return r, err
	}
	if !slices.Contains(x.host.queries, slotName) {
		return nil, nil
	}
	return x.foreignKey(uses)
}
