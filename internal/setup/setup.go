// Package setup takes the keys out of an agent's directory: it finds the .env
// files, recognises what is a secret, shows a plan, imports the values into
// the safe and leaves placeholders. Everything it does can be taken back.
package setup

import (
	"context"
	"io"
	"time"

	"postern/internal/catalog"
	"postern/internal/change"
	"postern/internal/credential"
	"postern/internal/event"
	"postern/internal/secret"
)

// Identifier says which kind of credential a value is; the catalogue.
type Identifier interface {
	Identify(variable, value string) (catalog.Match, bool)
	Kind(id string) (*catalog.Kind, error)
}

// Inventory is the part of the safe that a plan may look at: which
// credentials are there, and under which keyed fingerprint a value is known.
type Inventory interface {
	List(ctx context.Context) ([]credential.Credential, error)
	Fingerprint(v secret.Value) (string, error)
}

// Safe is where the values go.
type Safe interface {
	Inventory
	Put(ctx context.Context, c credential.Credential, v secret.Value) (credential.Version, error)
	SetRestored(ctx context.Context, name string, restored bool) error
}

// Agents are the workloads and their placeholders.
type Agents interface {
	List(ctx context.Context) ([]credential.Agent, error)
	Add(ctx context.Context, a credential.Agent) error
	Placeholders(ctx context.Context, agent string) ([]credential.Placeholder, error)
	AddPlaceholder(ctx context.Context, p credential.Placeholder) error
}

// Granter edits the policy file. WithGrants returns the whole new file, made
// from current (nil where there is none); it keeps what stands there, and gives
// current back where all of g is granted already.
type Granter interface {
	Path() string
	WithGrants(current []byte, g Grants) ([]byte, error)
}

// Recorder takes what happened; a change counts only once it is recorded.
type Recorder interface {
	Record(ctx context.Context, e event.Event) error
}

// Grants are the rules that an agent needs after a setup, from the catalogue.
// Methods and paths are not narrowed.
type Grants struct {
	Agent       string   `json:"agent"`
	Directory   string   `json:"directory"`
	Egress      string   `json:"egress"` // "open"
	Credentials []Grant  `json:"credentials"`
	TCP         []string `json:"tcp,omitempty"`     // "127.0.0.1:5432": destinations of URLs that stay real
	Unix        []string `json:"unix,omitempty"`    // "/run/postgresql": the same, sockets
	Publish     []int    `json:"publish,omitempty"` // ports to reach from the host
}

// Grant lends one credential to the agent.
type Grant struct {
	Credential string   `json:"credential"`
	Kind       string   `json:"kind"`
	Hosts      []string `json:"hosts"` // "name" is port 443, else "name:port"
}

// Deps are what Apply works with. Record may be nil.
type Deps struct {
	Safe    Safe
	Agents  Agents
	Policy  Granter
	Journal *change.Journal
	Record  Recorder
	Choices Choices // may be nil
	Now     func() time.Time
	Random  io.Reader
}

// Input is what a plan is made from. Inventory and Agents are nil where
// nothing has been set up yet.
type Input struct {
	Found     Found
	Kinds     Identifier
	Inventory Inventory
	Agents    Agents
	Choices   Choices // may be nil
	// AgentName is the name to use; by default the one that has this
	// directory, or one made from the directory's name.
	AgentName string
	// Environment marks a new agent; one that is there keeps its own.
	Environment credential.Environment
}
