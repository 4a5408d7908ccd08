package fake

import (
	"encoding/base64"
	"encoding/hex"
	"io"
	"log"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"postern/internal/catalog"
)

// maxBody bounds what is read of a request.
const maxBody = 8 << 20

// call is one request on its way to an answer.
type call struct {
	*http.Request
	host     string
	kind     *catalog.Kind // of the accepted key; nil for a host's own key or none
	key      string        // the accepted key
	received []string      // every text that stood in a credential slot
	body     []byte
	path     string // the path without the credential in it
}

func quiet() *log.Logger { return log.New(io.Discard, "", 0) }

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := &call{Request: r, host: nameOf(r.Host), path: r.URL.Path}
	if r.TLS != nil && r.TLS.ServerName != c.host {
		http.Error(w, "the name of the connection and of the request differ", http.StatusMisdirectedRequest)
		return
	}
	s.identify(c)
	if strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
		s.gateway(w, c)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		http.Error(w, "the body is too large", http.StatusRequestEntityTooLarge)
		return
	}
	c.body = body
	s.count(c.host, c.key != "")
	for _, form := range c.quotes() {
		w.Header().Add("X-Echo", form)
	}
	a := &answer{ResponseWriter: w, call: c, pause: s.cfg.Pause}
	switch r.Header.Get("X-Fake") {
	case "429":
		w.Header().Set("Retry-After", "1")
		a.json(http.StatusTooManyRequests, object{"error": object{"type": "rate_limit_error", "message": "Too many requests"}})
		return
	case "redirect":
		http.Redirect(w, r, "https://elsewhere.example/", http.StatusTemporaryRedirect)
		return
	case "trailer":
		w.Header().Set("Trailer", "X-Echo-End")
		defer w.Header().Set("X-Echo-End", strings.Join(c.quotes(), " "))
	}
	if r.URL.Path == "/echo" || strings.HasSuffix(c.path, "/echo") {
		a.echo()
		return
	}
	s.provider(c)(a)
}

// provider is who answers for the host.
func (s *Server) provider(c *call) func(*answer) {
	switch c.host {
	case "api.anthropic.com":
		return anthropic
	case "api.openai.com":
		return openai
	case "api.stripe.com":
		return stripe
	case "api.telegram.org":
		return telegram
	case "discord.com", "discordapp.com":
		return discord
	}
	return s.generic
}

// identify finds what stands in the credential slots of the host's kinds, and
// which of it is a real key.
func (s *Server) identify(c *call) {
	for _, kind := range s.kinds {
		if !kind.Allows(strings.TrimSuffix(c.Host, ":443")) {
			continue
		}
		for _, slot := range kind.Slots {
			s.look(c, kind, slot, s.cfg.Keys[kind.ID])
		}
	}
	keys := s.cfg.Keys[c.host]
	if len(keys) == 0 {
		keys = s.cfg.Keys[c.Host]
	}
	if len(keys) == 0 {
		return
	}
	for _, slot := range anySlot() {
		s.look(c, nil, slot, keys)
	}
}

// anySlot are the slots of a host of which nothing is known.
func anySlot() []catalog.Slot {
	return []catalog.Slot{
		{In: "header", Name: "authorization", Formats: []string{"Bearer {secret}", "token {secret}", "Bot {secret}", "{secret}"}},
		{In: "header", Name: "x-api-key", Formats: []string{"{secret}"}},
		{In: "header", Name: "api-key", Formats: []string{"{secret}"}},
		{In: "header", Name: "x-auth-token", Formats: []string{"{secret}"}},
		{In: "basic", Part: "password"}, {In: "basic", Part: "user"},
		{In: "query", Name: "key"}, {In: "query", Name: "api_key"}, {In: "query", Name: "token"},
	}
}

func (s *Server) look(c *call, kind *catalog.Kind, slot catalog.Slot, keys []string) {
	for _, text := range standing(c.Request, slot) {
		if !slices.Contains(c.received, text) {
			c.received = append(c.received, text)
		}
		for _, key := range keys {
			if kind != nil {
				key = kind.SecretPart(key)
			}
			if text != key {
				continue
			}
			c.kind, c.key = kind, key
			if slot.In == "path" {
				c.path = strings.Replace(c.path, text, "{token}", 1)
			}
		}
	}
}

// standing is what stands in a slot of a request.
func standing(r *http.Request, slot catalog.Slot) []string {
	var found []string
	add := func(text string) {
		if text != "" {
			found = append(found, text)
		}
	}
	switch slot.In {
	case "header":
		for _, value := range r.Header.Values(slot.Name) {
			for _, format := range slot.Formats {
				before, after, _ := strings.Cut(format, "{secret}")
				if len(value) > len(before)+len(after) && strings.EqualFold(value[:len(before)], before) && strings.HasSuffix(value, after) {
					add(value[len(before) : len(value)-len(after)])
					break
				}
			}
		}
	case "basic":
		if user, password, ok := r.BasicAuth(); ok {
			if slot.Part == "user" {
				add(user)
			} else {
				add(password)
			}
		}
	case "query":
		add(r.URL.Query().Get(slot.Name))
	case "path":
		for _, format := range slot.Formats {
			before, after, _ := strings.Cut(format, "{secret}")
			add(between(r.URL.EscapedPath(), before, after))
		}
	}
	return found
}

// shortest is the length from which the last segment of a path may be a secret.
const shortest = 20

// between is the path segment that stands between two texts: after the first
// of them where the second ends it, or at the end of the path.
func between(path, before, after string) string {
	var rest string
	if after != "" {
		i := strings.Index(path, before)
		if i != 0 {
			return ""
		}
		rest, _, _ = strings.Cut(path[len(before):], "/")
	} else {
		i := strings.LastIndex(path, before)
		if i < 0 {
			return ""
		}
		rest = path[i+len(before):]
		if len(rest) < shortest {
			return "" // an ordinary name
		}
	}
	text, err := url.PathUnescape(rest)
	if err != nil {
		return ""
	}
	return text
}

// quotes are the received credentials in the forms in which careless services
// give them back.
func (c *call) quotes() []string {
	var forms []string
	for _, text := range c.received {
		forms = append(forms, text, base64.StdEncoding.EncodeToString([]byte(text)), hex.EncodeToString([]byte(text)))
	}
	return forms
}
