package fail

import (
	"embed"
	"strings"
)

//go:embed codes/*.txt
var codeFiles embed.FS

// Help is the help page of an error id: a title line, then text. The pages
// stand in codes/*.txt, one file a room, each page headed by its id.
func Help(id string) (string, bool) {
	pages, err := Pages()
	if err != nil {
		return "", false
	}
	page, found := pages[id]
	return page, found
}

// Pages are all help pages by id.
func Pages() (map[string]string, error) {
	entries, err := codeFiles.ReadDir("codes")
	if err != nil {
		return nil, err
	}
	pages := map[string]string{}
	for _, entry := range entries {
		text, err := codeFiles.ReadFile("codes/" + entry.Name())
		if err != nil {
			return nil, err
		}
		id := ""
		for line := range strings.SplitSeq(string(text), "\n") {
			if strings.HasPrefix(line, "P-E") {
				id, line, _ = strings.Cut(line, " ")
			}
			if id != "" {
				pages[id] += line + "\n"
			}
		}
	}
	for id, page := range pages {
		pages[id] = strings.TrimSpace(page) + "\n"
	}
	return pages, nil
}
