package broker

import (
	"crypto/rand"
	"encoding/hex"
	"strconv"
	"sync/atomic"
	"time"
)

// Stats are counts since the broker was made.
type Stats struct {
	Requests, Injections, Redactions, Refused, Tunnels int64
	RecordErrors                                       int64 // records other than uses that the ledger did not take
	Agents                                             map[string]AgentStats
}

// AgentStats are the counts of one agent.
type AgentStats struct {
	Requests, Injections, Redactions, Refused int64
	FirstUse                                  time.Time // when the first call with a real value was answered below 400; zero until then
	FirstUseHost                              string    // "name:port" of that call
}

type counters struct{ tunnels, recordErrors atomic.Int64 }

type agentCounters struct {
	requests, injections, redactions, refused atomic.Int64
	first                                     atomic.Pointer[firstUse]
}

type firstUse struct {
	at   time.Time
	host string
}

// Stats are the counts so far.
func (b *Broker) Stats() Stats {
	s := Stats{Tunnels: b.stats.tunnels.Load(), RecordErrors: b.stats.recordErrors.Load(), Agents: map[string]AgentStats{}}
	b.mu.Lock()
	defer b.mu.Unlock()
	for name, e := range b.agents {
		a := AgentStats{
			Requests: e.stats.requests.Load(), Injections: e.stats.injections.Load(),
			Redactions: e.stats.redactions.Load(), Refused: e.stats.refused.Load(),
		}
		if f := e.stats.first.Load(); f != nil {
			a.FirstUse, a.FirstUseHost = f.at, f.host
		}
		s.Requests += a.Requests
		s.Injections += a.Injections
		s.Redactions += a.Redactions
		s.Refused += a.Refused
		s.Agents[name] = a
	}
	return s
}

// ids makes request ids: unique in the process by a counter, between processes
// by a random beginning.
type ids struct {
	start string
	next  atomic.Uint64
}

func (i *ids) init() {
	var b [5]byte
	_, _ = rand.Read(b[:]) // never fails, by its documentation
	i.start = hex.EncodeToString(b[:]) + "-"
}

func (i *ids) new() string {
	var buf [40]byte
	return string(strconv.AppendUint(append(buf[:0], i.start...), i.next.Add(1), 10))
}
