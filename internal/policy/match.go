package policy

import (
	"net/netip"
	"strconv"
	"strings"
)

// hostSet finds the rule that names a destination. Keys of exact are
// "name:port", keys of below ".name:port" for "*.name"; in deny the port may be
// left out.
type hostSet struct {
	exact, below map[string]string
}

func (s *hostSet) add(key, rule string) {
	into := &s.exact
	if strings.HasPrefix(key, ".") {
		into = &s.below
	}
	if *into == nil {
		*into = map[string]string{}
	}
	if _, has := (*into)[key]; !has {
		(*into)[key] = rule
	}
}

func (s *hostSet) find(hostport string) (string, bool) {
	if rule, ok := s.exact[hostport]; ok {
		return rule, true
	}
	if len(s.below) == 0 {
		return "", false
	}
	for i := 1; i < len(hostport); i++ {
		if hostport[i] == '.' {
			if rule, ok := s.below[hostport[i:]]; ok {
				return rule, true
			}
		}
	}
	return "", false
}

// hostKey reads a host of the file. Without a port it takes usual; with usual 0
// the key has no port. why is empty where the host is good.
func hostKey(s string, usual int) (key, why string) {
	name, port := s, ""
	if strings.Contains(s, "/") {
		return "", "write only the host name, without scheme and path"
	}
	if i := strings.LastIndexByte(s, ':'); i >= 0 && !strings.HasSuffix(s, "]") {
		name, port = s[:i], s[i:]
		if n, err := strconv.Atoi(port[1:]); err != nil || n < 1 || n > 65535 || strconv.Itoa(n) != port[1:] {
			return "", "the port must be a number from 1 to 65535"
		}
	} else if usual > 0 {
		port = ":" + strconv.Itoa(usual)
	}
	rest, wild := strings.CutPrefix(name, "*.")
	if why := nameProblem(rest, wild); why != "" {
		return "", why
	}
	if wild {
		return "." + rest + port, ""
	}
	return name + port, ""
}

func nameProblem(name string, wild bool) string {
	if inner, ok := strings.CutPrefix(name, "["); ok {
		addr, err := netip.ParseAddr(strings.TrimSuffix(inner, "]"))
		if err != nil || !addr.Is6() || addr.Is4In6() || addr.Zone() != "" || "["+addr.String()+"]" != name || wild {
			return "it is not an IPv6 address in its short form, in brackets"
		}
		return ""
	}
	switch {
	case name == "" || len(name) > 253:
		return "it is not a host name"
	case strings.Contains(name, "*"):
		return `a * may stand only as "*." at the beginning`
	case strings.ToLower(name) != name:
		return "write it in lower case: " + strings.ToLower(name)
	case strings.HasSuffix(name, "."):
		return "write it without the dot at the end"
	}
	for _, c := range []byte(name) {
		if c > 0x7e {
			return "write it in its ASCII form (xn--…)"
		}
	}
	for label := range strings.SplitSeq(name, ".") {
		if !validLabel(label) {
			return "it is not a host name"
		}
	}
	last := name[strings.LastIndexByte(name, '.')+1:]
	if !numeric(last) {
		return ""
	}
	if addr, err := netip.ParseAddr(name); err != nil || !addr.Is4() || wild {
		return "it is neither a host name nor an address in its plain form"
	}
	return ""
}

func validLabel(label string) bool {
	if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
		return false
	}
	for _, c := range []byte(label) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
			return false
		}
	}
	return true
}

// numeric says whether a final label makes the whole an address to some
// readers: all digits, or hexadecimal after 0x.
func numeric(label string) bool {
	if strings.HasPrefix(label, "0x") {
		return true
	}
	return strings.Trim(label, "0123456789") == ""
}

// Destination brings what a person typed as a host into the form that Decide
// and Egress compare: "name:port", with 443 where no port was given.
func Destination(s string) (string, bool) {
	key, why := hostKey(strings.ToLower(strings.TrimSuffix(s, ".")), 443)
	return key, why == "" && !strings.HasPrefix(key, ".")
}

// pathPattern is a path of a grant, cut at its slashes.
type pathPattern struct {
	segments []string
	tail     bool // it ends in "/*"
}

func parsePath(s string) (p pathPattern, why string) {
	rest, rooted := strings.CutPrefix(s, "/")
	if !rooted {
		return p, `a path begins with "/"`
	}
	p.segments = strings.Split(rest, "/")
	for i, segment := range p.segments {
		switch {
		case segment == "" && i < len(p.segments)-1:
			return p, "a path has no empty segment"
		case segment == "." || segment == "..":
			return p, "a path has no segment of dots"
		case segment != "*" && strings.Contains(segment, "*"):
			return p, `a * stands for a whole segment ("/v1/*/messages"), or at the end for everything below`
		}
	}
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '?' || c == '#':
			return p, "a path is compared without its query: write it without ? and #"
		case c < 0x20 || c == 0x7f || c == '\\':
			return p, "a path has no control characters and no backslash"
		case c == '%' && !validEscape(s[i:]):
			return p, "an escape is % and two hexadecimal digits in capitals, of a character that needs it"
		}
	}
	if p.segments[len(p.segments)-1] == "*" {
		p.segments, p.tail = p.segments[:len(p.segments)-1], true
	}
	return p, ""
}

func validEscape(s string) bool {
	if len(s) < 3 || strings.ToUpper(s[:3]) != s[:3] {
		return false
	}
	n, err := strconv.ParseUint(s[1:3], 16, 8)
	c := byte(n)
	letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
	return err == nil && !letter && !strings.ContainsRune("-._~", rune(c))
}

func (p *pathPattern) match(path string) bool {
	if path == "" || path[0] != '/' {
		return false
	}
	rest, more := path[1:], true
	for _, want := range p.segments {
		if !more {
			return false
		}
		segment := rest
		if i := strings.IndexByte(rest, '/'); i >= 0 {
			segment, rest = rest[:i], rest[i+1:]
		} else {
			rest, more = "", false
		}
		if want == "*" && segment == "" || want != "*" && segment != want {
			return false
		}
	}
	return more == p.tail
}
