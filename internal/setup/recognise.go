package setup

import (
	"cmp"
	"net"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"

	"postern/internal/catalog"
	"postern/internal/placeholder"
)

// generic is the kind of a secret that no entry of the catalogue knows.
const generic = catalog.GenericID

// piece is a part of a variable's value that is a secret, or already a
// placeholder of ours.
type piece struct {
	start, end int
	match      catalog.Match
	ours       bool
}

// pieces finds the secrets in one value. A list of keys gives one piece for
// each, placeholders of ours among them.
func pieces(kinds Identifier, variable, value string) []piece {
	var found []piece
	for _, part := range catalog.Split(value) {
		if placeholder.Is(value[part[0]:part[1]]) {
			found = append(found, piece{start: part[0], end: part[1], ours: true})
		}
	}
	if len(found) == 1 && len(catalog.Split(value)) == 1 {
		return found
	}
	match, is := kinds.Identify(variable, value)
	if !is && len(found) == 0 {
		return embedded(kinds, value)
	}
	if !is {
		return found
	}
	for _, s := range match.Spans {
		found = append(found, piece{start: s.Start, end: s.End, match: catalog.Match{Kind: s.Kind, Confidence: s.Confidence}})
	}
	slices.SortFunc(found, func(a, b piece) int { return cmp.Compare(a.start, b.start) })
	return found
}

// shortestWord is shorter than any key that shows by itself what it is.
const shortestWord = 16

// borders are what separates a key from the text around it, the surest first.
var borders = []string{" \t\r\n\"'`,;=&?#()<>[]{}|\\", "/@", ":"}

// embedded finds keys within a longer text, such as a URL or a remark: those
// that show by their own shape what they are.
func embedded(kinds Identifier, text string) []piece {
	var found []piece
	var look func(from, to, border int)
	look = func(from, to, border int) {
		start := from
		for at := from; at <= to; at++ {
			if at < to && !strings.Contains(borders[border], text[at:at+1]) {
				continue
			}
			if word := text[start:at]; len(word) >= shortestWord {
				p := piece{start: start, end: at, ours: placeholder.Is(word)}
				match, is := catalog.Match{}, p.ours
				if !is {
					match, is = kinds.Identify("", word)
					is = is && match.Kind != nil && match.Confidence == catalog.High && !decide(match, "").real
					p.match = match
				}
				switch {
				case is:
					found = append(found, p)
				case border+1 < len(borders):
					look(start, at, border+1)
				}
			}
			start = at + 1
		}
	}
	look(0, len(text), 0)
	return found
}

func carriedByHTTP(k *catalog.Kind) bool { return k.Protocol == "" || k.Protocol == catalog.HTTP }

// fate is what happens to a secret that was found.
type fate struct {
	real     bool   // the value stays in the file
	imported bool   // the value goes into the safe
	why      string // of real, a clause for people
}

// decide says whether a placeholder can do the work of this value. It can
// where a request over HTTP carries it; a value that the agent itself must
// know stays, and is said to stay.
func decide(m catalog.Match, variable string) fate {
	k := m.Kind
	switch {
	case m.Confidence == catalog.Low && k.ID != generic:
		return fate{real: true, why: "may be a secret, not certain"}
	case k.Protocol == catalog.Local:
		return fate{real: true, why: "is used by the agent itself and never sent"}
	case !carriedByHTTP(k):
		return fate{real: true, imported: true, why: "its login is not carried by HTTP"}
	case k.ID == generic && usedInside(variable):
		return fate{real: true, why: "looks like a key or password that the agent itself must know"}
	case k.Placeholder.None != "":
		return fate{real: true, why: k.Placeholder.None}
	case k.ID != generic && len(k.Slots) == 0:
		return fate{real: true, why: "no request carries it as it is (it signs or checks something)"}
	}
	return fate{imported: true}
}

