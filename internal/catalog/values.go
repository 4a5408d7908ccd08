package catalog

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"math"
	"slices"
	"strings"
)

// further runs the kind's check in Go over a value whose pattern matched. A
// checksum that is wrong makes the find less sure, a form that is wrong none.
func (k *Kind) further(value, confidence string) (string, bool) {
	switch k.Detect.Check {
	case "snowflake":
		return confidence, snowflake(value)
	case "jwt":
		return confidence, jsonToken(value)
	case "service-account":
		return confidence, serviceAccount(value)
	case "crc32-base62":
		if !checksumHolds(value) {
			return Medium, true
		}
	case "password":
		return urlPassword(value)
	}
	return confidence, true
}

// checksumHolds says whether the last six characters of a token of GitHub or npm
// are the checksum of the characters between its prefix and them.
func checksumHolds(value string) bool {
	_, body, found := strings.Cut(value, "_")
	if !found || len(body) < 7 {
		return false
	}
	return CRC62(body[:len(body)-6]) == body[len(body)-6:]
}

// snowflake says whether the first part of a Discord token is the base64 form of
// a number, the bot's id.
func snowflake(value string) bool {
	first, _, _ := strings.Cut(value, ".")
	id, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(first, "="))
	return err == nil && len(id) >= 15 && len(id) <= 20 && len(bytes.Trim(id, digit)) == 0
}

func jsonToken(value string) bool {
	var header struct {
		Alg string `json:"alg"`
	}
	return tokenPart(value, 0, &header) && header.Alg != "" && !anonymous(value)
}

// anonymous says whether the value is a JSON web token that stands for everybody:
// the one that Supabase hands to browsers.
func anonymous(value string) bool {
	var claims struct {
		Role string `json:"role"`
	}
	return strings.HasPrefix(value, "eyJ") && tokenPart(value, 1, &claims) && claims.Role == "anon"
}

// tokenPart decodes part i of a JSON web token.
func tokenPart(value string, i int, into any) bool {
	parts := strings.Split(value, ".")
	if i >= len(parts) {
		return false
	}
	data, err := base64.RawURLEncoding.DecodeString(parts[i])
	return err == nil && json.Unmarshal(data, into) == nil
}

func serviceAccount(value string) bool {
	var s struct {
		Type string `json:"type"`
		Key  string `json:"private_key"`
	}
	return json.Unmarshal([]byte(value), &s) == nil && s.Type == "service_account" && strings.Contains(s.Key, "PRIVATE KEY")
}

// urlPassword judges a database address by its password.
func urlPassword(value string) (string, bool) {
	start, end, ok := AddressPart(value, "password")
	if !ok {
		return "", false
	}
	password := value[start:end]
	if reference(password) || strings.HasPrefix(password, "[") && strings.HasSuffix(password, "]") {
		return "", false
	}
	if slices.Contains([]string{"postgres", "root", "password", "pass", "mysql", "user", "admin", "secret", "test", "example"}, strings.ToLower(password)) {
		return Low, true
	}
	if sample(password) {
		return "", false
	}
	return High, true
}

// AddressPart finds the secret part of an address: its password, or its last
// path segment. A password may hold unescaped "@" and "/"; then the last "@"
// before a "?" ends it, so that rather too much than too little is taken.
func AddressPart(value, part string) (start, end int, ok bool) {
	at := strings.Index(value, "://")
	if at <= 0 {
		return 0, 0, false
	}
	at += len("://")
	limit := len(value)
	if i := strings.IndexByte(value[at:], '?'); i >= 0 && (part == "last" || strings.Contains(value[at:at+i], "@")) {
		limit = at + i
	}
	if part == "last" {
		end = len(strings.TrimRight(value[:limit], "/"))
		start = strings.LastIndexByte(value[:end], '/') + 1
		return start, end, start > at && start < end
	}
	end = strings.LastIndexByte(value[:limit], '@')
	if end < at {
		return 0, 0, false
	}
	colon := strings.IndexByte(value[at:end], ':')
	start = at + colon + 1
	return start, end, colon >= 0 && start < end
}

// SecretPart is the part of a real value that travels in requests and is secret:
// of an address its password or last path segment, otherwise all of it.
func (k *Kind) SecretPart(value string) string {
	if k.Placeholder.Part == "" {
		return value
	}
	if start, end, ok := AddressPart(value, k.Placeholder.Part); ok {
		return value[start:end]
	}
	return value
}

// reference says whether the value only points to a secret, or is a template.
func reference(value string) bool {
	for _, pair := range [][2]string{{"${", "}"}, {"{{", "}}"}, {"<", ">"}, {"$(", ")"}, {"%", "%"}, {"[", "]"}} {
		if strings.HasPrefix(value, pair[0]) && strings.HasSuffix(value, pair[1]) {
			return true
		}
	}
	for _, scheme := range []string{"op://", "vault://", "vault:", "aws-sm://", "gcp-sm://", "azure-kv://", "doppler://", "secretref:", "env:", "file://", "ref+"} {
		if strings.HasPrefix(value, scheme) {
			return true
		}
	}
	if strings.HasPrefix(value, "$") && strings.Trim(value[1:], upper+digit+"_") == "" {
		return true
	}
	return false
}

