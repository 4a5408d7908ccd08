package fake

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"
)

type object = map[string]any

// answer writes what comes back.
type answer struct {
	http.ResponseWriter
	*call
	pause time.Duration
}

// quoting is o with what the request carried.
func (a *answer) quoting(o object) object {
	forms := a.quotes()
	if len(forms) == 0 {
		return o
	}
	o = maps.Clone(o)
	o["echo"] = forms
	return o
}

// json answers with an object, in one piece.
func (a *answer) json(status int, o object) {
	body, err := json.Marshal(a.quoting(o))
	if err != nil {
		http.Error(a, err.Error(), http.StatusInternalServerError)
		return
	}
	a.Header().Set("Content-Type", "application/json")
	a.send(status, body)
}

func (a *answer) send(status int, body []byte) {
	if a.call.Request.Header.Get("X-Fake") == "gzip" {
		var packed bytes.Buffer
		zip := gzip.NewWriter(&packed)
		_, _ = zip.Write(body) // a buffer takes everything
		_ = zip.Close()
		body = packed.Bytes()
		a.ResponseWriter.Header().Set("Content-Encoding", "gzip")
	}
	a.WriteHeader(status)
	_, _ = a.ResponseWriter.Write(body) // the client may be gone
}

// Header is the answer's, not the request's.
func (a *answer) Header() http.Header { return a.ResponseWriter.Header() }

// Write writes a part of the body.
func (a *answer) Write(b []byte) (int, error) { return a.ResponseWriter.Write(b) }

// flush sends what was written so far.
func (a *answer) flush() { _ = http.NewResponseController(a.ResponseWriter).Flush() }

// wait pauses between two parts of a stream; false where the client is gone.
func (a *answer) wait() bool {
	select {
	case <-a.Context().Done():
		return false
	case <-time.After(a.pause):
		return true
	}
}

// echo answers with the quotes, cut in the middle of each.
func (a *answer) echo() {
	a.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if a.call.Request.Header.Get("X-Fake") == "gzip" {
		a.send(http.StatusOK, []byte(strings.Join(a.quotes(), "\n")+"\n"))
		return
	}
	for _, form := range a.quotes() {
		for _, part := range []string{form[:len(form)/2], form[len(form)/2:] + "\n"} {
			_, _ = a.Write([]byte(part)) // the client may be gone
			a.flush()
			if !a.wait() {
				return
			}
		}
	}
}

// events answers with server-sent events, each sent at once.
func (a *answer) events(list []event) {
	a.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
	a.Header().Set("Cache-Control", "no-cache")
	for _, e := range list {
		var text strings.Builder
		if e.name != "" {
			fmt.Fprintf(&text, "event: %s\n", e.name)
		}
		if e.data == nil {
			text.WriteString("data: [DONE]\n\n")
		} else {
			data, err := json.Marshal(e.data)
			if err != nil {
				return
			}
			fmt.Fprintf(&text, "data: %s\n\n", data)
		}
		if _, err := a.Write([]byte(text.String())); err != nil {
			return
		}
		a.flush()
		if !a.wait() {
			return
		}
	}
}

// event is a server-sent one; without data it says that the stream is done.
type event struct {
	name string
	data object
}

// asked reads the request's JSON body; nil where there is none.
func (c *call) asked() object {
	var o object
	if json.Unmarshal(c.body, &o) != nil {
		return nil
	}
	return o
}

// text is a field of o as a text, or usual.
func text(o object, key, usual string) string {
	if s, ok := o[key].(string); ok && s != "" {
		return s
	}
	return usual
}

// words cuts a line so that each piece begins with a space, save the first.
func words(line string) []string {
	parts := strings.SplitAfter(line, " ")
	return slices.DeleteFunc(parts, func(s string) bool { return s == "" })
}
