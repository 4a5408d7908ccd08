package config

import (
	"encoding/pem"
	"fmt"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"postern/internal/fail"
)

// checker looks through a decoded file and collects what is wrong with it.
type checker struct {
	file, base string
	data       []byte
	problems   fail.Problems
}

func (c *checker) problem(text string, path ...string) {
	if text == "" {
		return
	}
	p := fail.Problem{File: c.file, Text: strings.Join(path, ".") + " " + text}
	if line, column, _ := locate(c.data, path); line > 0 {
		p.Line, p.Column, p.Excerpt = line, column, excerpt(c.data, line, column)
	}
	c.problems = append(c.problems, p)
}

func (c *checker) upstream(u *Upstream) {
	dial := map[string]string{}
	for _, from := range slices.Sorted(maps.Keys(u.Dial)) {
		to := u.Dial[from]
		key, why := hostPort(from)
		c.problem(why, "upstream", "dial", from)
		c.problem(addrPort(to), "upstream", "dial", from)
		if _, twice := dial[key]; twice {
			c.problem("is named twice", "upstream", "dial", from)
		}
		dial[key] = to
	}
	if u.Dial != nil {
		u.Dial = dial
	}
	u.CAFile = c.resolve(u.CAFile, "upstream", "ca_file")
}

func (c *checker) safe(s *Safe) {
	if s.Root != "" {
		c.problem(oneOf(s.Root, RootKeyFile, RootPassphrase, RootSystemd), "safe", "root")
	}
	s.KeyFile = c.resolve(s.KeyFile, "safe", "key_file")
	s.CredentialFile = c.resolve(s.CredentialFile, "safe", "credential_file")
}

func (c *checker) ledger(l *Ledger) {
	c.problem(reserveInRange(l.ReserveMB), "ledger", "reserve_mb")
}

func (c *checker) run(r *Run) {
	c.problem(oneOf(r.Mode, ModeAuto, ModeEnforced, ModeCooperative), "run", "mode")
	c.problem(oneOf(r.NewKeys, NewKeysAsk, NewKeysAdopt, NewKeysRefuse), "run", "new_keys")
}

// resolve makes a path of the file absolute: it starts at the file's directory.
func (c *checker) resolve(path string, at ...string) string {
	switch {
	case path == "":
		return ""
	case strings.HasPrefix(path, "~"):
		c.problem("starts with ~, which no shell expands here; write the whole path", at...)
	case strings.ContainsAny(path, "\x00\n"):
		c.problem("holds a character that no path holds", at...)
	}
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(c.base, path)
}

func oneOf(text string, options ...string) string {
	if slices.Contains(options, text) {
		return ""
	}
	return fmt.Sprintf("must be %s or %s, not %q", strings.Join(options[:len(options)-1], ", "), options[len(options)-1], text)
}

func absolute(path string) string {
	if filepath.IsAbs(path) {
		return ""
	}
	return fmt.Sprintf("must be an absolute path, not %q", path)
}

func reserveInRange(mb int) string {
	if mb >= 1 && mb <= maxReserveMB {
		return ""
	}
	return fmt.Sprintf("must be between 1 and %d MiB, not %d", maxReserveMB, mb)
}

// hostPort checks "host:port" and gives it back in the form in which the broker
// asks: lower case, without a final dot.
func hostPort(text string) (key, problem string) {
	host, port, ok := cutPort(text)
	if !ok {
		return text, "must name a host and a port, as in \"api.example.com:443\""
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		return netip.AddrPortFrom(addr, port).String(), ""
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if !validName(host) {
		return text, fmt.Sprintf("names %q, which is not the exact name of a host", host)
	}
	return fmt.Sprintf("%s:%d", host, port), ""
}

func addrPort(text string) (problem string) {
	host, _, ok := cutPort(text)
	if ok {
		_, err := netip.ParseAddr(host)
		ok = err == nil
	}
	if !ok {
		return fmt.Sprintf("must lead to an IP address and a port, as in \"127.0.0.1:8443\", not to %q", text)
	}
	return ""
}

// cutPort takes "host:port" apart; an IPv6 address stands in brackets.
func cutPort(text string) (host string, port uint16, ok bool) {
	i := strings.LastIndexByte(text, ':')
	if i <= 0 {
		return "", 0, false
	}
	n, err := strconv.ParseUint(text[i+1:], 10, 16)
	if err != nil || n == 0 || text[i+1] == '+' {
		return "", 0, false
	}
	host = text[:i]
	if inner, found := strings.CutPrefix(host, "["); found {
		host, found = strings.CutSuffix(inner, "]")
		return host, uint16(n), found && strings.Contains(host, ":")
	}
	return host, uint16(n), !strings.Contains(host, ":")
}

// validName says whether host is a DNS name in lower case (RFC 1123 §2.1, with
// underscores, which inner networks use).
func validName(host string) bool {
	if len(host) > 253 {
		return false
	}
	for label := range strings.SplitSeq(host, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, c := range []byte(label) {
			if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
				return false
			}
		}
	}
	return true
}

func holdsCertificate(data []byte) bool {
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			return false
		}
		if block.Type == "CERTIFICATE" {
			return true
		}
	}
}
