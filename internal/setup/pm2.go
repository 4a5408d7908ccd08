package setup

import (
	"bytes"
	_ "embed"
	"errors"
	"path/filepath"
	"strconv"
	"strings"
)

// pm2Name is the ecosystem file that starts the programs of the project's own
// one by `postern run`.
const pm2Name = "postern.config.cjs"

//go:embed pm2.cjs
var pm2Template string

// planPM2 makes an ecosystem file beside the one that the project has. That one
// is a program, so that it is not edited but loaded by ours.
func planPM2(p *Plan) (TextPlan, bool, error) {
	t := TextPlan{Name: pm2Name}
	original := ""
	for _, o := range p.Others {
		// A module of the other kind cannot be loaded by every Node.
		if o.What == "pm2" && filepath.Ext(o.Name) != ".mjs" && original == "" {
			original = o.Name
		}
	}
	if original == "" || len(p.found.Files) == 0 {
		return t, false, nil
	}
	t, err := readText(p.Dir, pm2Name)
	if err != nil {
		return t, false, err
	}
	title, _, _ := strings.Cut(pm2Template, ".")
	if !t.New && !bytes.HasPrefix(t.was, []byte(title)) {
		return t, false, errors.New("it is there already, and is not Postern's")
	}
	text := strings.Replace(pm2Template, "ORIGINAL", original, 1)
	text = strings.Replace(text, "ORIGINAL", strconv.Quote("./"+original), 1)
	t.data = []byte(strings.Replace(text, "AGENT", strconv.Quote(p.Agent), 1))
	t.Lines = bytes.Count(t.data, []byte("\n"))
	return t, !bytes.Equal(t.was, t.data), nil
}
