package catalog

import (
	"slices"
	"strings"
)

// varName is a variable's name cut into upper-case words: "stripeSecretKey",
// "STRIPE_SECRET_KEY" and "stripe.secret-key" are the same.
type varName struct {
	full  string
	words []string
}

const maxName = 256

func parseName(variable string) varName {
	variable = variable[:min(len(variable), maxName)]
	n := varName{full: strings.ToUpper(variable)}
	var word []byte
	flush := func() {
		if len(word) > 0 {
			n.words = append(n.words, strings.ToUpper(string(word)))
			word = word[:0]
		}
	}
	for i := range len(variable) {
		b := variable[i]
		letter := b|0x20 >= 'a' && b|0x20 <= 'z'
		if !letter && (b < '0' || b > '9') {
			flush()
			continue
		}
		if i > 0 && b >= 'A' && b <= 'Z' && variable[i-1] >= 'a' && variable[i-1] <= 'z' {
			flush()
		}
		word = append(word, b)
	}
	flush()
	return n
}

// is says whether the name is one of usual, or one with a number or stage added.
func (n varName) is(usual []string) bool {
	full := strings.Join(n.words, "_")
	core := strings.Join(n.core(), "_")
	return slices.Contains(usual, full) || slices.Contains(usual, core)
}

// has says whether the keyword stands in the name as a word or the beginning of
// one.
func (n varName) has(keyword string) bool {
	keyword = strings.ToUpper(strings.ReplaceAll(keyword, "-", "_"))
	joined := "_" + strings.Join(n.words, "_")
	return strings.Contains(joined, "_"+keyword)
}

// core is the words without what only tells several of a sort apart.
func (n varName) core() []string {
	words := n.words
	for len(words) > 1 {
		last := words[len(words)-1]
		if strings.Trim(last, "0123456789") != "" && !slices.Contains(stages(), last) {
			break
		}
		words = words[:len(words)-1]
	}
	return words
}

func stages() []string {
	return []string{"PROD", "PRODUCTION", "DEV", "DEVELOPMENT", "STAGING", "TEST", "LIVE", "PRIMARY", "SECONDARY",
		"MAIN", "BACKUP", "OLD", "NEW", "CURRENT", "PREVIOUS", "DEFAULT", "A", "B"}
}

// secret says whether the name's last word is one that names secrets:
// API_KEY and DB_PASSWORD are, KEY_ID, TOKEN_TYPE and PASSWORD_FILE are not.
func (n varName) secret() bool {
	words := n.core()
	if len(words) == 0 {
		return false
	}
	last := strings.TrimRight(words[len(words)-1], digit)
	if slices.Contains([]string{"TOKENS", "KEYS"}, last) && len(words) > 1 {
		if slices.Contains([]string{"MAX", "MIN", "NUM", "OUTPUT", "INPUT", "PROMPT", "TOTAL", "COMPLETION"}, words[len(words)-2]) {
			return false
		}
	}
	if slices.Contains(words, "PUBLISHABLE") || slices.Contains(words, "PUBKEY") ||
		slices.Contains(words, "PUBLIC") && last == "KEY" {
		return false
	}
	singular := strings.TrimSuffix(last, "S")
	if slices.Contains(secretWords(), last) || slices.Contains(secretWords(), singular) {
		return true
	}
	for _, end := range []string{"PASSWORD", "SECRET", "TOKEN", "APIKEY"} {
		if strings.HasSuffix(last, end) || strings.HasSuffix(singular, end) {
			return true
		}
	}
	return false
}

// plural says whether the name is that of several secrets: API_KEYS, TOKENS.
func (n varName) plural() bool {
	words := n.core()
	if len(words) == 0 || !n.secret() {
		return false
	}
	last := words[len(words)-1]
	return strings.HasSuffix(last, "S") && !slices.Contains([]string{"PASS", "CREDS"}, last)
}

func secretWords() []string {
	return []string{"KEY", "TOKEN", "SECRET", "PASSWORD", "PASSWD", "PASS", "PWD", "PASSPHRASE", "CREDENTIAL", "CREDS",
		"APIKEY", "AUTH", "DSN", "JWT", "PAT", "BEARER", "SALT", "SECRETKEY", "ACCESSKEY", "PRIVATEKEY", "COOKIE", "SESSION"}
}

// password says whether the name is that of a password, which people choose and
// which may look like anything.
func (n varName) password() bool {
	words := n.core()
	if len(words) == 0 {
		return false
	}
	last := words[len(words)-1]
	return strings.HasSuffix(last, "PASSWORD") || slices.Contains([]string{"PASSWD", "PASS", "PWD", "PASSPHRASE", "SECRET"}, last)
}

// public says whether the variable is one that build tools hand to browsers.
func (n varName) public() bool {
	for _, prefix := range []string{"NEXT_PUBLIC_", "VITE_", "REACT_APP_", "NUXT_PUBLIC_", "PUBLIC_", "EXPO_PUBLIC_", "GATSBY_"} {
		if strings.HasPrefix(n.full, prefix) {
			return true
		}
	}
	return false
}
