package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// The bars of the product. A ratio holds across machines; the rest is generous.
const (
	barServed  = 30.0  // ms that `run -- true` adds with the daemon
	barAlone   = 80.0  // ms, with a broker and a key file of its own
	barHard    = 150.0 // ms, never
	barIdle    = 40.0  // MB
	barInit    = 15.0  // ms
	barOneInit = 2.0   // ms
	barNginx   = 3.0   // × its CPU for a JSON call at 8 connections
	barConnect = 300.0 // µs to connect and have a byte back
	barRate    = 2.0   // GB a second and core
)

// report is everything that was measured.
type report struct {
	begun             time.Time
	took              time.Duration
	versions, skipped []string

	size                        float64 // MB
	initSum, initMost           float64 // ms
	initName                    string
	idle, idlePeak              float64 // MB
	plain, version              float64 // ms; version is what it takes beyond plain
	runAlone, runServed         float64 // ms beyond plain
	runAloneMost, runServedMost float64
	series                      int // of the commands; more than 1 where a bar was missed first

	tables                 []*table
	loaded, peak           float64 // MB
	connect, directConnect float64 // µs
	rate, wallRate         float64 // GB/s per core of the broker, and by the clock
}

type table struct {
	work
	rows []*row
}

type row struct {
	target
	cpu, p50     []float64
	right, wrong int
	problem      string
}

func newTable(w work, targets []target) *table {
	t := &table{work: w}
	for _, one := range targets {
		t.rows = append(t.rows, &row{target: one})
	}
	return t
}

func (r *row) add(s sample) {
	if r.right += s.right; s.right > 0 {
		r.cpu, r.p50 = append(r.cpu, s.cpu), append(r.p50, s.p50)
	}
}

func (t *table) named(name string) *row {
	for _, r := range t.rows {
		if r.Name == name {
			return r
		}
	}
	return nil
}

func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	v = slices.Sorted(slices.Values(v))
	if n := len(v); n%2 == 0 {
		return (v[n/2-1] + v[n/2]) / 2
	}
	return v[len(v)/2]
}

func most(v []float64) float64 { return slices.Max(v) }

// text is the results as a part of a page.
func (r *report) text() string {
	var b strings.Builder
	p := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	p("%s, %s, %d CPUs, Linux %s, %s; took %.0f s.", r.begun.UTC().Format("2 January 2006, 15:04 UTC"), processor(), runtime.NumCPU(), kernel(), runtime.Version(), r.took.Seconds())
	p("Peers: %s.%s", strings.Join(r.versions, ", "), skipText(r.skipped))
	p("\n### Start-up and memory\n")
	p("| What | Measured | Bar |\n| --- | --- | --- |")
	p("| `postern run -- true` adds, daemon up (median of %d, largest) | %.1f ms, %.1f | ≤ %.0f |", runs, r.runServed, r.runServedMost, barServed)
	p("| `postern run -- true` adds, own broker and key file | %.1f ms, %.1f | ≤ %.0f, never over %.0f |", r.runAlone, r.runAloneMost, barAlone, barHard)
	p("| `postern version` adds | %.1f ms | |", r.version)
	if r.series > 1 {
		p("| series of these that were needed, since something else ran beside | %d | |", r.series)
	}
	p("| `true` by itself, for scale | %.1f ms | |", r.plain)
	p("| package initialisation, sum | %.2f ms | ≤ %.0f |", r.initSum, barInit)
	p("| package initialisation, largest: %s | %.2f ms | ≤ %.0f |", r.initName, r.initMost, barOneInit)
	p("| idle daemon, resident (peak) | %.1f MB (%.1f) | ≤ %.0f |", r.idle, r.idlePeak, barIdle)
	p("| daemon after the traffic below, resident (peak) | %.1f MB (%.1f) | |", r.loaded, r.peak)
	p("| size of the binary | %.1f MB | |", r.size)
	p("\n### Connections inside `run`\n")
	p("| What | Measured | Bar |\n| --- | --- | --- |")
	p("| connect and first byte back, passed through (median) | %.0f µs | ≤ %.0f |", r.connect, barConnect)
	p("| the same without Postern, for scale | %.0f µs | |", r.directConnect)
	p("| passed through, per second of the broker's CPU | %s | ≥ %.0f GB |", rateText(r.rate), barRate)
	p("| the same by the clock, client and upstream on one CPU | %.1f GB/s | |", r.wallRate)
	for _, t := range r.tables {
		t.text(p)
	}
	return b.String()
}

