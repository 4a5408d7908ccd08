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
	ID       string `yaml:"id"` // "anthropic.api"; the part before the dot is the provider's file
	Provider string `yaml:"-"`  // title of the file: "Anthropic"
	Title    string `yaml:"title"`
	Risk     string `yaml:"risk"` // high, medium or low

	Hosts     []string `yaml:"hosts"`      // where it may ever be sent; "name" means port 443, else "name:port"
	Tenant    string   `yaml:"tenant"`     // why a host begins with "*.": what the provider names per tenant
	UserHosts bool     `yaml:"user_hosts"` // self-hosted or unknown: the user names the hosts, or names more
	Slots     []Slot   `yaml:"slots"`      // where it may stand in a request
	Env       []string `yaml:"env"`        // usual variable names, the most usual first
	Protocol  string   `yaml:"protocol"`   // "http" where the file says nothing

	Detect      Detect `yaml:"detect"`
	Placeholder Shape  `yaml:"placeholder"`
	Example     string `yaml:"example"` // what a .env.example shows

	RotateDays   int    `yaml:"rotate_days"`
	OverlapHours int    `yaml:"overlap_hours"` // how long old and new live side by side
	Console      string `yaml:"console"`       // page for a person; never fetched

	Basis   string `yaml:"basis"`   // documentation, client-source, specification or reference
	Source  string `yaml:"source"`  // address or public repository path
	Checked string `yaml:"checked"` // day on which somebody read the source, or empty

	Verify *Recipe `yaml:"verify"`
	Mint   *Recipe `yaml:"mint"`
	Revoke *Recipe `yaml:"revoke"`
	List   *Recipe `yaml:"list"`
	Usage  *Recipe `yaml:"usage"`

	file    string
	line    int // of its id
	data    []byte
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
	Pattern  string   `yaml:"pattern"`  // RE2, must match the whole value
	Keywords []string `yaml:"keywords"` // one of them stands in every value, or with Context in the variable's name
	Context  bool     `yaml:"context"`  // the shape alone says nothing: a keyword must stand in the variable's name
	Check    string   `yaml:"check"`    // a further test in Go: crc32-base62, jwt, service-account, snowflake, password
	Public   bool     `yaml:"public"`   // public by design in a variable for browsers (NEXT_PUBLIC_, VITE_)
	Match    []string `yaml:"match"`    // templates of values that match
	Reject   []string `yaml:"reject"`   // templates of values that do not
	Overlaps []string `yaml:"overlaps"` // kinds whose samples this pattern matches too
}

// Shape says what stands in for a value of the kind.
type Shape struct {
	Forms    []string `yaml:"forms"`    // templates; the first that the real value fits
	Part     string   `yaml:"part"`     // the value is an address, and only this is secret: password or last (path segment)
	Style    string   `yaml:"style"`    // "jwt": three parts; "derived": from the real value
	Checksum string   `yaml:"checksum"` // "crc32-base62": the last six characters are made wrong
	None     string   `yaml:"none"`     // why there is no placeholder
}

// Recipe is one call to the provider. {secret}, {id} and the like in the call
// are filled in by whoever carries it out.
type Recipe struct {
	Call    string            `yaml:"call"`    // "GET https://…"
	Headers map[string]string `yaml:"headers"` // beside the credential's own slot
	Body    string            `yaml:"body"`
	With    string            `yaml:"with"`   // kind of the admin credential that it needs; empty: its own
	Live    []int             `yaml:"live"`   // statuses of a credential that works
	Dead    []int             `yaml:"dead"`   // … that is wrong or revoked
	Scoped  []int             `yaml:"scoped"` // … that works but not for this
	Broke   []int             `yaml:"broke"`  // … that is out of money or calls
	OK      string            `yaml:"ok"`     // JSON pointer that must be true, where errors come with status 200
	Done    []int             `yaml:"done"`   // revoke: statuses that mean it is gone
	Secret  string            `yaml:"secret"` // JSON pointers from here on
	ID      string            `yaml:"id"`
	Items   string            `yaml:"items"`
	Owner   string            `yaml:"owner"`
	Amount  string            `yaml:"amount"`
	Unit    string            `yaml:"unit"`
	Lag     int               `yaml:"lag_minutes"`
	Undo    bool              `yaml:"reversible"`
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
func (k *Kind) prepare(provider string, f *file, data []byte) {
	k.Provider, k.file, k.data = provider, f.name, data
	k.line = lineOf(data, 0, "id: "+k.ID)
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
	line := k.line
	if at := lineOf(k.data, k.line, what); at > 0 {
		line = at
	}
	return fail.Problem{File: k.file, Line: line, Text: fmt.Sprintf(format, args...)}
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
