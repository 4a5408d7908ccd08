package setup

import (
	"fmt"
	"strings"

	"postern/internal/catalog"
	"postern/internal/credential"
	"postern/internal/dotenv"
	"postern/internal/fail"
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
		variable := s.Places[0].Variable
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
func (s *Secret) credential(agent credential.Agent) credential.Credential {
	first := s.Places[0]
	return credential.Credential{
		Name: s.Name, Kind: s.Kind, Environment: agent.Environment, Variable: first.Variable,
		Origin: fmt.Sprintf("%s:%d", first.File, first.Line),
	}
}

// differs is a line that two loaders read differently, for people.
func differs(file string, d dotenv.Difference) fail.Problem {
	return fail.Problem{File: file, Line: d.Line, Text: d.String(), Hint: "postern env check " + file}
}

// comment is an assignment that was commented out.
type comment struct {
	variable, value string
	line            int
}

// commented finds lines such as "# KEY=value": a key that was put aside is
// still a key that anybody who reads the file has.
func commented(data []byte) []comment {
	var found []comment
	number := 0
	for line := range strings.SplitSeq(string(data), "\n") {
		number++
		text, is := strings.CutPrefix(strings.TrimLeft(line, " \t\ufeff"), "#")
		if !is {
			continue
		}
		text = strings.TrimPrefix(strings.TrimLeft(text, "# \t"), "export ")
		name, value, is := strings.Cut(text, "=")
		name = strings.TrimSpace(name)
		if !is || name == "" || strings.ContainsAny(name, " \t'\"") {
			continue
		}
		value = strings.TrimSpace(value)
		if n := len(value); n > 1 && strings.ContainsRune(`"'`+"`", rune(value[0])) {
			if end := strings.IndexByte(value[1:], value[0]); end >= 0 {
				value = value[1 : end+1]
			}
		} else if i := strings.IndexAny(value, " \t"); i >= 0 {
			value = value[:i]
		}
		if value != "" {
			found = append(found, comment{name, value, number})
		}
	}
	return found
}
