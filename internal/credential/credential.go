// Package credential is the noun of the inventory: what is known of a secret
// without ever holding its value.
package credential

import "time"

// Environment says where a credential or an agent belongs.
type Environment string

// The environments. The zero value counts as Dev nowhere: it is "not marked".
const (
	Dev     Environment = "dev"
	Staging Environment = "staging"
	Prod    Environment = "prod"
)

// ParseEnvironment reads one of the three names.
func ParseEnvironment(s string) (Environment, bool) {
	switch e := Environment(s); e {
	case Dev, Staging, Prod:
		return e, true
	}
	return "", false
}

// State is where a version stands in its life.
type State string

// The states of a version.
const (
	Pending  State = "pending"
	Current  State = "current"
	Previous State = "previous"
	Revoked  State = "revoked"
)

// Version describes one value of a credential; the value itself stands only in
// the safe.
type Version struct {
	Number      int       `json:"number"` // from 1
	State       State     `json:"state"`
	Created     time.Time `json:"created"`
	Fingerprint string    `json:"fingerprint"` // keyed, see secret.Value.Fingerprint
	Bytes       int       `json:"bytes"`
	Mask        string    `json:"mask"` // for people: type tag and at most the last four characters
}

// Credential is a named secret with its rules. Name is unique in a safe.
type Credential struct {
	Name        string      `json:"name"` // [a-z0-9][a-z0-9._-]{0,63}
	Kind        string      `json:"kind"` // id of the catalogue, "generic" for what no entry knows
	Environment Environment `json:"environment,omitempty"`
	Hosts       []string    `json:"hosts,omitempty"` // named by the user, kind generic only
	Variable    string      `json:"variable,omitempty"`
	Origin      string      `json:"origin,omitempty"` // where it was imported from, "path:line"
	Restored    bool        `json:"restored"`         // undo put the value back where it came from
	Disabled    bool        `json:"disabled"`
	Created     time.Time   `json:"created"`
	Versions    []Version   `json:"versions"` // oldest first
}

// CurrentVersion is the version that is lent out, false where there is none.
func (c Credential) CurrentVersion() (Version, bool) {
	for _, v := range c.Versions {
		if v.State == Current {
			return v, true
		}
	}
	return Version{}, false
}

// ValidName says whether s may name a credential or an agent.
func ValidName(s string) bool {
	if s == "" || len(s) > 64 {
		return false
	}
	for i, r := range []byte(s) {
		letter := r >= 'a' && r <= 'z' || r >= '0' && r <= '9'
		if !letter && (i == 0 || r != '.' && r != '_' && r != '-') {
			return false
		}
	}
	return true
}

// Agent is a workload that Postern runs or serves.
type Agent struct {
	Name        string      `json:"name"`
	Environment Environment `json:"environment,omitempty"`
	Directory   string      `json:"directory,omitempty"` // absolute, where setup found it
	Created     time.Time   `json:"created"`
	Removed     bool        `json:"removed"`
}

// Placeholder is what one agent holds instead of one credential.
type Placeholder struct {
	Text       string    `json:"text"`
	Agent      string    `json:"agent"`
	Credential string    `json:"credential"`
	Created    time.Time `json:"created"`
	Revoked    bool      `json:"revoked"`
}
