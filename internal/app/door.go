package app

import (
	"context"
	"crypto/subtle"
	"fmt"
	"sync"
	"time"

	"postern/internal/broker"
	"postern/internal/credential"
	"postern/internal/event"
	"postern/internal/policy"
	"postern/internal/secret"
)

// watchEvery is how often the store is asked whether another process changed
// it: a disabled secret is dead within this time.
const watchEvery = 200 * time.Millisecond

// door is a broker with all that it asks.
type door struct {
	a      *App
	broker *broker.Broker
	stop   context.CancelFunc
	done   sync.WaitGroup

	noting sync.Mutex
	say    func(format string, args ...any) // what a person should notice
	noted  map[string]bool                  // agents whose first use is kept
}

// openDoor builds the broker and keeps it up to date until close; say is told what
// a person should notice.
func (a *App) openDoor(ctx context.Context, say func(format string, args ...any)) (*door, error) {
	authority, err := a.authority(ctx)
	if err != nil {
		return nil, err
	}
	roots, err := a.upstreamRoots()
	if err != nil {
		return nil, err
	}
	decide := newDecider(a)
	d := &door{a: a, say: say, noted: map[string]bool{}, broker: broker.New(breaks(broker.Config{
		Leaser: a.Safe, Decider: decide, Recorder: recorder{a}, Placeholders: holdings{a}, Issuer: authority,
		Authenticate: func(agent, token string) bool { return a.authenticate(agent, token) },
		Dial:         a.Config.Upstream.Dial, RootCAs: roots, Now: a.o.Now,
	}))}
	watched, stop := context.WithCancel(context.WithoutCancel(ctx))
	d.stop = stop
	d.done.Go(func() { d.followStore(watched, decide) })
	d.done.Go(func() { a.Policy.Watch(watched, d.policyChanged) })
	return d, nil
}

func (d *door) close() {
	d.stop()
	d.done.Wait()
	d.noteFirstUse(context.Background())
	d.broker.Close()
}

// firstUseKey is the setting that says when an agent's first call was answered.
const firstUseKey = "first-use/"

// noteFirstUse keeps each agent's first answered call, which `run` and `status`
// report.
func (d *door) noteFirstUse(ctx context.Context) {
	d.noting.Lock()
	defer d.noting.Unlock()
	for agent, stats := range d.broker.Stats().Agents {
		if stats.FirstUse.IsZero() || d.noted[agent] {
			continue
		}
		d.noted[agent] = true
		if _, found, err := d.a.DB.Setting(ctx, firstUseKey+agent); err != nil || found {
			continue
		}
		text := fmt.Sprintf("%s answered at %s", stats.FirstUseHost, stats.FirstUse.UTC().Format(time.DateTime))
		_ = d.a.DB.SetSetting(ctx, firstUseKey+agent, text)
	}
}

// followStore reacts to what other processes change: placeholders, values,
// disabled and removed secrets.
func (d *door) followStore(ctx context.Context, decide *decider) {
	ticker := time.NewTicker(watchEvery)
	defer ticker.Stop()
	last, _ := d.a.DB.Generation(ctx)
	lent := d.a.lentNow(ctx)
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		d.noteFirstUse(ctx)
		now, err := d.a.DB.Generation(ctx)
		if err == nil && now == last {
			continue
		}
		last = now
		decide.reload()
		d.broker.ReloadAll()
		next := d.a.lentNow(ctx)
		for name := range lent {
			if !next[name] {
				d.broker.Cut(name)
			}
		}
		lent = next
	}
}

// lentNow are the names of the secrets that may be lent; none where the store
// cannot be read, so that everything is cut.
func (a *App) lentNow(ctx context.Context) map[string]bool {
	lent := map[string]bool{}
	list, err := a.Safe.List(ctx)
	if err != nil {
		return lent
	}
	for _, c := range list {
		if !c.Disabled {
			lent[c.Name] = true
		}
	}
	return lent
}

// policyChanged cuts what is not allowed any more, so that no stream outlives its
// rule.
func (d *door) policyChanged(bad error) {
	if bad != nil {
		d.say("policy.yaml has a mistake, the last good one goes on: %v   next  postern policy check", bad)
		_ = d.a.Record(context.Background(), event.Event{Kind: event.PolicyBad, Reason: bad.Error()})
		return
	}
	d.broker.ReloadAll()
	d.broker.Recheck()
}

// decider puts the broker's questions to the policy. Environments are kept here
// because they are asked for on every call.
type decider struct {
	a       *App
	mu      sync.RWMutex
	secrets map[string]credential.Environment
	agents  map[string]credential.Environment
}

func newDecider(a *App) *decider {
	d := &decider{a: a}
	d.reload()
	return d
}

func (d *decider) reload() {
	ctx := context.Background()
	secrets, agents := map[string]credential.Environment{}, map[string]credential.Environment{}
	if list, err := d.a.Safe.List(ctx); err == nil {
		for _, c := range list {
			secrets[c.Name] = c.Environment
		}
	}
	if list, err := d.a.Agents.List(ctx); err == nil {
		for _, one := range list {
			agents[one.Name] = one.Environment
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.secrets, d.agents = secrets, agents
}

// Decide is the policy's answer for one use. A secret whose environment is not
// known counts as prod.
func (d *decider) Decide(r broker.Request) broker.Decision {
	d.mu.RLock()
	ofSecret, known := d.secrets[r.Credential]
	ofAgent := d.agents[r.Agent]
	d.mu.RUnlock()
	if !known {
		ofSecret = credential.Prod
	}
	p := d.a.Policy.Decide(policy.Request{
		Agent: r.Agent, Credential: r.Credential, CredentialEnvironment: ofSecret, AgentEnvironment: ofAgent,
		Host: r.Host, Method: r.Method, Path: r.Path,
	})
	return broker.Decision{Allow: p.Allow, Rule: p.Rule, Reason: p.Reason, Fix: p.Fix, Durable: p.Durable, OwnKeys: p.OwnKeys}
}

// Egress is the policy's answer for one destination.
func (d *decider) Egress(agent, hostport string) broker.EgressDecision {
	p := d.a.Policy.Egress(agent, hostport)
	return broker.EgressDecision{
		Allow: p.Allow, Mode: broker.Mode(p.Mode), Named: p.Named, Local: p.Local, Rule: p.Rule, Reason: p.Reason, Fix: p.Fix,
	}
}

// authenticate checks the proxy password of an agent, which only the key of the
// safe can make.
func (a *App) authenticate(agent, token string) bool {
	want, err := a.proxyToken(agent)
	return err == nil && subtle.ConstantTimeCompare([]byte(want), []byte(token)) == 1
}

// proxyToken is the password by which an agent outside a sandbox names itself to
// the proxy.
func (a *App) proxyToken(agent string) (string, error) {
	return a.Safe.Fingerprint(secret.New([]byte("proxy password of agent " + agent)))
}
