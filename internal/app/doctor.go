package app

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"postern/internal/ca"
	"postern/internal/config"
	"postern/internal/run"
)

// State is the outcome of a check.
type State string

// The outcomes. NotChecked never counts as Passed.
const (
	Passed     State = "passed"
	Warned     State = "warning"
	Failed     State = "failed"
	NotChecked State = "not checked"
)

// Probe is one check of the doctor.
type Probe struct {
	Name  string `json:"name"`
	State State  `json:"state"`
	Text  string `json:"text"`
	Next  string `json:"next,omitempty"`
}

// Doctor looks at the machine, then at the installation.
func Doctor(ctx context.Context, o Options) []Probe {
	probes := machineProbes(o)
	paths, err := config.Locate(o.Getenv)
	if err != nil {
		return append(probes, failed("places", err, ""))
	}
	probes = append(probes, placeProbes(paths)...)
	exists, err := Exists(o)
	if err != nil {
		return append(probes, failed("safe", err, "postern help P-E013"))
	}
	if !exists {
		return append(probes, Probe{Name: "safe", State: Warned, Text: "nothing is set up yet", Next: "postern setup"})
	}
	a, err := OpenLocked(ctx, o)
	if err != nil {
		return append(probes, failed("installation", err, "postern policy check"))
	}
	defer a.Close()
	return append(probes, a.installationProbes(ctx)...)
}

func passed(name, format string, args ...any) Probe {
	return Probe{Name: name, State: Passed, Text: fmt.Sprintf(format, args...)}
}

func failed(name string, err error, next string) Probe {
	return Probe{Name: name, State: Failed, Text: err.Error(), Next: next}
}

func machineProbes(o Options) []Probe {
	var probes []Probe
	if err := run.Probe(); err != nil {
		probes = append(probes, Probe{Name: "enforced mode", State: Failed, Text: err.Error(), Next: "postern help P-E120"})
	} else {
		probes = append(probes, passed("enforced mode", "user and network namespaces work"))
	}
	probes = append(probes, rootProbe(), memoryProbe(), clockProbe(o))
	if _, err := ca.SystemRoots(); err != nil {
		probes = append(probes, Probe{Name: "public roots", State: Failed, Text: err.Error(), Next: "apt install ca-certificates"})
	} else {
		probes = append(probes, passed("public roots", "the distribution's bundle is there"))
	}
	if _, err := exec.LookPath("systemd-creds"); err == nil {
		probes = append(probes, passed("systemd credential", "systemd-creds is installed; setup takes it where it works"))
	} else {
		probes = append(probes, passed("systemd credential", "systemd-creds is not installed; a key file or a passphrase does"))
	}
	for _, client := range []string{"node", "python3", "curl", "git"} {
		if path, err := exec.LookPath(client); err == nil {
			probes = append(probes, passed("client "+client, "%s is given Postern's certificate by `run`", path))
		}
	}
	return probes
}

func rootProbe() Probe {
	if os.Geteuid() != 0 {
		return passed("user", "an ordinary user, number %d", os.Geteuid())
	}
	return passed("user", "root: the agent runs as the owner of its directory")
}

func memoryProbe() Probe {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit); err != nil {
		return Probe{Name: "locked memory", State: NotChecked, Text: err.Error()}
	}
	if limit.Cur < 64<<10 {
		return Probe{Name: "locked memory", State: Warned, Text: "less than 64 KiB may be locked: keys could reach swap", Next: "ulimit -l 65536"}
	}
	return passed("locked memory", "keys can be kept out of swap")
}

func clockProbe(o Options) Probe {
	if now := o.Now(); now.Year() < 2026 {
		return Probe{Name: "clock", State: Failed, Text: "the clock says " + now.Format(time.DateOnly) + ": certificates will not hold", Next: "timedatectl set-ntp true"}
	}
	return passed("clock", "plausible")
}

func placeProbes(paths config.Paths) []Probe {
	var probes []Probe
	for _, dir := range slices.Compact([]string{paths.State, paths.Config}) {
		info, err := os.Stat(dir)
		if err != nil {
			continue
		}
		if info.Mode().Perm()&0o077 != 0 {
			probes = append(probes, Probe{Name: "mode of " + filepath.Base(dir), State: Warned, Text: dir + " can be listed by other users", Next: "chmod 700 " + dir})
			continue
		}
		probes = append(probes, passed("mode of "+filepath.Base(dir), "closed to other users"))
	}
	return probes
}

func (a *App) installationProbes(ctx context.Context) []Probe {
	probes := []Probe{passed("safe", "opens, root key by %s", a.RootWords())}
	if _, err := a.Policy.Status(); err != nil {
		probes = append(probes, failed("policy", err, "postern policy check"))
	} else {
		probes = append(probes, passed("policy", "policy.yaml is in order"))
	}
	if report, err := LedgerVerify(ctx, a.o); err != nil {
		probes = append(probes, Probe{Name: "ledger", State: NotChecked, Text: err.Error(), Next: "postern ledger verify"})
	} else if !report.OK {
		probes = append(probes, Probe{Name: "ledger", State: Failed, Text: report.Problem, Next: "postern ledger verify"})
	} else {
		probes = append(probes, passed("ledger", "%d records, all of them hold", report.Records))
	}
	if d := a.daemonStatus(ctx); d.Running {
		probes = append(probes, passed("daemon", "answers, safe %s", d.Safe))
	} else {
		probes = append(probes, passed("daemon", "not running; `run` serves itself"))
	}
	for from, to := range a.Config.Upstream.Dial {
		conn, err := net.DialTimeout("tcp", to, 2*time.Second)
		if err != nil {
			probes = append(probes, Probe{Name: "dial " + from, State: Failed, Text: "nothing answers at " + to, Next: "edit upstream.dial in " + a.Paths.ConfigFile()})
			continue
		}
		_ = conn.Close()
		probes = append(probes, Probe{Name: "dial " + from, State: Warned, Text: "goes to " + to + ", past the address check"})
	}
	return append(probes, a.agentProbes(ctx)...)
}

func (a *App) agentProbes(ctx context.Context) []Probe {
	details, err := a.AgentDetails(ctx)
	if err != nil {
		return []Probe{failed("agents", err, "")}
	}
	var probes []Probe
	for _, d := range details {
		if d.Agent.Directory == "" {
			continue
		}
		name := "agent " + d.Agent.Name
		if _, err := os.Stat(d.Agent.Directory); err != nil {
			probes = append(probes, Probe{Name: name, State: Failed, Text: "its directory is gone: " + d.Agent.Directory, Next: "postern agent rm " + d.Agent.Name})
			continue
		}
		probes = append(probes, passed(name, "%d secrets, egress %s", len(d.Placeholders), d.Egress))
	}
	return probes
}
