package ca

import (
	"container/list"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"postern/internal/fail"
)

const (
	leafLife     = 24 * time.Hour
	leafBackDate = 10 * time.Minute // for a clock that runs behind
	renewBefore  = time.Hour        // longer than a handshake, shorter than a run
	maxLeaves    = 1024             // an agent may name ever new hosts
)

// leaves is the cache: the least recently used one goes when it is full.
type leaves struct {
	mu     sync.Mutex // guards all below, and the fields of a leaf that say so
	byHost map[string]*leaf
	order  list.List // of *leaf, the most recently used first
}

// leaf is one host's certificate, or the making of it.
type leaf struct {
	host    string
	place   *list.Element // guarded by leaves.mu
	renewAt time.Time
	made    chan struct{} // closed when cert and err stand
	cert    *tls.Certificate
	err     error
}

func (a *authority) leaf(ctx context.Context, name string) (*tls.Certificate, error) {
	now := time.Now()
	l := a.leaves.take(name, now)
	if l == nil {
		host, ip, err := canonical(name)
		if err != nil {
			return nil, err
		}
		var isMine bool
		if l, isMine = a.leaves.takeOrStart(host, now); isMine {
			l.cert, l.err = a.sign(host, ip, now)
			a.leaves.finish(l)
		}
	}
	select {
	case <-l.made:
		return l.cert, l.err
	default:
	}
	select {
	case <-l.made:
		return l.cert, l.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// take is the leaf of a host under its canonical name, nil where there is none
// that is fresh.
func (c *leaves) take(host string, now time.Time) *leaf {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := c.byHost[host]
	if l == nil || !now.Before(l.renewAt) {
		return nil
	}
	c.order.MoveToFront(l.place)
	return l
}

// takeOrStart is take, or a new leaf that the caller has to make and finish.
func (c *leaves) takeOrStart(host string, now time.Time) (l *leaf, isMine bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if old := c.byHost[host]; old != nil {
		if now.Before(old.renewAt) {
			c.order.MoveToFront(old.place)
			return old, false
		}
		c.drop(old)
	}
	l = &leaf{host: host, made: make(chan struct{}), renewAt: now.Add(leafLife - leafBackDate - renewBefore)}
	l.place = c.order.PushFront(l)
	c.byHost[host] = l
	if c.order.Len() > maxLeaves {
		c.drop(c.order.Back().Value.(*leaf))
	}
	return l, true
}

// finish lets those who wait go on; a failure is not kept.
func (c *leaves) finish(l *leaf) {
	close(l.made)
	if l.err == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.byHost[l.host] == l {
		c.drop(l)
	}
}

// drop needs the lock.
func (c *leaves) drop(l *leaf) {
	delete(c.byHost, l.host)
	c.order.Remove(l.place)
}

func (a *authority) sign(host string, ip net.IP, now time.Time) (*tls.Certificate, error) {
	if !now.Before(a.cert.NotAfter) {
		return nil, fail.New(fail.Unavailable, "P-E118", "could not make a certificate for %s", host).
			Because("the local certificate authority ended on %s", a.cert.NotAfter.Format(time.DateOnly))
	}
	template := &x509.Certificate{
		NotBefore:             now.Add(-leafBackDate),
		NotAfter:              now.Add(leafLife - leafBackDate),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}
	if template.NotAfter.After(a.cert.NotAfter) {
		template.NotAfter = a.cert.NotAfter
	}
	if ip != nil {
		template.IPAddresses = []net.IP{ip}
	} else {
		template.DNSNames = []string{host}
	}
	if len(host) <= 64 { // the upper bound of a common name, RFC 5280 appendix A.1
		template.Subject = pkix.Name{CommonName: host}
	}
	// The serial is left to the library: 20 random bytes, RFC 5280 section 4.1.2.2.
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, a.leafKey.Public(), a.key)
	if err != nil {
		return nil, fail.New(fail.Internal, "P-E118", "could not make a certificate for %s", host).Wrap(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fail.New(fail.Internal, "P-E118", "could not make a certificate for %s", host).Wrap(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: a.leafKey, Leaf: cert}, nil
}

// canonical is the one form of a name under which its certificate is kept: lower
// case, no dot at the end, an address without brackets and as itself.
func canonical(name string) (host string, ip net.IP, err error) {
	refused := fail.New(fail.Invalid, "P-E118", "could not make a certificate for %q", name).
		Because("it is neither a DNS name nor an IP address")
	bare := name
	if inner, isOpen := strings.CutPrefix(name, "["); isOpen {
		inner, isClosed := strings.CutSuffix(inner, "]")
		if !isClosed || !strings.Contains(inner, ":") {
			return "", nil, refused
		}
		bare = inner
	}
	if addr, err := netip.ParseAddr(bare); err == nil {
		if addr.Zone() != "" {
			return "", nil, refused
		}
		addr = addr.Unmap()
		return addr.String(), addr.AsSlice(), nil
	}
	host = strings.ToLower(strings.TrimSuffix(name, "."))
	if !isDNSName(host) {
		return "", nil, refused
	}
	return host, nil, nil
}

// isDNSName takes letters, digits, "-" and "_" in labels, no wildcard, and no
// name whose last label is a number: that would be an address in disguise.
func isDNSName(host string) bool {
	if host == "" || len(host) > 253 {
		return false
	}
	var last string
	for label := range strings.SplitSeq(host, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, c := range []byte(label) {
			if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
				return false
			}
		}
		last = label
	}
	return strings.Trim(last, "0123456789") != "" && !strings.HasPrefix(last, "0x")
}