func rateText(rate float64) string { return fmt.Sprintf("%.1f GB", rate) }

func (t *table) text(p func(string, ...any)) {
	p("\n### %s\n", t.Title)
	p("| Way | CPU µs a call | × nginx | p50 µs | correct | wrong |\n| --- | --- | --- | --- | --- | --- |")
	reference := 0.0
	if r := t.named("nginx"); r != nil {
		reference = median(r.cpu)
	}
	for _, r := range t.rows {
		cpu, ratio := "–", "–"
		if r.pid != 0 {
			cpu = fmt.Sprintf("%.1f", median(r.cpu))
			if reference > 0 {
				ratio = fmt.Sprintf("%.2f", median(r.cpu)/reference)
			}
		}
		p("| %s | %s | %s | %.0f | %d | %d |", r.Name, cpu, ratio, median(r.p50), r.right, r.wrong)
	}
	for _, r := range t.rows {
		if r.problem != "" {
			p("\n%s: %s", r.Name, r.problem)
		}
	}
}

func skipText(skipped []string) string {
	if len(skipped) == 0 {
		return ""
	}
	return " Not measured: " + strings.Join(skipped, "; ") + "."
}

// judge is an error for each bar that was missed.
func (r *report) judge() error {
	var missed []error
	most := func(what string, have, bar float64, unit string) {
		if have > bar {
			missed = append(missed, fmt.Errorf("missed: %s: %.2f %s, at most %.0f", what, have, unit, bar))
		}
	}
	most("`postern run -- true` with the daemon", r.runServed, barServed, "ms")
	most("`postern run -- true` with its own broker", r.runAlone, barAlone, "ms")
	most("`postern run -- true`, the slowest of all", max(r.runAloneMost, r.runServedMost), barHard, "ms")
	most("package initialisation", r.initSum, barInit, "ms")
	most("initialisation of "+r.initName, r.initMost, barOneInit, "ms")
	most("idle daemon", r.idle, barIdle, "MB")
	most("connect and first byte inside run", r.connect, barConnect, "µs")
	if r.rate < barRate {
		missed = append(missed, fmt.Errorf("missed: throughput inside run: %.2f GB per second of CPU, at least %.0f", r.rate, barRate))
	}
	for _, t := range r.tables {
		for _, one := range t.rows {
			if one.right == 0 || one.wrong > 0 && strings.HasPrefix(one.Name, "Postern") {
				missed = append(missed, fmt.Errorf("missed: %s, %s: %d correct answers, %d wrong: %s", t.Title, one.Name, one.right, one.wrong, one.problem))
			}
		}
	}
	table := r.tables[0]
	if nginx := table.named("nginx"); nginx != nil && len(nginx.cpu) > 0 {
		for _, name := range []string{"Postern, proxy", "Postern, run"} {
			most(table.Title+", CPU of "+name, median(table.named(name).cpu)/median(nginx.cpu), barNginx, "× nginx")
		}
	} else {
		fmt.Println("Not judged, since nginx is not there: CPU against nginx")
	}
	if len(missed) == 0 {
		fmt.Println("all bars held")
	}
	return errors.Join(missed...)
}

const (
	beginMark = "<!-- results: written by make bench -->"
	endMark   = "<!-- end of results -->"
)

// writeInto replaces what stands between the marks of a page.
func writeInto(path, text string) error {
	page, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	before, rest, ok1 := bytes.Cut(page, []byte(beginMark))
	_, after, ok2 := bytes.Cut(rest, []byte(endMark))
	if !ok1 || !ok2 {
		return fmt.Errorf("%s has no marks around its results", path)
	}
	return os.WriteFile(path, slices.Concat(before, []byte(beginMark+"\n\n"+text+"\n"+endMark), after), 0o644)
}

func processor() string {
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "unknown processor"
	}
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}

func kernel() string {
	var u syscall.Utsname
	if syscall.Uname(&u) != nil {
		return "?"
	}
	var b strings.Builder
	for _, c := range u.Release {
		if c == 0 {
			break
		}
		b.WriteByte(byte(c))
	}
	release, _, _ := strings.Cut(b.String(), "-")
	return release
}
