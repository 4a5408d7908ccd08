package fake

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"postern/internal/strictyaml"
)

// ReadKeys reads a JSON object that leads the id of a kind, or the name of a
// host, to a key or to a list of keys.
func ReadKeys(path string) (map[string][]string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading the keys: %w", err)
	}
	var texts map[string]json.RawMessage
	if err := json.Unmarshal(data, &texts); err != nil {
		return nil, fmt.Errorf("reading the keys: %w", err)
	}
	keys := map[string][]string{}
	for name, text := range texts {
		var one string
		var list []string
		switch {
		case json.Unmarshal(text, &one) == nil:
			list = []string{one}
		case json.Unmarshal(text, &list) != nil:
			return nil, fmt.Errorf("reading the keys: %s has neither a text nor a list of texts", name)
		}
		keys[name] = list
	}
	return keys, nil
}

// Run serves until ctx ends and keeps in dir what others need: ca.pem;
// config-fragment, which is YAML to put into config.yaml; calls.json, the counts
// of each host, after each call; and ready, with the address, once the server
// listens.
func Run(ctx context.Context, kinds Kinds, keys map[string][]string, dir string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("making the fakes' directory: %w", err)
	}
	var writing sync.Mutex
	var server *Server
	count := func(map[string]Count) {
		writing.Lock()
		defer writing.Unlock()
		// The newest counts, whichever call's turn it is.
		if data, err := json.MarshalIndent(server.Calls(), "", "  "); err == nil {
			_ = replace(filepath.Join(dir, "calls.json"), append(data, '\n')) // shown by the missing file
		}
	}
	server, err = New(Config{Kinds: kinds, Keys: keys, Changed: count})
	if err != nil {
		return err
	}
	if err := server.Start("127.0.0.1:0"); err != nil {
		return err
	}
	defer server.Close()
	count(nil)
	files := []struct {
		name string
		data []byte
	}{
		{"ca.pem", server.CAPEM()},
		{"config-fragment", server.Fragment(filepath.Join(dir, "ca.pem"))},
		{"ready", []byte(server.Addr() + "\n")},
	}
	for _, f := range files {
		if err := replace(filepath.Join(dir, f.name), f.data); err != nil {
			return fmt.Errorf("writing %s: %w", f.name, err)
		}
	}
	<-ctx.Done()
	count(nil)
	return nil
}

// Fragment is the part of config.yaml that leads Postern to the server; caFile
// is where its certificate stands.
func (s *Server) Fragment(caFile string) []byte {
	var b strings.Builder
	b.WriteString("upstream:\n  dial:\n")
	dial := s.Dial()
	for _, host := range s.hosts {
		if !strings.Contains(host, ":") {
			host += ":443"
		}
		fmt.Fprintf(&b, "    %s: %s\n", strictyaml.Quote(host), strictyaml.Quote(dial[host]))
	}
	fmt.Fprintf(&b, "  ca_file: %s\n", strictyaml.Quote(caFile))
	return []byte(b.String())
}

// replace writes a file as a whole or not at all.
func replace(path string, data []byte) error {
	next := path + ".next"
	if err := os.WriteFile(next, data, 0o600); err != nil {
		return err
	}
	return os.Rename(next, path)
}
