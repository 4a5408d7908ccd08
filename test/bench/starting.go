package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

const runs = 20

// starting measures start-up: of the binary, of `run` and of the daemon.
func (r *report) starting(ctx context.Context, dir, binary string) error {
	room := filepath.Join(dir, "starting")
	if err := errors.Join(os.Mkdir(room, 0o755), os.Chmod(room, 0o755)); err != nil {
		return err
	}
	info, err := os.Stat(binary)
	if err != nil {
		return err
	}
	r.size = float64(info.Size()) / 1e6
	if r.initSum, r.initMost, r.initName, err = inits(binary); err != nil {
		return err
	}
	u, err := newUpstream(room)
	if err != nil {
		return err
	}
	alone, err := install(room, binary, "alone", 4, u)
	if err != nil {
		return err
	}
	served, err := install(room, binary, "served", 4, u)
	if err != nil {
		return err
	}
	defer served.stop()
	if err := served.serve(ctx, false); err != nil {
		return err
	}
	time.Sleep(2 * time.Second) // idle is what a daemon is after it has started
	if r.idle, err = memory(served.daemon.pid(), "VmRSS"); err != nil {
		return err
	}
	if r.idlePeak, err = memory(served.daemon.pid(), "VmHWM"); err != nil {
		return err
	}
	for r.series = 1; ; r.series++ {
		if err := r.commands(alone, served); err != nil {
			return err
		}
		if r.series == maxSeries || r.runServed <= barServed && r.runAlone <= barAlone && max(r.runServedMost, r.runAloneMost) <= barHard {
			break
		}
	}
	fmt.Fprintf(os.Stderr, "start-up measured (%.0f s)\n", time.Since(r.begun).Seconds())
	return nil
}

// maxSeries is how often the commands are timed where a bar was missed: what else
// runs on the machine only adds, so the last series counts and is named.
const maxSeries = 3

// commands times the commands in turn.
func (r *report) commands(alone, served *product) error {
	plain := func(p *product) *exec.Cmd { c := p.command(); c.Path, c.Args = "/bin/true", []string{"true"}; return c }
	took := [4][]float64{}
	for n := range runs + 2 {
		for i, cmd := range []*exec.Cmd{plain(alone), alone.command("version"), alone.command("run", "--", "true"), served.command("run", "--", "true")} {
			start := time.Now()
			if out, err := cmd.CombinedOutput(); err != nil {
				return fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, out)
			}
			if n >= 2 {
				took[i] = append(took[i], float64(time.Since(start).Microseconds())/1e3)
			}
		}
	}
	r.plain = median(took[0])
	r.version = median(took[1]) - r.plain
	r.runAlone = median(took[2]) - r.plain
	r.runServed = median(took[3]) - r.plain
	r.runAloneMost, r.runServedMost = most(took[2])-r.plain, most(took[3])-r.plain
	return nil
}

// inits are the milliseconds of package initialisation: the sum, the largest and
// whose that is. It is the least of five runs, since a neighbour only adds.
func inits(binary string) (sum, largest float64, name string, err error) {
	least := map[string]float64{}
	sum = -1
	for range 5 {
		cmd := exec.Command(binary, "version")
		cmd.Env = append(os.Environ(), "GODEBUG=inittrace=1")
		out, err := cmd.CombinedOutput()
		if err != nil {
			return 0, 0, "", fmt.Errorf("postern version: %w", err)
		}
		total := 0.0
		for line := range strings.Lines(string(out)) {
			f := strings.Fields(line) // init PACKAGE @1.9 ms, 0.22 ms clock, …
			if len(f) < 6 || f[0] != "init" {
				continue
			}
			ms, err := strconv.ParseFloat(f[4], 64)
			if err != nil {
				return 0, 0, "", fmt.Errorf("reading %q: %w", line, err)
			}
			total += ms
			if was, seen := least[f[1]]; !seen || ms < was {
				least[f[1]] = ms
			}
		}
		if sum < 0 || total < sum {
			sum = total
		}
	}
	for one, ms := range least {
		if ms > largest {
			largest, name = ms, one
		}
	}
	return sum, largest, name, nil
}

// affinity lets every thread of this process run on the CPUs from first to
// before n; what it starts later inherits that.
func affinity(first, n int) {
	mask := [16]uint64{}
	for cpu := first; cpu < n && cpu < len(mask)*64; cpu++ {
		mask[cpu/64] |= 1 << (cpu % 64)
	}
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return
	}
	for _, t := range threads {
		if id, err := strconv.Atoi(t.Name()); err == nil {
			_, _, _ = syscall.RawSyscall(syscall.SYS_SCHED_SETAFFINITY, uintptr(id), unsafe.Sizeof(mask), uintptr(unsafe.Pointer(&mask)))
		}
	}
}
