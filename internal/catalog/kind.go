package catalog

import (
	"bytes"
	"fmt"
	"regexp"
	"sync"

	"postern/internal/fail"
)

// The protocols that a kind may speak.
const (
	HTTP     = "http"
	Postgres = "postgres"
	MySQL    = "mysql"
	MongoDB  = "mongodb"
	Redis    = "redis"
	Local    = "local" // never leaves the machine by a request: SSH, PEM, age
)

// Kind is one sort of credential.
type Kind struct {
	ID       string `yaml:"id" json:"id,omitempty"`      // "anthropic.api"; the part before the dot is the provider's file
	Provider string `yaml:"-" json:"provider,omitempty"` // title of the file: "Anthropic"
	Title    string `yaml:"title" json:"title,omitempty"`
	Risk     string `yaml:"risk" json:"risk,omitempty"` // high, medium or low

	Hosts     []string `yaml:"hosts" json:"hosts,omitempty"`           // where it may ever be sent; "name" means port 443, else "name:port"
	Tenant    string   `yaml:"tenant" json:"tenant,omitempty"`         // why a host begins with "*.": what the provider names per tenant
	UserHosts bool     `yaml:"user_hosts" json:"user_hosts,omitempty"` // self-hosted or unknown: the user names the hosts, or names more
	Slots     []Slot   `yaml:"slots" json:"slots,omitempty"`           // where it may stand in a request
	Env       []string `yaml:"env" json:"env,omitempty"`               // usual variable names, the most usual first
	Protocol  string   `yaml:"protocol" json:"protocol,omitempty"`     // "http" where the file says nothing

	Detect      Detect `yaml:"detect" json:"detect,omitempty"`
	Placeholder Shape  `yaml:"placeholder" json:"placeholder,omitempty"`
	Example     string `yaml:"example" json:"example,omitempty"` // what a .env.example shows

	RotateDays   int    `yaml:"rotate_days" json:"rotate_days,omitempty"`
	OverlapHours int    `yaml:"overlap_hours" json:"overlap_hours,omitempty"` // how long old and new live side by side
	Console      string `yaml:"console" json:"console,omitempty"`             // page for a person; never fetched

	Basis   string `yaml:"basis" json:"basis,omitempty"`     // documentation, client-source, specification or reference
	Source  string `yaml:"source" json:"source,omitempty"`   // address or public repository path
	Checked string `yaml:"checked" json:"checked,omitempty"` // day on which somebody read the source, or empty

	Verify *Recipe `yaml:"verify" json:"verify,omitempty"`
	Mint   *Recipe `yaml:"mint" json:"mint,omitempty"`
	Revoke *Recipe `yaml:"revoke" json:"revoke,omitempty"`
	List   *Recipe `yaml:"list" json:"list,omitempty"`
	Usage  *Recipe `yaml:"usage" json:"usage,omitempty"`

	own     bool // of a file of the user
	file    string
	text    func() ([]byte, error) // of the file, for the line of a mistake
	compile func() (*regexp.Regexp, error)
}

// Slot is one place of a request where the credential may stand.
type Slot struct {
	In      string   `yaml:"in"      json:"in"`                // header, basic, query, path or ws
	Name    string   `yaml:"name"    json:"name,omitempty"`    // header or query parameter, lower case
	Formats []string `yaml:"formats" json:"formats,omitempty"` // header and path: text around one {secret}
	Part    string   `yaml:"part"    json:"part,omitempty"`    // basic: user or password
	Pointer string   `yaml:"pointer" json:"pointer,omitempty"` // ws: JSON pointer of the secret
	Ops     []int    `yaml:"ops"     json:"ops,omitempty"`     // ws: values of /op in whose frames it stands
}

// Detect says how a value is recognised.
type Detect struct {
	Pattern  string   `yaml:"pattern" json:"pattern,omitempty"`   // RE2, must match the whole value
	Keywords []string `yaml:"keywords" json:"keywords,omitempty"` // one of them stands in every value, or with Context in the variable's name
	Context  bool     `yaml:"context" json:"context,omitempty"`   // the shape alone says nothing: a keyword must stand in the variable's name
	Check    string   `yaml:"check" json:"check,omitempty"`       // a further test in Go: crc32-base62, jwt, service-account, snowflake, password
	Public   bool     `yaml:"public" json:"public,omitempty"`     // public by design in a variable for browsers (NEXT_PUBLIC_, VITE_)
	Match    []string `yaml:"match" json:"match,omitempty"`       // templates of values that match
	Reject   []string `yaml:"reject" json:"reject,omitempty"`     // templates of values that do not
	Overlaps []string `yaml:"overlaps" json:"overlaps,omitempty"` // kinds whose samples this pattern matches too
}