// sample says whether the value is one that documentation shows: a sentence like
// your-key-here, or a run of the same few characters.
func sample(value string) bool {
	if strings.Contains(value, "EXAMPLE") || strings.Contains(value, "REDACTED") || strings.Contains(value, "...") ||
		strings.Contains(value, "***") || strings.Contains(value, "<") {
		return true
	}
	if len(value) >= 16 && distinct(value) < 6 {
		return true
	}
	low := strings.ToLower(value)
	if strings.Contains(low, "xxxxxxxx") || strings.Contains(low, "0123456789abcdef") || strings.Contains(low, "abcdefghijkl") {
		return true
	}
	return sentence(low)
}

// sentence says whether lower-case words make up the value, one of them a word
// that templates use; two, where digits stand in some (your-gpt4-key-here).
func sentence(low string) bool {
	words := strings.FieldsFunc(low, func(r rune) bool { return strings.ContainsRune("-_. :/", r) })
	hits, need := 0, 1
	for _, w := range words {
		if digits := len(w) - len(strings.Trim(w, digit)); digits > 0 && digits <= 2 {
			w, need = strings.Trim(w, digit), 2
		}
		if strings.Trim(w, lower) != "" || len(w) > 14 {
			return false
		}
		if slices.Contains(templateWords(), w) {
			hits++
		}
	}
	return hits >= need
}

func templateWords() []string {
	return []string{"your", "my", "here", "key", "token", "secret", "password", "api", "apikey", "example", "sample", "changeme",
		"change", "me", "replace", "insert", "enter", "put", "dummy", "fake", "placeholder", "todo", "tbd", "none", "null", "nil",
		"undefined", "default", "test", "testing", "mock", "xxx", "foo", "bar", "redacted", "hidden", "value", "empty",
		"unset", "disabled", "enabled", "true", "false", "yes", "no", "on", "off"}
}

func distinct(value string) int {
	var seen [256]bool
	n := 0
	for i := range len(value) {
		if !seen[value[i]] {
			seen[value[i]] = true
			n++
		}
	}
	return n
}

// looksSecret says whether a value of no known kind is worth keeping. A key must
// look random; a password need only not be a template, as people choose them.
func looksSecret(name varName, value string) bool {
	if sample(value) || publicValue(value) || strings.ContainsAny(value, " \t\n") && !name.password() {
		return false
	}
	if name.password() {
		return len(value) >= 8 && strings.Trim(value, lower) != "" && strings.Trim(value, digit+".") != ""
	}
	if len(value) < 12 || strings.Trim(value, digit+".:-") == "" {
		return false
	}
	return random(value)
}

// publicValue says whether the value is one of the shapes that are public by
// design, or no secret at all: an address, a path, a mail address, a public key.
func publicValue(value string) bool {
	for _, prefix := range []string{"pk_live_", "pk_test_", "sb_publishable_", "phc_", "ssh-rsa ", "ssh-ed25519 ", "age1", "-----BEGIN PUBLIC KEY",
		"-----BEGIN CERTIFICATE", "/", "./", "../", "~/", "http://localhost", "arn:", "projects/"} {
		if strings.HasPrefix(value, prefix) {
			return true
		}
	}
	if strings.Contains(value, "://") {
		_, ok := urlPassword(value)
		return !ok
	}
	return anonymous(value)
}

// random says whether characters look drawn rather than written: enough
// different ones for the length, and letters mixed with digits or cases more
// often than words do.
func random(value string) bool {
	count := [256]int{}
	changes, digits, letters := 0, 0, 0
	for i := range len(value) {
		count[value[i]]++
		if i > 0 && class(value[i]) != class(value[i-1]) {
			changes++
		}
		switch class(value[i]) {
		case 'd':
			digits++
		case 'l', 'u':
			letters++
		}
	}
	entropy := 0.0
	for _, n := range count {
		if n > 0 {
			p := float64(n) / float64(len(value))
			entropy -= p * math.Log2(p)
		}
	}
	reachable := math.Log2(float64(min(len(value), 62)))
	if entropy < 2.8 || entropy < 0.6*reachable {
		return false
	}
	if digits == 0 {
		return changes*3 >= len(value) && letters > 0
	}
	return digits+letters > 0 && changes*6 >= len(value)
}

func class(b byte) byte {
	switch {
	case b >= '0' && b <= '9':
		return 'd'
	case b >= 'a' && b <= 'z':
		return 'l'
	case b >= 'A' && b <= 'Z':
		return 'u'
	}
	return 'o'
}
