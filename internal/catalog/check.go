package catalog

import (
	"errors"
	"math/rand/v2"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"postern/internal/fail"
)

// Check looks at every entry, embedded and of the user: that it can be read,
// is complete, recognises its own samples and nobody else's, and that no address
// of a recipe lies outside the kind's own hosts.
func (c *Catalog) Check() fail.Problems {
	kinds, err := c.Kinds()
	var problems fail.Problems
	if err != nil && !errors.As(err, &problems) {
		problems = append(problems, fail.Problem{Text: err.Error()})
	}
	problems = slices.Clone(problems)
	for _, k := range kinds {
		if !k.own { // those of the user have passed when their file was loaded
			problems = append(problems, k.check()...)
		}
		problems = append(problems, k.checkAdmins(c)...)
	}
	return append(problems, checkOverlaps(kinds)...)
}

// check looks at one kind by itself.
func (k *Kind) check() fail.Problems {
	var problems fail.Problems
	say := func(what, format string, args ...any) {
		problems = append(problems, k.problem(what, format, args...))
	}
	k.checkFields(say)
	k.checkHosts(say)
	k.checkSlots(say)
	k.checkDetect(say)
	k.checkPlaceholder(say)
	for _, r := range k.recipes() {
		k.checkRecipe(r, say)
	}
	return problems
}

type sayFunc func(what, format string, args ...any)

func (k *Kind) checkFields(say sayFunc) {
	if provider, _, _ := strings.Cut(k.ID, "."); !validID(k.ID) || !strings.HasSuffix("/"+k.file, "/"+provider+".yaml") {
		say("id:", "the id %q must be PROVIDER or PROVIDER.NAME in a-z, 0-9 and -, and stand in the file PROVIDER.yaml", k.ID)
	}
	if k.Title == "" || k.Provider == "" {
		say("title:", "kind %q: title is missing", k.ID)
	}
	oneOf := func(field, value string, allowed ...string) {
		if !slices.Contains(allowed, value) {
			say(field+":", "kind %q: %s is %q, must be one of %s", k.ID, field, value, strings.Join(allowed, ", "))
		}
	}
	oneOf("risk", k.Risk, "high", "medium", "low")
	oneOf("protocol", k.Protocol, HTTP, Postgres, MySQL, MongoDB, Redis, Local)
	oneOf("basis", k.Basis, "documentation", "client-source", "specification", "reference")
	if k.Source == "" {
		say("basis:", "kind %q: source is missing", k.ID)
	}
	if k.Checked != "" && !date().MatchString(k.Checked) {
		say("checked:", "kind %q: checked is %q, must be a day like 2026-01-31", k.ID, k.Checked)
	}
	if k.RotateDays < 0 || k.RotateDays > 3650 || k.OverlapHours < 0 {
		say("rotate_days:", "kind %q: rotate_days or overlap_hours is out of range", k.ID)
	}
	if k.Example == "" || strings.ContainsAny(k.Example, "\r\n\"'`\\$") {
		say("example:", "kind %q: an example without quotes is needed", k.ID)
	} else if k.identifies(k.Example) {
		say("example:", "kind %q: the example looks like a real value", k.ID)
	}
	for _, name := range k.Env {
		if strings.Trim(name, upper+digit+"_") != "" {
			say(name, "kind %q: %q is no variable name in capitals", k.ID, name)
		}
	}
}

// identifies says whether value would be taken for one of the kind in the
// variable that speaks for it most.
func (k *Kind) identifies(value string) bool {
	name := parseName(strings.Join(append(k.Env, "KEY")[:1], ""))
	_, ok := k.judge(name, value)
	return ok && k.Matches(value)
}

func date() *regexp.Regexp { return regexp.MustCompile(`\A20[0-9]{2}-[01][0-9]-[0-3][0-9]\z`) }

func validID(id string) bool {
	provider, name, dotted := strings.Cut(id, ".")
	ok := func(s string) bool {
		return s != "" && len(s) <= 40 && strings.Trim(s, lower+digit+"-") == ""
	}
	return ok(provider) && (!dotted || ok(name))
}

func (k *Kind) checkHosts(say sayFunc) {
	if k.Protocol == HTTP && len(k.Hosts) == 0 && !k.UserHosts {
		say("hosts:", "kind %q: no host is named, and user_hosts is not set", k.ID)
	}
	for _, host := range k.Hosts {
		name, wild := strings.CutPrefix(host, "*.")
		switch {
		case !hostName().MatchString(name):
			say(host, "kind %q: %q is no exact host name", k.ID, host)
		case wild && k.Tenant == "":
			say(host, "kind %q: the host %q begins with *. but tenant does not say why", k.ID, host)
		case wild && strings.Count(name, ".") < 1:
			say(host, "kind %q: the host %q takes in too much", k.ID, host)
		}
	}
}

// hostName matches lower-case names with a dot, and an optional port.
func hostName() *regexp.Regexp {
	return regexp.MustCompile(`\A(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z][a-z0-9-]{0,61}[a-z0-9](?::[1-9][0-9]{0,4})?\z`)
}

