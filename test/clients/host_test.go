package clients

import (
	"strconv"
	"strings"
	"testing"
)

func TestStartUpFilesThatAppearAreNamed(t *testing.T) {
	w := newWorld(t)
	out, _ := w.exec("run", "--", "sh", "-c", "echo x > $HOME/.bash_profile")
	if !strings.Contains(out, "a start-up file has appeared") || !strings.Contains(out, ".bash_profile") {
		t.Errorf("it was not said:\n%s", out)
	}
	found, _ := w.exec("ledger", "find", "--kind", "file.changed", "--json")
	if !strings.Contains(found, "a start-up file appeared") {
		t.Errorf("it is not on record:\n%s", found)
	}
}

// A process of the same user, outside of any sandbox, can neither read the
// daemon's memory nor its environment.
func TestTheDaemonCannotBeReadByItsUser(t *testing.T) {
	w := newWorld(t)
	pid := w.serve()
	out, err := w.as("sh", "-c", `for f in mem environ maps; do head -c 1 /proc/$1/$f >/dev/null 2>&1 && echo "$f was read"; done; echo done`, "sh", strconv.Itoa(pid)).CombinedOutput()
	if err != nil || string(out) != "done\n" {
		t.Errorf("%v\n%s", err, out)
	}
}
