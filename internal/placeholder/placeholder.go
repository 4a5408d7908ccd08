// Package placeholder makes what an agent holds instead of a key: a text of the
// same form, worth nothing, recognisable on any machine by the mark that
// catalog.Mark puts into it.
package placeholder

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"postern/internal/catalog"
	"postern/internal/fail"
)

// Mint makes a placeholder for real, a value of kind. It has the form of real:
// prefix, alphabet and length, and the parts that are no secret (a bot's number,
// user and host of an address). All the rest comes from random, at least 128 bits
// where the form has room beside the mark; TestRoom lists where it has not.
//
// Kinds that have no sensible placeholder (they never leave the machine by a
// request: PEM and SSH keys, signing secrets; or they are documents) give
// fail.Invalid with the reason. A list of several keys is the caller's to split
// (catalog.Split), one placeholder for each.
func Mint(kind *catalog.Kind, real []byte, random io.Reader) (string, error) {
	if why := kind.Placeholder.None; why != "" {
		return "", fail.New(fail.Invalid, "P-E085", "there is no placeholder for a %s", kind.Title).Because("%s", why)
	}
	for range 64 {
		d, err := draw(kind, string(real), random)
		if err != nil {
			return "", fmt.Errorf("minting a placeholder of kind %s: %w", kind.ID, err)
		}
		if !acceptable(kind, d) {
			continue // about once in 62^6 for a checksum, once in 2^40 for an echo
		}
		return d.text, nil
	}
	return "", fmt.Errorf("minting a placeholder of kind %s: %w", kind.ID, errors.New("the source of randomness repeats itself"))
}

// Is says whether text is a placeholder as a whole, without any store: marked
// from its first character to its last, or an address whose password or last path
// segment is.
func Is(text string) bool { return catalog.Marked(text) }

// Find returns where placeholders stand in b: start and end offsets, rising, not
// overlapping. Of an address only the marked part is found; Core gives it.
func Find(b []byte) [][2]int { return catalog.FindMarked(b) }

// Core is the part of a placeholder that travels in requests: of an address its
// password or last path segment, otherwise all of it. It is empty for what is no
// placeholder.
func Core(text string) string {
	core, _ := catalog.MarkedCore(text)
	return core
}

// acceptable says whether a drawn text can be given out: recognisable, its
// checksum wrong, and nothing of the real value in it.
func acceptable(kind *catalog.Kind, d drawn) bool {
	if !Is(d.text) {
		return false
	}
	if kind.Placeholder.Checksum == "crc32-base62" {
		body := d.text[strings.IndexByte(d.text, '_')+1:]
		if catalog.CRC62(body[:len(body)-6]) == body[len(body)-6:] {
			return false
		}
	}
	for _, s := range d.secrets {
		for i := 0; i+echo <= len(s); i++ {
			for _, run := range d.runs {
				if strings.Contains(run, s[i:i+echo]) {
					return false
				}
			}
		}
	}
	return true
}

// echo is how many characters in a row of a real value no placeholder has.
const echo = 8