// usedInside says whether a variable of no known provider names something that
// works only with its real value: a signing or encryption key of the agent's
// own, or the password of a protocol other than HTTP.
func usedInside(variable string) bool {
	v := strings.ToUpper(variable)
	for _, word := range []string{
		"SESSION_SECRET", "COOKIE_SECRET", "JWT_SECRET", "NEXTAUTH_SECRET", "AUTH_SECRET", "SECRET_KEY_BASE", "APP_KEY", "APP_SECRET_KEY",
		"ENCRYPTION", "DECRYPTION", "SIGNING", "HMAC", "SALT", "PEPPER", "CSRF", "WEBHOOK_SECRET", "VERIFY_TOKEN", "VERIFICATION",
	} {
		if strings.Contains(v, word) {
			return true
		}
	}
	if v == "SECRET_KEY" || v == "DJANGO_SECRET_KEY" || v == "FLASK_SECRET_KEY" {
		return true
	}
	if !strings.Contains(v, "PASS") && !strings.Contains(v, "PWD") {
		return false
	}
	for _, word := range []string{
		"DB", "DATABASE", "PG", "POSTGRES", "MYSQL", "MARIA", "SQL", "REDIS", "MONGO", "SMTP", "MAIL", "IMAP", "FTP", "SSH", "LDAP",
		"MQTT", "AMQP", "RABBIT", "KAFKA", "SUDO", "ROOT", "KEYSTORE", "PHRASE",
	} {
		if strings.Contains(v, word) {
			return true
		}
	}
	return false
}

// destinations are where a database URL leads: "host:port" for TCP and the
// paths of sockets.
func destinations(text string) (tcp, unix []string) {
	scheme, rest, found := strings.Cut(text, "://")
	if !found {
		return nil, nil
	}
	authority, tail := rest, ""
	if i := strings.IndexAny(rest, "/?"); i >= 0 {
		authority, tail = rest[:i], rest[i:]
	}
	authority = authority[strings.LastIndex(authority, "@")+1:]
	for host := range strings.SplitSeq(authority, ",") {
		if host, err := url.PathUnescape(host); err == nil && strings.HasPrefix(host, "/") {
			unix = append(unix, host)
			continue
		}
		name, port, err := net.SplitHostPort(host)
		if err != nil {
			name, port = strings.Trim(host, "[]"), defaultPort(scheme)
		}
		if name != "" && port != "" {
			tcp = append(tcp, net.JoinHostPort(strings.ToLower(name), port))
		}
	}
	if _, query, found := strings.Cut(tail, "?"); found {
		if values, err := url.ParseQuery(query); err == nil {
			for _, key := range []string{"host", "socket", "unix_socket"} {
				if v := values.Get(key); strings.HasPrefix(v, "/") {
					unix = append(unix, path.Clean(v))
				}
			}
		}
	}
	return tcp, unix
}

// defaultPort is the port that a client of the scheme takes by itself; none
// for mongodb+srv, whose servers the name service names.
func defaultPort(scheme string) string {
	scheme = strings.ToLower(scheme)
	base, variant, _ := strings.Cut(scheme, "+")
	switch base {
	case "postgres", "postgresql":
		return "5432"
	case "mysql", "mariadb":
		return "3306"
	case "redis", "rediss", "valkey":
		return "6379"
	case "mongodb":
		if variant == "srv" {
			return ""
		}
		return "27017"
	}
	return ""
}

// webhookPort is the port at which the agent waits for webhooks, as its variables
// say: one with WEBHOOK in its name, and a port. 0 without both.
func webhookPort(files []EnvFile) int {
	waits, port := false, 0
	for _, file := range files {
		for _, e := range file.file.Entries() {
			name := strings.ToUpper(e.Key)
			waits = waits || strings.Contains(name, "WEBHOOK")
			number, err := strconv.Atoi(e.Value)
			if err != nil || number < 1024 || number > 65535 {
				continue
			}
			if name == "WEBHOOK_PORT" || name == "PORT" && port == 0 {
				port = number
			}
		}
	}
	if !waits {
		return 0
	}
	return port
}
