package app

import (
	"bytes"
	"slices"
	"strings"

	"postern/internal/catalog"
	"postern/internal/placeholder"
	"postern/internal/run"
)

// hostVariables lead to what does not exist inside: proxies, agents, buses,
// sockets, and our own settings.
func hostVariables() []string {
	return []string{
		"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy",
		"SSH_AUTH_SOCK", "SSH_AGENT_PID", "GPG_AGENT_INFO", "DBUS_SESSION_BUS_ADDRESS", "DBUS_SYSTEM_BUS_ADDRESS",
		"TMUX", "TMUX_PANE", "STY", "DISPLAY", "WAYLAND_DISPLAY", "XAUTHORITY", "NOTIFY_SOCKET", "CREDENTIALS_DIRECTORY",
		"LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "SSL_CERT_DIR",
	}
}

// environment is what the command gets of ours.
type environment struct {
	kinds   *catalog.Catalog
	own     map[string]string // variables of the agent's secrets, with their placeholders
	replace func([]byte) []byte
	ownKeys bool
	keep    []string // host variables that a grant keeps
}

// clean is environ without any key: known values become placeholders, unknown
// ones are left out and named in dropped.
func (e environment) clean(environ []string) (kept, dropped []string) {
	replaced := bytes.Split(e.replace([]byte(strings.Join(environ, "\x00"))), []byte{0})
	host := hostVariables()
	for _, pair := range replaced {
		name, value, found := strings.Cut(string(pair), "=")
		if !found || strings.HasPrefix(name, "POSTERN_") || slices.Contains(host, name) && !slices.Contains(e.keep, name) {
			continue
		}
		if text, ours := e.own[name]; ours && !placeholder.Is(value) && len(catalog.Split(value)) < 2 {
			value = text
		} else if e.foreign(name, value) {
			dropped = append(dropped, name)
			continue
		}
		kept = append(kept, name+"="+value)
	}
	return kept, dropped
}

// foreign says whether a value is a key that Postern could put in by itself and
// does not have.
func (e environment) foreign(name, value string) bool {
	if e.ownKeys || placeholder.Is(value) {
		return false
	}
	m, found := e.kinds.Identify(name, value)
	return found && m.Kind != nil && m.Confidence != catalog.Low && m.Kind.Protocol == catalog.HTTP && m.Kind.Placeholder.None == ""
}

// with gives variables their values, whatever they were.
func with(environ []string, pairs ...string) []string {
	kept := slices.DeleteFunc(slices.Clone(environ), func(pair string) bool {
		name, _, _ := strings.Cut(pair, "=")
		return slices.ContainsFunc(pairs, func(p string) bool { return strings.HasPrefix(p, name+"=") })
	})
	return append(kept, pairs...)
}

// trusting points every client at the bundle.
func trusting(environ []string, bundle string) []string {
	pairs := []string{}
	for _, name := range run.BundleVariables() {
		pairs = append(pairs, name+"="+bundle)
	}
	return with(environ, pairs...)
}
