package term

import (
	"fmt"
	"sync"
	"time"
)

// Progress tells on standard error how far long work has come: one line that is
// rewritten on a terminal, one line every ten seconds elsewhere.
type Progress struct {
	mu      sync.Mutex
	s       *Streams
	label   string
	now     func() time.Time
	started time.Time
	last    time.Time
	shown   bool
}

// Progress starts a progress line. Nothing is shown before the first second.
func (s *Streams) Progress(label string, now func() time.Time) *Progress {
	return &Progress{s: s, label: label, now: now, started: now(), last: now()}
}

// Set tells that done of total units are finished; total 0 means unknown.
func (p *Progress) Set(done, total uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	pause := 10 * time.Second
	if p.s.ErrTTY {
		pause = 200 * time.Millisecond
	}
	if p.s.Quiet || now.Sub(p.started) < time.Second || p.shown && now.Sub(p.last) < pause {
		return
	}
	p.last, p.shown = now, true
	text := fmt.Sprintf("%s %d", p.label, done)
	if total > 0 {
		text = fmt.Sprintf("%s %d of %d (%d %%)", p.label, done, total, done*100/total)
	}
	if p.s.ErrTTY {
		fmt.Fprintf(p.s.Err, "\r%s\x1b[K", text)
		return
	}
	fmt.Fprintln(p.s.Err, text)
}

// Done ends the line.
func (p *Progress) Done() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.shown && p.s.ErrTTY {
		fmt.Fprint(p.s.Err, "\r\x1b[K")
	}
}
