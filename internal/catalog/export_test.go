package catalog

import (
	"bytes"
	"encoding/json"

	"postern/internal/strictyaml"
)

// Decoded is what providers.jsonl holds.
func Decoded() string { return decoded }

// DecodedFiles is what providers.jsonl should hold: each embedded file, read as
// YAML, as a line of JSON.
func DecodedFiles(c *Catalog) (string, error) {
	var lines bytes.Buffer
	encoder := json.NewEncoder(&lines)
	encoder.SetEscapeHTML(false)
	for _, provider := range c.providers() {
		for _, f := range c.files[provider] {
			data, err := f.read()
			if err != nil {
				return "", err
			}
			var doc document
			if err := strictyaml.Decode(f.name, data, &doc); err != nil {
				return "", err
			}
			if err := encoder.Encode(doc); err != nil {
				return "", err
			}
		}
	}
	return lines.String(), nil
}