func (k *Kind) checkSlots(say sayFunc) {
	if k.Protocol == HTTP && len(k.Slots) == 0 && k.Placeholder.None == "" {
		say("slots:", "kind %q: no slot says where it stands in a request", k.ID)
	}
	for _, s := range k.Slots {
		if (s.In == "header" || s.In == "path") && len(s.Formats) == 0 {
			say("slots:", "kind %q: a slot in a %s needs formats", k.ID, s.In)
		}
		for _, format := range s.Formats {
			if strings.Count(format, "{secret}") != 1 {
				say(format, "kind %q: the format %q must hold {secret} once", k.ID, format)
			}
		}
		switch s.In {
		case "header", "query":
			if s.Name == "" || s.Name != strings.ToLower(s.Name) {
				say("slots:", "kind %q: a slot in a %s needs a name in lower case", k.ID, s.In)
			}
		case "basic":
			if s.Part != "user" && s.Part != "password" {
				say("slots:", "kind %q: a basic slot is the user or the password", k.ID)
			}
		case "ws":
			if !strings.HasPrefix(s.Pointer, "/") {
				say("slots:", "kind %q: a ws slot needs a JSON pointer", k.ID)
			}
		case "path":
		default:
			say("slots:", "kind %q: %q is no place of a request", k.ID, s.In)
		}
	}
}

// namedRecipe is a recipe with the name of its field.
type namedRecipe struct {
	name string
	*Recipe
}

func (k *Kind) recipes() []namedRecipe {
	all := []namedRecipe{{"verify", k.Verify}, {"mint", k.Mint}, {"revoke", k.Revoke}, {"list", k.List}, {"usage", k.Usage}}
	return slices.DeleteFunc(all, func(r namedRecipe) bool { return r.Recipe == nil })
}

// host is where the recipe's call goes.
func (r Recipe) host() (string, bool) {
	_, address, _ := strings.Cut(r.Call, " ")
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "https" || u.User != nil || u.Fragment != "" || u.Host == "" || strings.ContainsAny(u.Host, "{}") {
		return "", false
	}
	return u.Host, true
}

func (k *Kind) checkRecipe(r namedRecipe, say sayFunc) {
	method, address, _ := strings.Cut(r.Call, " ")
	if !slices.Contains([]string{"GET", "POST", "PUT", "PATCH", "DELETE"}, method) {
		say(r.name+":", "kind %q: %s must be called as METHOD ADDRESS", k.ID, r.name)
		return
	}
	host, ok := r.host()
	if !ok {
		say(address, "kind %q: the address of %s must be https:// with a plain host", k.ID, r.name)
	} else if !k.Allows(host) {
		say(address, "kind %q: the address of %s lies at %s, outside the kind's own hosts", k.ID, r.name, host)
	}
}

// checkAdmins looks at the admin credentials that the recipes need: they exist,
// and may go to the recipe's address.
func (k *Kind) checkAdmins(c *Catalog) fail.Problems {
	var problems fail.Problems
	for _, r := range k.recipes() {
		host, ok := r.host()
		if r.With == "" || !ok {
			continue
		}
		admin, err := c.Kind(r.With)
		if err != nil {
			problems = append(problems, k.problem(r.With, "kind %q: %s needs the kind %q, which does not exist", k.ID, r.name, r.With))
		} else if !admin.Allows(host) {
			problems = append(problems, k.problem(r.name+":", "kind %q: %s would take the credential %q to %s, outside its hosts", k.ID, r.name, r.With, host))
		}
	}
	return problems
}

// Allows says whether the kind may be sent to host ("name", or "name:port" where
// the port is not 443). A leading "*." stands for one or more labels.
func (k *Kind) Allows(host string) bool {
	host = strings.TrimSuffix(strings.ToLower(host), ":443")
	for _, own := range k.Hosts {
		if own == host {
			return true
		}
		if tail, wild := strings.CutPrefix(own, "*"); wild && strings.HasSuffix(host, tail) && len(host) > len(tail) {
			return true
		}
	}
	return false
}

func (k *Kind) checkDetect(say sayFunc) {
	d := k.Detect
	if k.ID == GenericID {
		return
	}
	if _, err := k.compile(); err != nil || d.Pattern == "" {
		say("pattern:", "kind %q: the pattern is missing or does not compile", k.ID)
		return
	}
	if len(d.Keywords) == 0 || slices.Contains(d.Keywords, "") {
		say("pattern:", "kind %q: a keyword is needed", k.ID)
	}
	if d.Context && len(k.Env) == 0 {
		say("context:", "kind %q: what is known by its variable only needs env", k.ID)
	}
	if !slices.Contains([]string{"", "crc32-base62", "jwt", "service-account", "snowflake", "password"}, d.Check) {
		say("check:", "kind %q: there is no check %q", k.ID, d.Check)
	}
	if len(d.Match) == 0 || len(d.Reject) == 0 {
		say("pattern:", "kind %q: samples to match and to reject are needed", k.ID)
	}
	for _, form := range d.Match {
		k.checkSample(form, true, say)
	}
	for _, form := range d.Reject {
		k.checkSample(form, false, say)
	}
}

