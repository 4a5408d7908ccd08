package app

import (
	"strings"

	"postern/internal/catalog"
	"postern/internal/placeholder"
	"postern/internal/run"
)

// environment is what the command gets of ours.
type environment struct {
	kinds   *catalog.Catalog
	own     map[string]string // variables of the agent's secrets, with their placeholders
	replace func([]byte) []byte
	ownKeys bool
}

// clean is environ without any key: known values become placeholders, unknown
// ones are left out and named in dropped.
func (e environment) clean(environ []string) (kept, dropped []string) {
	set := map[string]string{}
	replaced := strings.Split(string(e.replace([]byte(strings.Join(environ, "\x00")))), "\x00")
	kept = run.CleanEnv(replaced, func(name, value string) bool {
		if text, ours := e.own[name]; ours && !placeholder.Is(value) && len(catalog.Split(value)) < 2 {
			set[name] = text
			return true
		}
		if e.foreign(name, value) {
			dropped = append(dropped, name)
			return true
		}
		return strings.HasPrefix(name, "POSTERN_") || name == "SSL_CERT_DIR" || strings.HasSuffix(strings.ToUpper(name), "_PROXY")
	}, nil)
	for name, text := range set {
		kept = append(kept, name+"="+text)
	}
	return kept, dropped
}

// foreign says whether a value is a key that Postern could put in by itself and
// does not have.
func (e environment) foreign(name, value string) bool {
	if e.ownKeys || placeholder.Is(value) {
		return false
	}
	m, found := e.kinds.Identify(name, value)
	return found && m.Kind != nil && m.Confidence != catalog.Low && m.Kind.Protocol == catalog.HTTP && m.Kind.Placeholder.None == ""
}

// with gives variables their values, whatever they were.
func with(environ []string, set map[string]string) []string {
	return run.CleanEnv(environ, func(string, string) bool { return false }, set)
}

// trusting points every client at the bundle.
func trusting(environ []string, bundle string) []string {
	set := map[string]string{}
	for _, name := range run.BundleVariables() {
		set[name] = bundle
	}
	return with(environ, set)
}
