package broker

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"time"

	"postern/internal/netclass"
)

const (
	dialTimeout = 10 * time.Second
	dialStagger = 300 * time.Millisecond // RFC 8305 §5 recommends 250 ms
)

// errPrivate is an address that the broker does not dial.
type errPrivate struct{ host, class string }

func (e *errPrivate) Error() string {
	return fmt.Sprintf("%s resolves to an address that is not public (%s)", e.host, e.class)
}

// dial opens a connection to t: to the configured address where there is one,
// else to an address that was resolved once, classified and is dialled as it
// is. local skips the classification, for destinations granted by address.
func (b *Broker) dial(ctx context.Context, t target, local bool) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	if to, ok := b.cfg.Dial[t.key]; ok {
		return b.dialer.DialContext(ctx, "tcp", to)
	}
	addrs, err := b.addresses(ctx, t.host, local)
	if err != nil {
		return nil, err
	}
	return b.dialAny(ctx, addrs, t.port)
}

// addresses resolves host once. One address that is not public spoils all.
func (b *Broker) addresses(ctx context.Context, host string, local bool) ([]netip.Addr, error) {
	addrs := []netip.Addr{}
	if literal, err := netip.ParseAddr(host); err == nil {
		addrs = append(addrs, literal)
	} else if addrs, err = b.resolve(ctx, host); err != nil {
		return nil, fmt.Errorf("resolving %s: %w", host, err)
	}
	if len(addrs) == 0 {
		return nil, fmt.Errorf("resolving %s: no address", host)
	}
	for i, addr := range addrs {
		addr = addr.Unmap() // as resolvers return IPv4
		addrs[i] = addr
		if class, public := netclass.ClassifyAddr(addr); !public && !local {
			return nil, &errPrivate{host: host, class: class}
		}
	}
	return addrs, nil
}

// dialAny tries the addresses in order, the next one when the one before has
// failed or has not answered for a while; the first that answers wins.
func (b *Broker) dialAny(ctx context.Context, addrs []netip.Addr, port int) (net.Conn, error) {
	if len(addrs) > 4 {
		addrs = addrs[:4]
	}
	type result struct {
		conn net.Conn
		err  error
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	results := make(chan result, len(addrs))
	timer := time.NewTimer(dialStagger)
	defer timer.Stop()
	var last error
	started, ended := 0, 0
	start := func() {
		to := net.JoinHostPort(addrs[started].String(), strconv.Itoa(port))
		started++
		timer.Reset(dialStagger)
		go func() {
			conn, err := b.dialer.DialContext(ctx, "tcp", to)
			results <- result{conn, err}
		}()
	}
	for start(); ended < len(addrs); {
		select {
		case r := <-results:
			ended++
			if r.err == nil {
				go func(left int) {
					for range left {
						if late := <-results; late.conn != nil {
							_ = late.conn.Close()
						}
					}
				}(started - ended)
				return r.conn, nil
			}
			last = r.err
			if started < len(addrs) {
				start()
			}
		case <-timer.C:
			if started < len(addrs) {
				start()
			}
		}
	}
	return nil, last
}

// secure makes the TLS handshake with the upstream; protocol is what ALPN offers.
func (b *Broker) secure(ctx context.Context, raw net.Conn, host, protocol string) (*tls.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	c := tls.Client(raw, &tls.Config{
		ServerName: host, RootCAs: b.cfg.RootCAs, MinVersion: tls.VersionTLS12,
		NextProtos: []string{protocol}, ClientSessionCache: b.pool.sessions, Time: b.cfg.Now,
	})
	if err := c.HandshakeContext(ctx); err != nil {
		_ = raw.Close()
		return nil, err
	}
	return c, nil
}

// dialRefusal says to the agent why there is no connection.
func dialRefusal(err error, t target) *refusal {
	var private *errPrivate
	var verify *tls.CertificateVerificationError
	var dns *net.DNSError
	var timeout interface{ Timeout() bool }
	switch {
	case errors.As(err, &private):
		r := forbidden(ruleAddress, private.Error())
		r.id = "P-E109"
		return r
	case errors.As(err, &verify):
		return badGateway(ruleUpstream, "the certificate of "+t.key+" was not accepted: "+verify.Err.Error())
	case errors.As(err, &dns):
		return badGateway(ruleUpstream, "the name "+t.host+" could not be resolved")
	case errors.As(err, &timeout) && timeout.Timeout(), errors.Is(err, context.DeadlineExceeded):
		r := badGateway(ruleUpstream, t.key+" did not answer in time")
		r.status = 504
		return r
	}
	return badGateway(ruleUpstream, t.key+" could not be reached: "+plainError(err))
}

// plainError is err without the addresses in front of it.
func plainError(err error) string {
	var op *net.OpError
	if errors.As(err, &op) && op.Err != nil {
		return op.Err.Error()
	}
	return err.Error()
}
