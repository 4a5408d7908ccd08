package redact

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"postern/internal/secret"
)

// part is a value, or a piece of one that is secret by itself, with its
// replacement.
type part struct{ value, replacement []byte }

// partsOf is the whole value first, then its lines where there are several, and
// the secret members of a JSON document.
func partsOf(value, replacement []byte) []part {
	parts := []part{{value, replacement}}
	if value[0] == '{' {
		parts = append(parts, membersOf(value)...)
	}
	if bytes.IndexByte(value, '\n') < 0 {
		return parts
	}
	parts = append(parts, part{bytes.ReplaceAll(value, []byte("\n"), []byte("\r\n")), replacement})
	return append(parts, linesOf(value, replacement)...)
}

// linesOf are the lines without blanks, armour lines apart: a line of a document
// has names in it, and they are no secret. The line of a replacement with as many
// lines stands for its counterpart, the mask where the replacement has another
// shape.
func linesOf(value, replacement []byte) []part {
	var parts []part
	lines := bytes.Split(value, []byte("\n"))
	substitutes := bytes.Split(bytes.TrimSpace(replacement), []byte("\n"))
	for i, line := range lines {
		line = bytes.TrimSpace(line)
		if len(line) < minLine || bytes.HasPrefix(line, []byte("-----")) || bytes.IndexByte(line, ' ') >= 0 {
			continue
		}
		p := part{value: line, replacement: []byte(secret.Mask)}
		if len(substitutes) == len(lines) {
			p.replacement = bytes.TrimSpace(substitutes[i])
		}
		parts = append(parts, p)
	}
	return parts
}

// membersOf are the texts in a JSON document that are secret by their name, as a
// service account's private key is; nothing where value is no document.
func membersOf(value []byte) []part {
	var document map[string]any
	if json.Unmarshal(value, &document) != nil {
		return nil
	}
	var parts []part
	var walk func(map[string]any)
	walk = func(members map[string]any) {
		for _, name := range slices.Sorted(maps.Keys(members)) {
			switch member := members[name].(type) {
			case map[string]any:
				walk(member)
			case string:
				text := strings.TrimSpace(member)
				if len(text) < minLong || !namesSecret(name) && !strings.HasPrefix(text, "-----BEGIN") {
					continue
				}
				parts = append(parts, part{[]byte(text), []byte(secret.Mask)})
				if strings.Contains(text, "\n") {
					parts = append(parts, linesOf([]byte(text), nil)...)
				}
			}
		}
	}
	walk(document)
	return parts
}

// namesSecret knows the members of credential documents: "private_key" and
// "refresh_token" are secret, "private_key_id" and "token_uri" are not.
func namesSecret(name string) bool {
	name = strings.ToLower(name)
	for _, open := range []string{"id", "uri", "url", "type", "name"} {
		if strings.HasSuffix(name, open) {
			return false
		}
	}
	for _, word := range []string{"key", "secret", "token", "password", "credential"} {
		if strings.Contains(name, word) {
			return true
		}
	}
	return false
}
