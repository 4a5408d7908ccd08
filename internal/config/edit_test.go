package config

import (
	"strings"
	"testing"

	"postern/internal/fail"
)

func TestSetChangesOneLine(t *testing.T) {
	tests := []struct{ name, in, want string }{
		{"empty", "", "safe:\n  root: keyfile\n"},
		{"only a comment", "# c", "# c\nsafe:\n  root: keyfile\n"},
		{"other section", "upstream:\n  ca_file: x # c\n", "upstream:\n  ca_file: x # c\nsafe:\n  root: keyfile\n"},
		{"replaced", "safe:   # s\n  # r\n  root:   passphrase   # why\n  key_file: k\nrun: {}\n", "safe:   # s\n  # r\n  root: keyfile   # why\n  key_file: k\nrun: {}\n"},
		{"added", "safe:\n    key_file: k\nrun:\n  mode: auto\n", "safe:\n    root: keyfile\n    key_file: k\nrun:\n  mode: auto\n"},
		{"empty section", "safe:\nrun:\n  mode: auto\n", "safe:\n  root: keyfile\nrun:\n  mode: auto\n"},
		{"quoted", "\"safe\":\n  'root': \"passphrase\"\n", "\"safe\":\n  'root': keyfile\n"},
		{"CRLF", "safe:\r\n  root: systemd\r\n", "safe:\r\n  root: keyfile\r\n"},
		{"no newline", "safe:\n  root: systemd", "safe:\n  root: keyfile"},
		{"same key elsewhere", "run:\n  mode: auto\nsafe:\n  key_file: root\nledger:\n  reserve_mb: 9\n", "run:\n  mode: auto\nsafe:\n  root: keyfile\n  key_file: root\nledger:\n  reserve_mb: 9\n"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := Set([]byte(test.in), "safe", "root", "keyfile")
			if err != nil || string(got) != test.want {
				t.Errorf("got %q, %v\nwant %q", got, err, test.want)
			}
		})
	}
}

func TestSetRefusesWhatItCannotEdit(t *testing.T) {
	for _, in := range []string{
		"safe: {root: systemd}\n",
		"safe: &a\n  root: |\n    systemd\n",
		"upstream: {}\n...\n",
	} {
		got, err := Set([]byte(in), "safe", "root", "keyfile")
		if !fail.Is(err, fail.Conflict) {
			t.Errorf("%q: got %q, %v", in, got, err)
		}
	}
	if _, err := Set([]byte("safe: ["), "safe", "root", "keyfile"); err == nil {
		t.Error("a broken file was edited")
	}
}

func TestSetQuotesWhatNeedsIt(t *testing.T) {
	got, err := Set(nil, "safe", "key_file", "/a b/c: #d")
	if err != nil {
		t.Fatal(err)
	}
	c, err := Parse(Paths{Config: "/c"}, got)
	if err != nil || c.Safe.KeyFile != "/a b/c: #d" {
		t.Errorf("got %q, read back as %q, %v", got, c.Safe.KeyFile, err)
	}
	if got, err := Set(nil, "ledger", "reserve_mb", 16); err != nil || !strings.Contains(string(got), "reserve_mb: 16\n") {
		t.Errorf("got %q, %v", got, err)
	}
}
