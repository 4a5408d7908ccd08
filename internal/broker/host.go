package broker

import (
	"errors"
	"net/netip"
	"strconv"
	"strings"
)

var errHost = errors.New("not a host name in its plain form")

// canonicalHost brings a host name or address literal into the one form that is
// compared, dialled and sent: lower case, one trailing dot cut, addresses as
// netip prints them. Everything that a second reader could take for another
// host is refused: percent codes, zones, numeric look-alikes of addresses,
// names outside letters, digits, hyphen, underscore.
func canonicalHost(s string) (string, error) {
	if strings.HasPrefix(s, "[") {
		if !strings.HasSuffix(s, "]") {
			return "", errHost
		}
		addr, err := netip.ParseAddr(s[1 : len(s)-1])
		if err != nil || addr.Zone() != "" || !addr.Is6() {
			return "", errHost
		}
		return addr.Unmap().String(), nil
	}
	s = strings.TrimSuffix(s, ".")
	if s == "" || len(s) > 253 {
		return "", errHost
	}
	upper, last := false, 0
	for i := 0; i <= len(s); i++ {
		if i == len(s) || s[i] == '.' {
			if !validLabel(s[last:i]) {
				return "", errHost
			}
			if i < len(s) {
				last = i + 1
			}
			continue
		}
		upper = upper || s[i] >= 'A' && s[i] <= 'Z'
	}
	if upper {
		s = strings.ToLower(s)
	}
	if numeric(s[last:]) {
		addr, err := netip.ParseAddr(s)
		if err != nil || !addr.Is4() {
			return "", errHost
		}
	}
	return s, nil
}

func validLabel(label string) bool {
	if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
		return false // a final hyphen also marks punycode of plain ASCII
	}
	for _, c := range []byte(label) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_':
		default:
			return false
		}
	}
	return true
}

// numeric says whether a final label makes the whole an address to some
// parsers: all digits, or hexadecimal after 0x.
func numeric(label string) bool {
	if len(label) > 1 && label[0] == '0' && label[1]|0x20 == 'x' {
		return true
	}
	for _, c := range []byte(label) {
		if c < '0' || c > '9' {
			return false
		}
	}
	return true
}

// parsePort reads a port of 1 to 65535 in its plain form.
func parsePort(s string) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > 65535 || s[0] == '0' || s[0] == '+' {
		return 0, errHost
	}
	return n, nil
}

// target is where a connection is bound to: one name and one port.
type target struct {
	host string // canonical
	port int
	key  string // "host:port", with brackets for IPv6
}

func newTarget(host string, port int) target {
	key := host + ":" + strconv.Itoa(port)
	if strings.Contains(host, ":") {
		key = "[" + host + "]:" + strconv.Itoa(port)
	}
	return target{host: host, port: port, key: key}
}

// parseTarget reads "host" or "host:port"; without a port it takes usual, and
// where usual is 0 the port must be there.
func parseTarget(s string, usual int) (target, error) {
	host, port := s, usual
	cut := strings.LastIndexByte(s, ':')
	if cut >= 0 && !strings.HasSuffix(s, "]") {
		var err error
		if port, err = parsePort(s[cut+1:]); err != nil {
			return target{}, err
		}
		host = s[:cut]
	}
	if port == 0 {
		return target{}, errHost
	}
	canonical, err := canonicalHost(host)
	if err != nil {
		return target{}, err
	}
	return newTarget(canonical, port), nil
}

// matches says whether a Host field names the target. The fast path compares
// bytes, so that a kept-alive connection allocates nothing here.
func (t target) matches(host []byte, usual int) bool {
	if string(host) == t.host && t.port == usual || string(host) == t.key {
		return true
	}
	other, err := parseTarget(string(host), usual)
	return err == nil && other == t
}

// appendHost appends the target as a Host field shows it.
func (t target) appendHost(dst []byte, usual int) []byte {
	if t.port != usual {
		return append(dst, t.key...)
	}
	if strings.Contains(t.host, ":") {
		return append(append(append(dst, '['), t.host...), ']')
	}
	return append(dst, t.host...)
}

// hostListed says whether entry, as a catalogue or a user writes it, names the
// target: "name" is port 443, "*.name" any name below it.
func (t target) hostListed(entry string) bool {
	name, port := entry, 443
	if cut := strings.LastIndexByte(entry, ':'); cut >= 0 {
		n, err := parsePort(entry[cut+1:])
		if err != nil {
			return false
		}
		name, port = entry[:cut], n
	}
	if port != t.port {
		return false
	}
	if below, wild := strings.CutPrefix(name, "*"); wild {
		return strings.HasSuffix(t.host, below) && len(t.host) > len(below) && strings.HasPrefix(below, ".")
	}
	return strings.EqualFold(name, t.host)
}
