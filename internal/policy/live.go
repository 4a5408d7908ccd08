package policy

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Live is the policy of a file that may change: always the last good one. Safe
// for concurrent use.
type Live struct {
	path    string
	current atomic.Pointer[Policy]

	mu     sync.Mutex
	data   []byte // the content that was read last, good or bad
	bad    error  // why that content is not in force
	loaded time.Time
}

// NewLive reads the policy at path. A file that does not exist is an empty policy,
// which refuses everything; mistakes in it are an error, because there is no
// last good one yet.
func NewLive(path string) (*Live, error) {
	l := &Live{path: path}
	l.current.Store(&Policy{})
	if _, err := l.Reload(); err != nil {
		return nil, err
	}
	return l, nil
}

// Policy is the one in force.
func (l *Live) Policy() *Policy { return l.current.Load() }

// Decide asks the policy in force.
func (l *Live) Decide(q Request) Decision { return l.current.Load().Decide(q) }

// Egress asks the policy in force.
func (l *Live) Egress(agent, hostport string) EgressDecision {
	return l.current.Load().Egress(agent, hostport)
}

// Status says when the policy in force was read, and what is wrong with the
// file as it is now; bad is nil where that very file is in force. loaded is
// zero where there has been none.
func (l *Live) Status() (loaded time.Time, bad error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.loaded, l.bad
}

// Reload reads the file again. With an error the last good policy stays in
// force. changed is false where the file holds what was read last. That there is
// no file is an error only after there has been one.
func (l *Live) Reload() (changed bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	data, err := read(l.path)
	if errors.Is(err, fs.ErrNotExist) && l.loaded.IsZero() {
		return false, nil
	}
	if err != nil {
		changed, l.data, l.bad = l.bad == nil, nil, err
		return changed, err
	}
	if l.data != nil && bytes.Equal(data, l.data) {
		return false, l.bad
	}
	l.data = append([]byte{}, data...)
	p, err := Parse(l.path, data)
	if l.bad = err; err != nil {
		return true, err
	}
	l.current.Store(p)
	l.loaded = time.Now()
	return true, nil
}

// Watch looks at the file every second until ctx ends, and reloads it where its
// stamp changed. changed is called after each reload that found another
// content, with the error of a bad one; it runs on Watch's goroutine.
func (l *Live) Watch(ctx context.Context, changed func(bad error)) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	last := stamp{}
	for {
		if now := stampOf(l.path); now != last {
			last = now
			if found, err := l.Reload(); found {
				changed(err)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// stamp is what tells one state of a file from the next without reading it.
type stamp struct {
	modified int64
	size     int64
	inode    uint64
}

func stampOf(path string) stamp {
	info, err := os.Stat(path)
	if err != nil {
		return stamp{size: -1}
	}
	s := stamp{modified: info.ModTime().UnixNano(), size: info.Size()}
	if sys, ok := info.Sys().(*syscall.Stat_t); ok {
		s.inode = sys.Ino
	}
	return s
}
