package cli

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
)

// conform says where value, decoded JSON, is not what schema allows. It knows the
// words that schemas of ours are made of, and no others.
func conform(schema map[string]any, value any, at string) []string {
	if options, found := schema["anyOf"].([]any); found {
		for _, one := range options {
			if len(conform(one.(map[string]any), value, at)) == 0 {
				return nil
			}
		}
		return []string{at + " is none of what it may be"}
	}
	if !ofType(schema["type"], value) {
		return []string{fmt.Sprintf("%s is %T, not %v", at, value, schema["type"])}
	}
	var wrong []string
	switch v := value.(type) {
	case string:
		if schema["format"] == "date-time" {
			if _, err := time.Parse(time.RFC3339Nano, v); err != nil {
				wrong = append(wrong, at+" is no time: "+v)
			}
		}
	case []any:
		items, _ := schema["items"].(map[string]any)
		for i, one := range v {
			wrong = append(wrong, conform(items, one, fmt.Sprintf("%s[%d]", at, i))...)
		}
	case map[string]any:
		wrong = append(wrong, conformObject(schema, v, at)...)
	}
	return wrong
}

func conformObject(schema, object map[string]any, at string) (wrong []string) {
	properties, _ := schema["properties"].(map[string]any)
	required, _ := schema["required"].([]any)
	for _, name := range required {
		if _, found := object[name.(string)]; !found {
			wrong = append(wrong, at+" has no "+name.(string))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(object)) {
		inner, known := properties[name].(map[string]any)
		if !known {
			if inner, known = schema["additionalProperties"].(map[string]any); !known {
				wrong = append(wrong, at+"."+name+" stands in no schema")
				continue
			}
		}
		wrong = append(wrong, conform(inner, object[name], at+"."+name)...)
	}
	return wrong
}

func ofType(want, value any) bool {
	list, many := want.([]any)
	if !many {
		list = []any{want}
	}
	for _, one := range list {
		switch v := value.(type) {
		case nil:
			if one == "null" {
				return true
			}
		case bool:
			if one == "boolean" {
				return true
			}
		case string:
			if one == "string" {
				return true
			}
		case float64:
			if one == "number" || one == "integer" && v == float64(int64(v)) {
				return true
			}
		case []any:
			if one == "array" {
				return true
			}
		case map[string]any:
			if one == "object" {
				return true
			}
		}
	}
	return want == nil
}

const anyCode = -1

// checkJSON types a command with --json and holds its output against `schema`.
func (w *world) checkJSON(code int, name string, rest ...string) {
	w.t.Helper()
	got, out, talk := w.run(append(append(strings.Fields(name), "--json"), rest...)...)
	if got != code && code != anyCode {
		w.t.Errorf("%s: exit code %d, not %d\n%s%s", name, got, code, out, talk)
		return
	}
	var schema map[string]any
	var value any
	if err := json.Unmarshal([]byte(w.must(0, append([]string{"schema"}, strings.Fields(name)...)...)), &schema); err != nil {
		w.t.Fatalf("the schema of %s: %v", name, err)
	}
	if err := json.Unmarshal([]byte(out), &value); err != nil {
		w.t.Errorf("%s --json prints more than one document, or none: %v\n%s", name, err, out)
		return
	}
	for _, one := range conform(schema, value, name) {
		w.t.Errorf("%s --json against its schema: %s", name, one)
	}
	if strings.Contains(out+talk, w.key) {
		w.t.Errorf("%s --json shows a value", name)
	}
}

// Every command with --json prints one document that `postern schema` describes.
func TestJSONIsAsTheSchemaSays(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a sandbox")
	}
	w := newWorld(t)
	key := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(key, []byte(w.key), 0o600); err != nil {
		t.Fatal(err)
	}
	odd := filepath.Join(w.dir, "odd")
	w.write("odd", "A=\"one'\nB=2\n")
	checked := map[string]bool{}
	check := func(code int, name string, rest ...string) {
		t.Helper()
		checked[name] = true
		w.checkJSON(code, name, rest...)
	}
	check(0, "status")
	check(0, "undo", "--yes")
	check(0, "setup", "--plan", w.dir)
	check(0, "setup", "--yes", "--root", "keyfile", w.dir)
	check(0, "setup", "--yes", w.dir)
	check(0, "secret import", "--yes", w.dir)
	check(0, "status")
	check(0, "secret ls")
	check(0, "secret show", "anthropic")
	check(0, "secret history", "anthropic")
	check(0, "secret add", "second", "--file", key)
	check(0, "agent ls")
	check(0, "agent show", "bot")
	check(0, "agent add", "builder", "--secret", "second")
	check(0, "policy ls")
	check(0, "policy test", "--agent", "bot", "--secret", "anthropic", "POST", "https://api.anthropic.com/v1/messages")
	check(6, "policy test", "--agent", "bot", "--secret", "second", "POST", "https://api.anthropic.com/v1/messages")
	check(0, "policy explain", "--agent", "bot", "--secret", "second", "POST", "https://api.anthropic.com/v1/messages")
	check(0, "ledger tail")
	check(0, "ledger find", "--kind", "secret.put")
	check(0, "ledger find", "--kind", "nosuch")
	check(0, "ledger verify")
	check(0, "catalog ls")
	check(0, "catalog show", "stripe.secret")
	check(anyCode, "doctor") // what it finds is the machine's
	check(0, "env check", filepath.Join(w.dir, ".env"))
	check(1, "env check", odd)
	check(0, "version")
	check(0, "undo", "--yes")
	for name := range outputs() {
		if !checked[name] {
			t.Errorf("the output of %s was not looked at", name)
		}
	}
}

