package cli

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"postern/internal/fail"
)

// newSchema prints the JSON Schema (draft 2020-12) of what a command prints
// with --json. The schemas are made from the very types that are printed.
func newSchema(e *env) *cobra.Command {
	return &cobra.Command{
		Use: "schema [COMMAND]", Short: "describe the JSON of the commands",
		Example: "postern schema\npostern schema secret ls",
		RunE: func(_ *cobra.Command, words []string) error {
			types := outputs()
			if len(words) == 0 {
				for _, name := range slices.Sorted(maps.Keys(types)) {
					fmt.Fprintln(e.Out, name)
				}
				return nil
			}
			name := strings.Join(words, " ")
			value, found := types[name]
			if !found {
				return fail.New(fail.NotFound, "P-E009", "`postern %s` prints no JSON", name).Hint("postern schema")
			}
			doc := schemaOf(reflect.TypeOf(value))
			doc["$schema"] = "https://json-schema.org/draft/2020-12/schema"
			doc["title"] = "postern " + name
			return e.writeJSON(doc)
		},
	}
}

// schemaOf is the schema of a Go type as encoding/json writes it.
func schemaOf(t reflect.Type) map[string]any {
	if t == reflect.TypeFor[time.Time]() {
		return map[string]any{"type": "string", "format": "date-time"}
	}
	if t == reflect.TypeFor[json.RawMessage]() {
		return map[string]any{}
	}
	switch t.Kind() {
	case reflect.Pointer:
		inner := schemaOf(t.Elem())
		return map[string]any{"anyOf": []any{inner, map[string]any{"type": "null"}}}
	case reflect.Bool:
		return map[string]any{"type": "boolean"}
	case reflect.String:
		return map[string]any{"type": "string"}
	case reflect.Float32, reflect.Float64:
		return map[string]any{"type": "number"}
	case reflect.Slice, reflect.Array:
		return map[string]any{"type": []string{"array", "null"}, "items": schemaOf(t.Elem())}
	case reflect.Map:
		return map[string]any{"type": []string{"object", "null"}, "additionalProperties": schemaOf(t.Elem())}
	case reflect.Struct:
		return objectSchema(t)
	default:
		return map[string]any{"type": "integer"}
	}
}

func objectSchema(t reflect.Type) map[string]any {
	properties, required := map[string]any{}, []string{}
	for _, f := range reflect.VisibleFields(t) {
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if !f.IsExported() || name == "-" || f.Anonymous && name == "" {
			continue
		}
		if name == "" {
			name = f.Name
		}
		properties[name] = schemaOf(f.Type)
		if !strings.Contains(options, "omitempty") && !strings.Contains(options, "omitzero") {
			required = append(required, name)
		}
	}
	return map[string]any{"type": "object", "properties": properties, "required": required, "additionalProperties": false}
}
