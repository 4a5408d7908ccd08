package config

import (
	"reflect"
	"strings"

	"postern/internal/fail"
	"postern/internal/strictyaml"
)

// Set gives the text of a configuration file back with one setting changed, as
// in Set(data, "safe", "root", "keyfile"); comments, order and every other byte
// stay. A file written in a way that cannot be edited line by line is refused
// with the lines to type.
func Set(data []byte, section, key string, value any) ([]byte, error) {
	scalar, err := strictyaml.Encode(value)
	if err != nil {
		return nil, err
	}
	text := strings.TrimSpace(string(scalar))
	want, err := sections(data)
	if err != nil {
		return nil, err
	}
	edited := setLine(string(data), section, key, text)
	if want[section] == nil {
		want[section] = map[string]any{}
	}
	var decoded any
	if err := strictyaml.Decode("", scalar, &decoded); err != nil {
		return nil, err
	}
	want[section][key] = decoded
	got, err := sections([]byte(edited))
	if err == nil {
		err = strictyaml.Decode("config.yaml", []byte(edited), &Config{})
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		return nil, fail.New(fail.Conflict, "P-E026", "could not change %s.%s in config.yaml", section, key).
			Because("the file is written in a way that cannot be edited line by line").
			Hint("write it yourself: %s: {%s: %s}", section, key, text)
	}
	return []byte(edited), nil
}

func sections(data []byte) (map[string]map[string]any, error) {
	all := map[string]map[string]any{}
	if err := strictyaml.Decode("config.yaml", data, &all); err != nil {
		return nil, err
	}
	if all == nil { // a file of comments
		all = map[string]map[string]any{}
	}
	return all, nil
}

// setLine writes "key: value" into section's block, which it makes at the end
// of text where there is none.
func setLine(text, section, key, value string) string {
	ending := "\n"
	if strings.Contains(text, "\r\n") {
		ending = "\r\n"
	}
	lines := strings.SplitAfter(text, "\n")
	start := -1
	for i, line := range lines {
		if name, _, found := cutLine(line); found && name == section && line[0] != ' ' {
			start = i
			break
		}
	}
	if start < 0 {
		if text != "" && !strings.HasSuffix(text, "\n") {
			text += ending
		}
		return text + section + ":" + ending + "  " + key + ": " + value + ending
	}
	if !strings.HasSuffix(lines[start], "\n") {
		lines[start] += ending
	}
	indent := ""
	for i := start + 1; i < len(lines); i++ {
		trimmed := strings.TrimLeft(lines[i], " ")
		if strings.TrimSpace(trimmed) == "" || trimmed[0] == '#' {
			continue
		}
		at := lines[i][:len(lines[i])-len(trimmed)]
		if at == "" {
			break
		}
		if indent == "" {
			indent = at
		}
		if name, rest, found := cutLine(lines[i]); found && at == indent && name == key {
			lines[i] = strings.TrimSuffix(lines[i], rest) + " " + value + remark(rest)
			return strings.Join(lines, "")
		}
	}
	if indent == "" {
		indent = "  "
	}
	lines[start] += indent + key + ": " + value + ending
	return strings.Join(lines, "")
}

// cutLine is cutKey for a whole line; rest includes the end of the line.
func cutLine(line string) (key, rest string, found bool) {
	trimmed := strings.TrimLeft(line, " ")
	if strings.TrimSpace(trimmed) == "" || trimmed[0] == '#' {
		return "", "", false
	}
	return cutKey(trimmed)
}

// remark is the comment behind a value, with the space before it and the end of
// the line.
func remark(rest string) string {
	body := strings.TrimRight(rest, "\r\n")
	end := rest[len(body):]
	if i := strings.Index(body, " #"); i >= 0 {
		return body[len(strings.TrimRight(body[:i], " ")):] + end
	}
	return end
}
