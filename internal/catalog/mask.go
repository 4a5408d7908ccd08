package catalog

import "strings"

// tag is the part of the value that only names its type: the literal beginning
// of the kind's forms, if the value has it.
func (k *Kind) tag(value string) string {
	best := ""
	for _, form := range k.Placeholder.Forms {
		literal, _, _ := strings.Cut(form, "{")
		if len(literal) > len(best) && strings.HasPrefix(value, literal) {
			best = literal
		}
	}
	return best
}

// Mask shows a value to people: the tag of its type, "…", and of a long value at
// most its last four characters. Of addresses, blocks and short values nothing
// but the tag is shown.
func Mask(k *Kind, value string) string {
	if k == nil {
		k = &Kind{}
	}
	if k.Placeholder.Part != "" || strings.Contains(value, "://") {
		if scheme, _, found := strings.Cut(value, "://"); found && len(scheme) <= 16 && strings.Trim(scheme, alnum+"+-.") == "" {
			return scheme + "://…"
		}
		return "…"
	}
	tag := k.tag(value)
	rest := value[len(tag):]
	switch {
	case strings.ContainsAny(value, " \n{}") || len(rest) < 16 || !printable(rest):
		return tag + "…"
	case len(rest) < 24:
		return tag + "…" + rest[len(rest)-2:]
	}
	return tag + "…" + rest[len(rest)-4:]
}

func printable(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < 0x21 || r > 0x7e })
}
