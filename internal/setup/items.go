package setup

import (
	"fmt"
	"slices"
	"strings"

	"postern/internal/catalog"
)

// Item is one line of a plan as a person reads it.
type Item struct {
	Symbol  string `json:"symbol"`         // "+" new, "~" changed, "-" taken away, "!" needs a look
	Subject string `json:"subject"`        // what it is about
	Text    string `json:"text"`           // what happens
	Note    string `json:"note,omitempty"` // what to type, or a remark
}

// Items are the plan, line by line: first what changes, then what stays.
func (p *Plan) Items() []Item {
	var items []Item
	add := func(symbol, subject, note, format string, args ...any) {
		items = append(items, Item{Symbol: symbol, Subject: subject, Text: fmt.Sprintf(format, args...), Note: note})
	}
	fresh, known := 0, 0
	for _, s := range p.Secrets {
		switch {
		case s.Import && s.Known:
			known++
		case s.Import:
			fresh++
		}
	}
	if fresh > 0 {
		add("+", "safe", "", "%s, encrypted", count(fresh, "secret"))
	}
	if known > 0 {
		add("~", "safe", "", "%s there already, used again", count(known, "secret"))
	}
	if p.NewAgent && !p.Empty() {
		add("+", "agent", "", "%s", p.Agent)
	}
	for _, f := range p.Files {
		text := ""
		if f.Values > 0 {
			text = count(f.Values, "value") + " → " + plural(f.Values, "placeholder")
		}
		if f.Mode != f.Tight {
			text = join(text, fmt.Sprintf("mode %o → %o", f.Mode, f.Tight))
		}
		add("~", f.Name, "undo: postern undo", "%s", text)
	}
	for _, t := range p.Texts {
		note := ""
		if t.Name == pm2Name {
			note = "pm2 start " + pm2Name
		}
		add(map[bool]string{true: "+", false: "~"}[t.New], t.Name, note, "%s", count(t.Lines, "line"))
	}
	p.addGrantItems(add)
	p.addStays(add)
	p.addNotices(add)
	return items
}

// maxWarnings are the lines read differently that a plan names one by one.
const maxWarnings = 5

type adder func(symbol, subject, note, format string, args ...any)

func (p *Plan) addGrantItems(add adder) {
	g := p.Grants()
	var rules []string
	for _, one := range g.Credentials {
		rules = append(rules, fmt.Sprintf("%s %d", one.Credential, len(one.Hosts)))
	}
	if len(rules) > 0 && !p.Empty() {
		add("+", "allow rules", "", "%s", strings.Join(rules, " · "))
	}
	for _, port := range g.Publish {
		add("!", "port", "", "%d stays reachable on this machine: the gateway, or a receiver of webhooks", port)
	}
	for _, s := range p.Secrets {
		if s.Import && !s.Stays && len(s.Hosts) == 0 {
			add("!", s.subject(), fmt.Sprintf("postern policy allow --agent %s --secret %s --host HOST", p.Agent, s.Name),
				"no provider known: it works after you name its hosts")
		}
		if s.Import && !s.Stays && s.value.Len() < 8 {
			add("!", s.subject(), "", "shorter than 8 bytes: not taken out of answers that quote it")
		}
	}
}

// subject is the first variable that has the value, or the place of a comment.
func (s *Secret) subject() string {
	for _, where := range s.Places {
		if where.Variable != "" {
			return where.Variable
		}
	}
	return at(s.Places[0].File, s.Places[0].Line)
}

// addStays says what stays real, and why.
func (p *Plan) addStays(add adder) {
	for _, s := range p.Secrets {
		if !s.Stays {
			continue
		}
		text := "stays real: " + s.Why
		if to := slices.Concat(s.TCP, s.Unix); len(to) > 0 {
			text = fmt.Sprintf("stays real: %s; %s granted", s.Why, strings.Join(to, ", "))
		}
		note := ""
		if s.Confidence == catalog.Low && !s.Import {
			note = "postern secret import " + s.Places[0].File
		}
		add("!", s.subject(), note, "%s", text)
	}
}

func (p *Plan) addNotices(add adder) {
	for _, o := range p.Others {
		text := "seen, not changed"
		if len(o.Lines) > 0 {
			text = fmt.Sprintf("%s with what looks like a key: seen, not changed", lineList(o.Lines))
		}
		add("!", o.Name, "", "%s", text)
	}
	for _, problem := range p.Problems {
		add("!", at(problem.File, problem.Line), problem.Hint, "%s", problem.Text)
	}
	if len(p.Warnings) > 0 {
		add("!", ".env", "", "read as %s does: %s", p.found.Dialect.Library(), p.found.Why)
	}
	for _, warning := range p.Warnings[:min(len(p.Warnings), maxWarnings)] {
		add("!", at(warning.File, warning.Line), warning.Hint, "%s", warning.Text)
	}
	if more := len(p.Warnings) - maxWarnings; more > 0 {
		add("!", ".env", "postern env check .env", "%d more lines are read differently", more)
	}
	if p.Kept > 0 {
		add("~", "protected", "", "%s already", count(p.Kept, "value"))
	}
}

func at(file string, line int) string {
	if line == 0 {
		return file
	}
	return fmt.Sprintf("%s:%d", file, line)
}

func lineList(lines []int) string {
	texts := make([]string, 0, len(lines))
	for _, l := range lines[:min(len(lines), 5)] {
		texts = append(texts, fmt.Sprint(l))
	}
	if len(lines) > 5 {
		texts = append(texts, "…")
	}
	return plural(len(lines), "line") + " " + strings.Join(texts, ", ")
}

func count(n int, noun string) string { return fmt.Sprintf("%d %s", n, plural(n, noun)) }

func plural(n int, noun string) string {
	if n == 1 {
		return noun
	}
	return noun + "s"
}

func join(a, b string) string {
	if a == "" {
		return b
	}
	return a + ", " + b
}
