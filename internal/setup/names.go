package setup

import (
	"fmt"
	"path/filepath"
	"strings"

	"postern/internal/catalog"
	"postern/internal/credential"
	"postern/internal/dotenv"
	"postern/internal/fail"
	"postern/internal/placeholder"
)

// recogniseStored gives secrets that the safe has already their own names.
func (p *Plan) recogniseStored(inv Inventory) error {
	if inv == nil {
		return nil
	}
	for _, s := range p.Secrets {
		print, err := inv.Fingerprint(s.value)
		if err != nil {
			return fmt.Errorf("taking a fingerprint: %w", err)
		}
		if name, found := p.known[print]; found {
			s.Name, s.Known = name, true
		}
	}
	return nil
}

// nameSecrets names what goes into the safe: after the provider, or after the
// variable where no provider is known.
func (p *Plan) nameSecrets() {
	for _, s := range p.Secrets {
		if s.Import && s.Name == "" {
			s.Name = free(baseName(s), p.taken)
		}
	}
}

func baseName(s *Secret) string {
	provider, _, _ := strings.Cut(s.Kind, ".")
	if provider == generic || provider == "" {
		variable := s.subject()
		for _, ending := range []string{"_API_KEY", "_KEY", "_TOKEN", "_SECRET"} {
			if short := strings.TrimSuffix(variable, ending); len(short) > 2 {
				variable = short
			}
		}
		return cleanName(variable, "secret")
	}
	return cleanName(provider, "secret")
}

// mask is what a person may see of a value: the type tag and the last four.
func mask(kind *catalog.Kind, text string) string { return catalog.Mask(kind, text) }

// credential is the noun that goes into the safe.
// Its origin is an absolute path, by which status finds the agent's own.
func (s *Secret) credential(agent credential.Agent) credential.Credential {
	first := s.Places[0]
	return credential.Credential{
		Name: s.Name, Kind: s.Kind, Environment: agent.Environment, Variable: first.Variable,
		Origin: fmt.Sprintf("%s:%d", filepath.Join(agent.Directory, first.File), first.Line),
	}
}

// differs is a line that two loaders read differently, for people.
func differs(file string, d dotenv.Difference) fail.Problem {
	return fail.Problem{File: file, Line: d.Line, Text: d.String(), Hint: "postern env check " + file}
}

// comment is something like a key outside of any value: one that was put aside
// is still a key that anybody who reads the file has.
type comment struct {
	variable, value string
	line            int
}

// commented finds NAME=value, and keys that show themselves, in comments and in
// lines that no loader reads.
func commented(file *dotenv.File, kinds Identifier) []comment {
	var found []comment
	for _, t := range file.Outside() {
		text, isComment := strings.CutPrefix(strings.TrimPrefix(t.Text, "\ufeff"), "#")
		rest := strings.TrimPrefix(strings.TrimLeft(text, "# \t"), "export ")
		name, value, assigned := strings.Cut(rest, "=")
		name = strings.TrimSpace(name)
		if isComment && assigned && name != "" && !strings.ContainsAny(name, " \t'\"") {
			if value = unquoted(value); value != "" {
				found = append(found, comment{name, value, t.Line})
			}
			_, rest, _ = strings.Cut(rest, value)
		}
		for _, p := range embedded(kinds, rest) {
			if !p.ours {
				found = append(found, comment{"", rest[p.start:p.end], t.Line})
			}
		}
	}
	return found
}

// unquoted is a value in a comment, without what follows it.
func unquoted(value string) string {
	value = strings.TrimSpace(value)
	if n := len(value); n > 1 && strings.ContainsRune(`"'`+"`", rune(value[0])) {
		if end := strings.IndexByte(value[1:], value[0]); end >= 0 {
			return value[1 : end+1]
		}
	} else if i := strings.IndexAny(value, " \t"); i >= 0 {
		return value[:i]
	}
	return value
}

// known says what a comment holds, where that is a secret.
func (c comment) known(kinds Identifier) (catalog.Match, bool) {
	if placeholder.Is(c.value) {
		return catalog.Match{}, false
	}
	match, found := kinds.Identify(c.variable, c.value)
	return match, found && match.Kind != nil
}
