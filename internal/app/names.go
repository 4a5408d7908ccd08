package app

import (
	"net/netip"
	"sync"
	"time"

	"postern/internal/broker"
)

// How long the daemon goes by what a sandbox said an address stands for, and for
// how many addresses. A sandbox gives an address to another name only after
// 65,536 more, so what is remembered this shortly is what the agent asked for.
const (
	rememberFor = 2 * time.Second
	maxRemember = 256
)

// remembered asks ask and remembers its answers for a while: an agent that opens
// connection after connection to one host need not wait for its sandbox each time.
func remembered(ask broker.Names, now func() time.Time) broker.Names {
	type answer struct {
		name  string
		until time.Time
	}
	var mu sync.Mutex
	known := map[netip.Addr]answer{}
	return func(addr netip.Addr) (string, bool) {
		at := now()
		mu.Lock()
		got, found := known[addr]
		mu.Unlock()
		if found && at.Before(got.until) {
			return got.name, true
		}
		name, ok := ask(addr)
		mu.Lock()
		defer mu.Unlock()
		if !ok {
			delete(known, addr)
			return name, false
		}
		if len(known) >= maxRemember {
			clear(known)
		}
		known[addr] = answer{name, at.Add(rememberFor)}
		return name, true
	}
}