// Shape says what stands in for a value of the kind.
type Shape struct {
	Forms    []string `yaml:"forms" json:"forms,omitempty"`       // templates; the first that the real value fits
	Part     string   `yaml:"part" json:"part,omitempty"`         // the value is an address, and only this is secret: password or last (path segment)
	Style    string   `yaml:"style" json:"style,omitempty"`       // "jwt": three parts; "derived": from the real value
	Checksum string   `yaml:"checksum" json:"checksum,omitempty"` // "crc32-base62": the last six characters are made wrong
	None     string   `yaml:"none" json:"none,omitempty"`         // why there is no placeholder
}

// Recipe is one call to the provider. {secret}, {id} and the like in the call
// are filled in by whoever carries it out.
type Recipe struct {
	Call    string            `yaml:"call" json:"call,omitempty"`       // "GET https://…"
	Headers map[string]string `yaml:"headers" json:"headers,omitempty"` // beside the credential's own slot
	Body    string            `yaml:"body" json:"body,omitempty"`
	With    string            `yaml:"with" json:"with,omitempty"`     // kind of the admin credential that it needs; empty: its own
	Live    []int             `yaml:"live" json:"live,omitempty"`     // statuses of a credential that works
	Dead    []int             `yaml:"dead" json:"dead,omitempty"`     // … that is wrong or revoked
	Scoped  []int             `yaml:"scoped" json:"scoped,omitempty"` // … that works but not for this
	Broke   []int             `yaml:"broke" json:"broke,omitempty"`   // … that is out of money or calls
	OK      string            `yaml:"ok" json:"ok,omitempty"`         // JSON pointer that must be true, where errors come with status 200
	Done    []int             `yaml:"done" json:"done,omitempty"`     // revoke: statuses that mean it is gone
	Secret  string            `yaml:"secret" json:"secret,omitempty"` // JSON pointers from here on
	ID      string            `yaml:"id" json:"id,omitempty"`
	Items   string            `yaml:"items" json:"items,omitempty"`
	Owner   string            `yaml:"owner" json:"owner,omitempty"`
	Amount  string            `yaml:"amount" json:"amount,omitempty"`
	Unit    string            `yaml:"unit" json:"unit,omitempty"`
	Lag     int               `yaml:"lag_minutes" json:"lag_minutes,omitempty"`
	Undo    bool              `yaml:"reversible" json:"reversible,omitempty"`
}

// Record is a kind as `catalog ls --json` shows it.
type Record struct {
	ID         string   `json:"id"`
	Provider   string   `json:"provider"`
	Title      string   `json:"title"`
	Risk       string   `json:"risk"`
	Hosts      []string `json:"hosts"`
	RotateDays int      `json:"rotate_days"`
	Basis      string   `json:"basis"`
	Source     string   `json:"source"`
	Checked    string   `json:"checked,omitempty"`
	Env        []string `json:"env"`
	Protocol   string   `json:"protocol"`
}

// Record is the kind's line of the listing.
func (k *Kind) Record() Record {
	return Record{
		ID: k.ID, Provider: k.Provider, Title: k.Title, Risk: k.Risk,
		Hosts: append([]string{}, k.Hosts...), RotateDays: k.RotateDays,
		Basis: k.Basis, Source: k.Source, Checked: k.Checked,
		Env: append([]string{}, k.Env...), Protocol: k.Protocol,
	}
}

// prepare sets what the file leaves out and makes the pattern ready to compile.
func (k *Kind) prepare(provider string, f *file) {
	k.Provider, k.file, k.text, k.own = provider, f.name, f.read, !f.embedded
	if k.Protocol == "" {
		k.Protocol = HTTP
	}
	k.compile = sync.OnceValues(func() (*regexp.Regexp, error) {
		return regexp.Compile(`\A(?:` + k.Detect.Pattern + `)\z`)
	})
}

// problem is a mistake of the kind, at the first line from its id on that holds
// what.
func (k *Kind) problem(what, format string, args ...any) fail.Problem {
	p := fail.Problem{File: k.file, Text: fmt.Sprintf(format, args...)}
	data, err := k.text()
	if err != nil {
		return p
	}
	p.Line = lineOf(data, 0, "id: "+k.ID)
	if at := lineOf(data, p.Line, what); at > 0 {
		p.Line = at
	}
	return p
}

// lineOf is the number of the first line, from line first on, that holds text;
// 0 without one.
func lineOf(data []byte, first int, text string) int {
	number := 0
	for line := range bytes.SplitSeq(data, []byte("\n")) {
		number++
		if number >= first && text != "" && bytes.Contains(line, []byte(text)) {
			return number
		}
	}
	return 0
}
