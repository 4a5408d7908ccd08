// Package event is what happened: the only thing that features send one
// another. No event ever holds a value; credentials are named, values appear
// as keyed fingerprints.
package event

import "time"

// Kind names what happened.
type Kind string

// Uses and refusals at the door.
const (
	Use       Kind = "use"       // a credential is about to leave for its host
	Outcome   Kind = "outcome"   // how a use or an egress ended: status, bytes, duration
	Egress    Kind = "egress"    // a connection or call that carries no credential
	Refused   Kind = "refused"   // refused by policy or by a rule of the broker
	Tripwire  Kind = "tripwire"  // a placeholder where it has no business, or forged, or revoked
	Quoted    Kind = "quoted"    // a placeholder in a body or frame, passed unchanged
	Redacted  Kind = "redacted"  // a known value was taken out of what came back
	Malformed Kind = "malformed" // a message that the strict parser refused
)

// Changes. They are always synced to disk before they count.
const (
	Put          Kind = "secret.put"
	Removed      Kind = "secret.removed"
	Disabled     Kind = "secret.disabled"
	Enabled      Kind = "secret.enabled"
	AgentAdded   Kind = "agent.added"
	AgentRemoved Kind = "agent.removed"
	PolicyChange Kind = "policy.changed"
	PolicyBad    Kind = "policy.bad" // a reload that did not parse; the last good one stays
	SafeCreated  Kind = "safe.created"
	Unlocked     Kind = "safe.unlocked"
	LockedNow    Kind = "safe.locked"
	Rekeyed      Kind = "safe.rekeyed"
	FileChanged  Kind = "file.changed"
	Undone       Kind = "undone"
)

// The life of an agent. Like uses, they reach the disk within 100 ms.
const (
	RunStarted Kind = "run.started"
	RunEnded   Kind = "run.ended"
)

// Change says whether the kind is a change, which is synced at once.
func (k Kind) Change() bool {
	switch k {
	case Use, Outcome, Egress, Refused, Tripwire, Quoted, Redacted, Malformed, RunStarted, RunEnded:
		return false
	}
	return true
}

// Event is one thing that happened. Empty fields are left out on the wire.
type Event struct {
	Seq         uint64            `json:"seq,omitempty"` // given by the ledger, from 1
	Time        time.Time         `json:"time"`          // UTC
	Kind        Kind              `json:"kind"`
	Request     string            `json:"request,omitempty"` // joins the events of one call
	Agent       string            `json:"agent,omitempty"`
	Credential  string            `json:"credential,omitempty"`
	Version     int               `json:"version,omitempty"`
	Fingerprint string            `json:"fingerprint,omitempty"`
	Host        string            `json:"host,omitempty"` // "name:port", as the policy saw it
	Method      string            `json:"method,omitempty"`
	Path        string            `json:"path,omitempty"` // without query; a token slot shown as "{token}"
	Rule        string            `json:"rule,omitempty"` // the rule that decided
	Reason      string            `json:"reason,omitempty"`
	Status      int               `json:"status,omitempty"`
	BytesOut    int64             `json:"bytes_out,omitempty"` // from the agent
	BytesIn     int64             `json:"bytes_in,omitempty"`  // to the agent
	Duration    time.Duration     `json:"duration_ns,omitempty"`
	Run         int64             `json:"run,omitempty"` // run of setup, fix or undo
	Detail      map[string]string `json:"detail,omitempty"`
}
