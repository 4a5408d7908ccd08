package broker

import (
	"context"
	"io"
	"net"
	"time"

	"postern/internal/event"
)

// tunnel passes the connection through uninspected and records where it went
// and how much. Where the destination cannot be reached it returns false if
// answerable, so that the caller says so in the agent's protocol.
func (s *session) tunnel(ctx context.Context, answerable bool) bool {
	up, err := s.b.dial(ctx, s.t, s.egress.Local)
	if err != nil {
		if answerable {
			return false
		}
		r := dialRefusal(err, s.t)
		s.note(ctx, event.Refused, r.rule, r.message)
		return true
	}
	defer func() { _ = up.Close() }()
	if !s.live.tunnel(s.t.key, up) {
		return true
	}
	start := s.b.cfg.Now()
	e := event.Event{
		Time: start.UTC(), Kind: event.Egress, Request: s.b.ids.new(), Agent: s.e.name, Host: s.t.key, Rule: s.egress.Rule,
		Detail: map[string]string{"way": "tunnel"},
	}
	s.b.note(ctx, e)
	s.b.stats.tunnels.Add(1)
	out, in := s.carry(up)
	end := s.b.cfg.Now()
	e.Time, e.Kind, e.BytesOut, e.BytesIn, e.Duration = end.UTC(), event.Outcome, out, in, end.Sub(start)
	s.b.note(ctx, e)
	return true
}

// carry copies in both directions until both have ended, and returns the bytes
// to and from the upstream. Between sockets the kernel moves them.
func (s *session) carry(up net.Conn) (out, in int64) {
	_ = s.c.SetDeadline(time.Time{})
	done := make(chan int64, 1)
	go func() {
		n, err := up.Write(s.c.head)
		total := int64(n)
		s.c.head = nil
		if err == nil {
			more, _ := io.Copy(up, s.c.Conn)
			total += more
		}
		_ = closeWrite(up)
		done <- total
	}()
	in, err := io.Copy(s.c.Conn, up)
	_ = closeWrite(s.c.Conn)
	if err != nil { // the agent is gone, so that nothing it sends matters
		_ = s.c.Conn.Close()
	}
	return <-done, in
}