// Every command that takes --json has a schema, and the other way round.
func TestEveryJSONFlagHasASchema(t *testing.T) {
	with := map[string]bool{}
	every(func(path string, cmd *cobra.Command) {
		if cmd.Flags().Lookup("json") != nil {
			with[strings.TrimPrefix(path, "postern ")] = true
		}
	})
	for name := range with {
		if _, found := outputs()[name]; !found {
			t.Errorf("%s --json has no schema", name)
		}
	}
	for name := range outputs() {
		if !with[name] {
			t.Errorf("there is a schema of %s, which takes no --json", name)
		}
	}
}

func TestTheValidatorSeesMistakes(t *testing.T) {
	object := func(properties map[string]any, required ...any) map[string]any {
		return map[string]any{"type": "object", "properties": properties, "required": required}
	}
	text, number := map[string]any{"type": "string"}, map[string]any{"type": "integer"}
	cases := map[string]struct {
		schema map[string]any
		value  any
	}{
		"type":     {text, 1.0},
		"fraction": {number, 1.5},
		"missing":  {object(map[string]any{"a": text}, "a"), map[string]any{}},
		"unknown":  {object(map[string]any{"a": text}), map[string]any{"b": "x"}},
		"inside":   {map[string]any{"type": "array", "items": text}, []any{"x", nil}},
		"time":     {map[string]any{"type": "string", "format": "date-time"}, "yesterday"},
		"none":     {map[string]any{"anyOf": []any{text, number}}, true},
	}
	for name, c := range cases {
		if len(conform(c.schema, c.value, name)) == 0 {
			t.Errorf("%s: nothing was found", name)
		}
	}
	if wrong := conform(object(map[string]any{"a": text, "n": number}, "a"), map[string]any{"a": "x", "n": 2.0}, "good"); len(wrong) > 0 {
		t.Errorf("%v", wrong)
	}
}

// What goes into a pipe, or is asked to be plain, holds no escape codes.
func TestNoEscapeCodesWhereNoneBelong(t *testing.T) {
	w := newWorld(t)
	w.must(0, "safe", "init", "--root", "keyfile")
	lines := []string{"", "status", "doctor", "secret ls", "agent ls", "policy ls", "ledger tail", "ledger verify", "catalog ls", "--help", "bogus", "secret show nosuch"}
	for _, env := range []map[string]string{{}, {"NO_COLOR": "1", "FORCE_COLOR": "1"}, {"TERM": "dumb"}} {
		maps.Copy(w.vars, env)
		for _, line := range lines {
			if _, out, talk := w.run(strings.Fields(line)...); strings.Contains(out+talk, "\x1b") {
				t.Errorf("%v: postern %s writes escape codes:\n%s%s", env, line, out, talk)
			}
		}
	}
	delete(w.vars, "NO_COLOR")
	if _, out, _ := w.run("doctor"); !strings.Contains(out, "\x1b[") {
		t.Error("FORCE_COLOR gives no colour: the test above sees nothing")
	}
	if _, out, _ := w.run("doctor", "--color", "never"); strings.Contains(out, "\x1b") {
		t.Error("--color never is not heard")
	}
}
