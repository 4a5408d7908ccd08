// Package broker is the only way out for an agent: it binds each connection to
// one name, finds placeholders in the slots that the catalogue names, asks the
// policy, records, puts the real value in at the last moment and takes it out
// of whatever comes back. docs/WALKTHROUGH.md follows one request through it.
package broker

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"postern/internal/broker/http1"
	"postern/internal/catalog"
	"postern/internal/credential"
	"postern/internal/event"
	"postern/internal/redact"
	"postern/internal/secret"
)

// Leaser lends the current value of a credential to one agent. A disabled
// credential is fail.NotAllowed, a locked safe fail.Locked.
type Leaser interface {
	Lease(ctx context.Context, agent, credential string) (secret.Value, credential.Version, error)
}

// Decider is the policy. Both methods are called on every call's path and must
// not block.
type Decider interface {
	Decide(Request) Decision
	Egress(agent, hostport string) EgressDecision
}

// Recorder writes to the ledger; when it returns, the record is on its way to
// disk, with durable it is on disk. Without a record there is no use.
type Recorder interface {
	Record(ctx context.Context, e event.Event, durable bool) error
}

// Placeholders knows who holds which placeholder.
type Placeholders interface {
	Lookup(text string) (credential.Placeholder, bool)
	Of(agent string) ([]Lent, error)
}

// Issuer makes the certificate that an intercepted connection is served with,
// for exactly one host.
type Issuer interface {
	Leaf(ctx context.Context, host string) (*tls.Certificate, error)
}

// Lent is one credential that an agent holds a placeholder of.
type Lent struct {
	Placeholder string
	Credential  string
	Kind        *catalog.Kind
	Hosts       []string // named by the user, beside the kind's; "name" or "name:port"
}

// Request is what the policy is asked about.
type Request struct {
	Agent, Credential string
	Host              string // "name:port"
	Method            string
	Path              string // canonical, without query
}

// Decision is the policy's answer for one use.
type Decision struct {
	Allow   bool
	Rule    string // the rule that decided
	Reason  string
	Fix     string // the command that would permit it
	Durable bool   // the record must be on disk before the use
	OwnKeys bool   // the agent may bring its own keys of this kind
}

// Mode is an agent's egress mode.
type Mode string

// The modes.
const (
	Open    Mode = "open"
	Inspect Mode = "inspect"
	Closed  Mode = "closed"
)

// EgressDecision is the policy's answer for one destination.
type EgressDecision struct {
	Allow  bool
	Mode   Mode
	Named  bool // a grant of the agent names the host: it is intercepted
	Local  bool // granted by address (--tcp): may be private, is tunnelled
	Rule   string
	Reason string
	Fix    string
}

// Config is what a Broker is built from. Leaser, Decider, Recorder,
// Placeholders and Issuer are required.
type Config struct {
	Leaser       Leaser
	Decider      Decider
	Recorder     Recorder
	Placeholders Placeholders
	Issuer       Issuer

	// Known are the values that must never reach the agent, each with what
	// stands for it. Without it the current values of Placeholders.Of are used.
	Known func(ctx context.Context, agent string) ([]redact.Known, error)
	// Authenticate says whether token is the proxy password of agent. Without it
	// nobody gets in by the proxy.
	Authenticate func(agent, token string) bool

	Dial    map[string]string // "host:port" to "addr:port", past the address check
	RootCAs *x509.CertPool    // nil: the system's

	HeaderTimeout time.Duration // wait for a response, 10 minutes by default
	Now           func() time.Time
}

// Names gives the name that a namespace's own resolver answered with addr. Each
// namespace has its own, since the same address stands for another name in each.
type Names func(addr netip.Addr) (name string, ok bool)

// Broker serves any number of listeners and agents. Safe for concurrent use.
type Broker struct {
	cfg     Config
	buffers http1.Buffers
	outs    sync.Pool
	resolve func(ctx context.Context, host string) ([]netip.Addr, error)
	dialer  net.Dialer
	pool    pool
	live    registry
	stats   counters
	ids     ids
	limit   int // connections that a listener serves at a time

	mu     sync.Mutex
	agents map[string]*agentEntry
}

// agentEntry is what the broker keeps of one agent between its requests.
type agentEntry struct {
	name    string
	view    atomic.Pointer[view] // nil: to be built at the next request
	build   sync.Mutex
	stats   agentCounters
	tlsOnce sync.Once
	tls     *tls.Config
}

// New makes a broker; nothing is opened.
func New(cfg Config) *Broker {
	if cfg.HeaderTimeout == 0 {
		cfg.HeaderTimeout = 10 * time.Minute
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	b := &Broker{cfg: cfg, agents: map[string]*agentEntry{}, limit: connectionLimit()}
	b.resolve = func(ctx context.Context, host string) ([]netip.Addr, error) {
		return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	}
	b.pool.init(b)
	b.live.init()
	b.ids.init()
	return b
}

// entry is the agent's entry, made when it is first seen.
func (b *Broker) entry(agent string) *agentEntry {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.agents[agent]
	if e == nil {
		e = &agentEntry{name: agent}
		b.agents[agent] = e
	}
	return e
}

// Close drops the idle upstream connections. The listeners end with their
// contexts.
func (b *Broker) Close() { b.pool.close() }
