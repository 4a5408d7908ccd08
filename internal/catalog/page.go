package catalog

import (
	"fmt"
	"strings"
)

// Page writes the kinds as a page in Markdown, one section a provider, for
// docs/catalogue.md. kinds are sorted by id, as Kinds returns them.
func Page(kinds []*Kind) string {
	var b strings.Builder
	read := 0
	for _, k := range kinds {
		if k.Checked != "" {
			read++
		}
	}
	fmt.Fprintf(&b, `# The catalogue

What Postern knows of each kind of credential. This page is made from
internal/catalog/providers/*.yaml; change those, not this page.

%d kinds. **Basis** says what sort of source the facts come from, **read** the day
on which somebody read that source; %d kinds have one. Such a source tells where a
key goes, how it stands in a request and which variable holds it. What a key looks
like is seldom documented: patterns follow the rules of public scanners. Where the
day is missing, nobody has held the entry against its source yet.
`, len(kinds), read)
	provider := ""
	for _, k := range kinds {
		if k.Provider != provider {
			provider = k.Provider
			fmt.Fprintf(&b, "\n## %s\n", provider)
		}
		k.section(&b)
	}
	return b.String()
}

// section writes what the page says of one kind.
func (k *Kind) section(b *strings.Builder) {
	fmt.Fprintf(b, "\n### `%s`\n\n%s\n\n", k.ID, k.Title)
	row := func(name, text string) {
		if text != "" {
			fmt.Fprintf(b, "- %s: %s\n", name, text)
		}
	}
	row("Risk", k.Risk)
	row("Goes to", k.destinations())
	row("Stands in", k.places())
	row("Variables", codes(k.Env))
	row("Placeholder", k.stand())
	if k.RotateDays > 0 {
		row("Rotate", fmt.Sprintf("every %d days", k.RotateDays))
	}
	row("Postern can", k.abilities())
	row("Console", k.Console)
	source := k.Basis + ", " + k.Source
	if k.Checked != "" {
		source += ", read " + k.Checked
	}
	row("Basis", source)
}

func (k *Kind) destinations() string {
	switch {
	case k.Protocol == Local:
		return "nowhere, it stays on the machine"
	case k.Protocol != HTTP:
		return "the host in the address (" + k.Protocol + ")"
	case len(k.Hosts) == 0:
		return "the hosts that you name"
	}
	text := codes(k.Hosts)
	if k.UserHosts {
		text += ", and hosts that you name"
	}
	return text
}

func (k *Kind) places() string {
	var places []string
	for _, s := range k.Slots {
		switch s.In {
		case "header", "query":
			places = append(places, s.In+" "+codes([]string{s.Name}))
		case "basic":
			places = append(places, "the "+s.Part+" of Basic authentication")
		case "path":
			places = append(places, "path "+codes(s.Formats))
		case "ws":
			places = append(places, "WebSocket frames at "+codes([]string{s.Pointer}))
		}
	}
	return strings.Join(places, ", ")
}

// stand says what stands in for the value.
func (k *Kind) stand() string {
	switch {
	case k.Placeholder.None != "":
		return "none: " + k.Placeholder.None
	case k.Placeholder.Part == "password":
		return "the address with another password"
	case k.Placeholder.Part == "last":
		return "the address with another last part"
	case k.Placeholder.Style == "jwt":
		return "a token of the same form"
	case k.Placeholder.Style == "derived":
		return "a text of the same length and alphabet"
	}
	return codes(k.Placeholder.Forms)
}

func (k *Kind) abilities() string {
	words := map[string]string{"verify": "verify it", "mint": "make a new one", "revoke": "revoke it", "list": "list them", "usage": "read its use"}
	var can []string
	for _, r := range k.recipes() {
		text := words[r.name]
		if r.With != "" && r.With != k.ID {
			text += " (with `" + r.With + "`)"
		}
		can = append(can, text)
	}
	return strings.Join(can, ", ")
}

func codes(texts []string) string {
	quoted := make([]string, len(texts))
	for i, text := range texts {
		quoted[i] = "`" + text + "`"
	}
	return strings.Join(quoted, " ")
}