// rounds is how many values are made of each template: enough to meet each
// character of an alphabet, few enough for a command that a person waits for.
const rounds = 20

func (k *Kind) checkSample(form string, want bool, say sayFunc) {
	values, err := k.generate(form, rounds)
	if err != nil {
		say(form, "kind %q: the sample %q: %v", k.ID, form, err)
		return
	}
	for _, value := range values {
		got := k.Matches(value)
		if want && !k.Detect.Context && !slices.ContainsFunc(k.Detect.Keywords, func(w string) bool { return strings.Contains(value, w) }) {
			say(form, "kind %q: a sample of %q holds no keyword", k.ID, form)
			return
		}
		if got != want {
			say(form, "kind %q: the pattern gives %v for a sample of %q, want %v", k.ID, got, form, want)
			return
		}
	}
}

// generate makes n values of a template, the same ones on every run.
func (k *Kind) generate(form string, n int) ([]string, error) {
	t, err := ParseTemplate(form)
	if err != nil {
		return nil, err
	}
	var seed [32]byte
	copy(seed[:], k.ID)
	random := rand.NewChaCha8(seed)
	values := make([]string, n)
	for i := range values {
		if values[i], err = t.Generate(random); err != nil {
			return nil, err
		}
	}
	return values, nil
}

func (k *Kind) checkPlaceholder(say sayFunc) {
	p := k.Placeholder
	if p.None != "" {
		return
	}
	if p.Style == "" && len(p.Forms) == 0 {
		say("placeholder:", "kind %q: the placeholder needs forms, a style, or none with the reason", k.ID)
	}
	if !slices.Contains([]string{"", "jwt", "derived"}, p.Style) || !slices.Contains([]string{"", "password", "last"}, p.Part) ||
		!slices.Contains([]string{"", "crc32-base62"}, p.Checksum) {
		say("placeholder:", "kind %q: style, part or checksum of the placeholder is not known", k.ID)
	}
	for _, form := range p.Forms {
		t, err := ParseTemplate(form)
		if err != nil {
			say(form, "kind %q: the form %q: %v", k.ID, form, err)
			continue
		}
		if !t.markable() {
			say(form, "kind %q: the form %q has no run with room for a mark near its end", k.ID, form)
		}
	}
}

// markable says whether a mark has room in the last secret run of the form that
// could take one, and not too much stands behind it.
func (t Template) markable() bool {
	behind, length := 0, 0
	for _, p := range t {
		length += max(p.Max, len(p.Literal))
	}
	for _, p := range slices.Backward(t) {
		alphabet, _ := Alphabet(p.Class)
		if l, fits := layoutFor(alphabet); p.Class != "" && !p.Keep && fits && p.Max > l.length() {
			at := length - behind - l.length()
			return p.Min > l.length() && behind < l.after && length <= MaxMarked && at*l.after+behind < l.places()
		}
		behind += max(p.Max, len(p.Literal))
	}
	return false
}

// checkOverlaps finds kinds whose samples another kind's pattern matches, unless
// that other kind says so. Kinds known by their variable only are compared where
// a name of one would also speak for the other. A kind of the user may overlap
// with an embedded one only within its hosts: no file of the user makes the key
// of a known provider go elsewhere.
func checkOverlaps(kinds []*Kind) fail.Problems {
	var problems fail.Problems
	for _, k := range kinds {
		for _, form := range k.Detect.Match {
			values, err := k.generate(form, 1)
			if err != nil {
				continue // told by checkSample
			}
			for _, other := range kinds {
				if other == k || !other.takes(k, values[0]) {
					continue
				}
				switch {
				case other.own && !k.own && !other.within(k):
					problems = append(problems, other.problem("pattern:", "kind %q would take the keys of the embedded kind %q to hosts of its own", other.ID, k.ID))
				case !slices.Contains(other.Detect.Overlaps, k.ID):
					problems = append(problems, other.problem("pattern:", "kind %q matches a sample (%s) of the kind %q, and its overlaps do not say so", other.ID, form, k.ID))
				}
			}
		}
	}
	return slices.CompactFunc(problems, func(a, b fail.Problem) bool { return a == b })
}

// within says whether k may go nowhere that other may not.
func (k *Kind) within(other *Kind) bool {
	return !k.UserHosts && !slices.ContainsFunc(k.Hosts, func(host string) bool { return !slices.Contains(other.Hosts, host) && !other.Allows(host) })
}

// takes says whether k would take value, a sample of kind owner, for one of its
// own.
func (k *Kind) takes(owner *Kind, value string) bool {
	names := append([]string{"SOMETHING_KEY"}, owner.Env...)
	return slices.ContainsFunc(names, func(variable string) bool {
		name := parseName(variable)
		if k.score(name, value) == 0 || !k.Matches(value) {
			return false
		}
		_, ok := k.judge(name, value)
		return ok && (!k.Detect.Context || owner.Detect.Context)
	})
}
