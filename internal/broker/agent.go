package broker

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"postern/internal/catalog"
	"postern/internal/fail"
	"postern/internal/redact"
	"postern/internal/secret"
)

// view is what the broker knows of one agent's credentials at one moment. It is
// never changed; Reload puts a new one in its place.
type view struct {
	agent   string
	lents   []*lent
	byText  map[string]*lent
	matcher *redact.Matcher
	headers []string // every header in which one of its credentials could stand
	queries []string

	mu    sync.Mutex
	hosts map[string]*hostView
}

// lent is one credential in an agent's hands.
type lent struct {
	Lent
	token   string // what stands in a request: the placeholder, or its secret part
	escaped string // token percent-encoded, where that differs
	version int    // when the view was built; 0 unknown
	mark    string // keyed fingerprint of that version
}

// hostView is what may go to one host.
type hostView struct {
	lents   []*lent
	headers []string // header slots of these, lower case
	queries []string
	basic   bool // one of these goes by Basic
	paths   []pathSlot
	sockets bool // one of these stands in WebSocket frames
}

type pathSlot struct {
	of            *lent
	before, after string
}

// Reload makes the agent's next request see its placeholders and known values
// as they are now. Call it after a put, a revocation and a change of agents.
func (b *Broker) Reload(agent string) { b.entry(agent).view.Store(nil) }

// ReloadAll is Reload for every agent seen so far.
func (b *Broker) ReloadAll() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, e := range b.agents {
		e.view.Store(nil)
	}
}

// viewOf is the agent's current view, built where there is none.
func (b *Broker) viewOf(ctx context.Context, e *agentEntry) (*view, error) {
	if v := e.view.Load(); v != nil {
		return v, nil
	}
	e.build.Lock()
	defer e.build.Unlock()
	if v := e.view.Load(); v != nil {
		return v, nil
	}
	v, err := b.buildView(ctx, e.name)
	if err != nil {
		return nil, err
	}
	e.view.Store(v)
	return v, nil
}

func (b *Broker) buildView(ctx context.Context, agent string) (*view, error) {
	of, err := b.cfg.Placeholders.Of(agent)
	if err != nil {
		return nil, fmt.Errorf("reading the placeholders of the agent: %w", err)
	}
	v := &view{agent: agent, byText: map[string]*lent{}, hosts: map[string]*hostView{}, headers: []string{"authorization"}}
	var known []redact.Known
	for _, one := range of {
		l := newLent(one)
		v.lents = append(v.lents, l)
		v.byText[l.token] = l
		for _, slot := range one.Kind.Slots {
			v.headers, v.queries = addNames(v.headers, v.queries, slot)
		}
		value, version, err := b.cfg.Leaser.Lease(ctx, agent, one.Credential)
		if err != nil {
			if fail.Is(err, fail.NotAllowed) || fail.Is(err, fail.NotFound) {
				continue // not lent out, so there is nothing of it that could come back
			}
			return nil, fmt.Errorf("reading the known values of the agent: %w", err)
		}
		l.version, l.mark = version.Number, version.Fingerprint
		known = append(known, knownOf(one, value)...)
	}
	if b.cfg.Known != nil {
		if known, err = b.cfg.Known(ctx, agent); err != nil {
			return nil, fmt.Errorf("reading the known values of the agent: %w", err)
		}
	}
	if v.matcher, err = redact.New(known); err != nil {
		return nil, fmt.Errorf("preparing redaction: %w", err)
	}
	return v, nil
}

func newLent(one Lent) *lent {
	l := &lent{Lent: one, token: one.Kind.SecretPart(one.Placeholder)}
	escaped := string(appendEscaped(nil, []byte(l.token)))
	escaped = strings.ReplaceAll(escaped, ":", "%3A")
	if escaped != l.token {
		l.escaped = escaped
	}
	return l
}

// part is the part of a value of the credential that stands in a request.
func (l *lent) part(value []byte) []byte {
	if l.Kind.Placeholder.Part == "" {
		return value
	}
	return []byte(l.Kind.SecretPart(string(value)))
}

// knownOf is what must be masked of one value: all of it, and its secret part
// where the value is an address.
func knownOf(of Lent, value secret.Value) []redact.Known {
	known := []redact.Known{{Value: value, Replacement: of.Placeholder}}
	if of.Kind.Placeholder.Part == "" {
		return known
	}
	_ = value.Reveal(func(b []byte) error {
		part := of.Kind.SecretPart(string(b))
		known = append(known, redact.Known{Value: secret.New([]byte(part)), Replacement: of.Kind.SecretPart(of.Placeholder)})
		return nil
	})
	return known
}

func addNames(headers, queries []string, slot catalog.Slot) (h, q []string) {
	switch slot.In {
	case "header":
		if !slices.Contains(headers, slot.Name) {
			headers = append(headers, slot.Name)
		}
	case "query":
		if !slices.Contains(queries, slot.Name) {
			queries = append(queries, slot.Name)
		}
	}
	return headers, queries
}

// mayGo says whether the catalogue, or the user for a kind that allows it, lets
// the credential go to t.
func (l *lent) mayGo(t target) bool {
	return slices.ContainsFunc(l.Kind.Hosts, t.hostListed) || slices.ContainsFunc(l.Hosts, t.hostListed)
}

// at is what may go to t.
func (v *view) at(t target) *hostView {
	v.mu.Lock()
	defer v.mu.Unlock()
	if h := v.hosts[t.key]; h != nil {
		return h
	}
	h := &hostView{}
	for _, l := range v.lents {
		if !l.mayGo(t) {
			continue
		}
		h.lents = append(h.lents, l)
		for _, slot := range l.Kind.Slots {
			h.headers, h.queries = addNames(h.headers, h.queries, slot)
			switch slot.In {
			case "basic":
				h.basic = true
			case "ws":
				h.sockets = true
			case "path":
				for _, format := range slot.Formats {
					before, after, _ := strings.Cut(format, "{secret}")
					h.paths = append(h.paths, pathSlot{of: l, before: before, after: after})
				}
			}
		}
	}
	if len(v.hosts) < maxHostViews {
		v.hosts[t.key] = h
	}
	return h
}

// maxHostViews bounds what an agent that names ever new hosts can make us keep.
const maxHostViews = 1024
