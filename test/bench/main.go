package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"
)

func main() {
	err := errors.New("unknown role")
	switch {
	case len(os.Args) > 1 && os.Args[1] == "goproxy":
		err = serveGoproxy(os.Args[2:])
	case len(os.Args) > 1 && os.Args[1] == "inside":
		err = serveInside()
	default:
		err = bench()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// bench measures everything, writes the results and judges them.
func bench() error {
	binary := flag.String("postern", "bin/postern", "the binary that is measured")
	page := flag.String("page", "", "a page whose part between the marks of results is written anew")
	rounds := flag.Int("rounds", 5, "measured rounds; one more is thrown away")
	scale := flag.Int("scale", 100, "calls a round, in hundredths of the usual")
	flag.Parse()
	path, err := filepath.Abs(*binary)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "bench-of-postern-") // what is named postern-… is hidden inside
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	begun := time.Now()
	r := &report{begun: begun}
	for _, step := range []func() error{
		func() error { return r.starting(ctx, dir, path) },
		func() error { return r.traffic(ctx, dir, path, *rounds, *scale) },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	r.took = time.Since(begun)
	text := r.text()
	fmt.Println(text)
	if *page != "" {
		if err := writeInto(*page, text); err != nil {
			return err
		}
	}
	return r.judge()
}

// works are the calls that are measured; counts are for a quick proxy.
func works(scale int) []work {
	all := []work{
		{Title: "JSON, 8 connections", Path: pathJSON, Conns: 8, Calls: 8000},
		{Title: "JSON, 1 connection", Path: pathJSON, Conns: 1, Calls: 3000},
		{Title: "JSON, fresh connections", Path: pathJSON, Conns: 8, Calls: 400, Fresh: true},
		{Title: "SSE, 200 events", Path: pathStream, Conns: 8, Calls: 240},
		{Title: "download, 10 MB", Path: pathDownload, Conns: 1, Calls: 20},
	}
	for i := range all {
		all[i].Calls = max(all[i].Conns, all[i].Calls*scale/100)
	}
	return all
}

// traffic measures calls through Postern and the peers, in interleaved rounds.
func (r *report) traffic(ctx context.Context, dir, binary string, rounds, scale int) error {
	loadCPUs(true)
	defer loadCPUs(false)
	room := filepath.Join(dir, "traffic")
	if err := errors.Join(os.Mkdir(room, 0o755), os.Chmod(room, 0o755)); err != nil {
		return err
	}
	u, err := newUpstream(room)
	if err != nil {
		return err
	}
	targets := []target{{Name: "direct", Addr: u.addr, Key: u.key, Share: 100}}
	for _, p := range peers() {
		t, running, version, skipped := startPeer(ctx, p, room, u)
		if skipped != "" {
			r.skipped = append(r.skipped, skipped)
			continue
		}
		defer running.stop()
		r.versions = append(r.versions, p.name+" "+version)
		targets = append(targets, t)
	}
	product, err := install(room, binary, "many", 99, u)
	if err != nil {
		return err
	}
	defer product.stop()
	password, err := product.password()
	if err != nil {
		return err
	}
	if err := product.serve(ctx, true); err != nil {
		return err
	}
	through, err := product.outside(password)
	if err != nil {
		return err
	}
	inside, err := product.enter()
	if err != nil {
		return err
	}
	defer inside.leave()
	within := target{Name: "Postern, run", Addr: provider + ":443", Key: through.Key, Share: 100, pid: product.daemon.pid(), inside: inside}
	targets = append(targets, through, within)
	for _, w := range works(scale) {
		t := newTable(w, targets)
		for n := range rounds + 1 {
			for i, one := range targets {
				s := one.round(w, u.answers)
				if s.problem != nil {
					t.rows[i].problem = s.problem.Error()
				}
				if t.rows[i].wrong += s.wrong; n > 0 {
					t.rows[i].add(s)
				}
			}
			if ctx.Err() != nil {
				return errors.New("the five minutes are over")
			}
		}
		r.tables = append(r.tables, t)
		fmt.Fprintf(os.Stderr, "%s measured (%.0f s)\n", w.Title, time.Since(r.begun).Seconds())
	}
	if err := r.connections(inside, product.daemon.pid(), u); err != nil {
		return err
	}
	if r.loaded, err = memory(product.daemon.pid(), "VmRSS"); err != nil {
		return err
	}
	r.peak, err = memory(product.daemon.pid(), "VmHWM")
	return err
}

func newUpstream(dir string) (*upstream, error) {
	key := newKey()
	if err := os.WriteFile(keyFile(dir), []byte(key), 0o600); err != nil {
		return nil, err
	}
	return serveUpstream(dir, key)
}

// connections measures connect and throughput inside `run`, where the bytes are
// passed through unread.
func (r *report) connections(i *inside, pid int, u *upstream) error {
	var err error
	if r.directConnect, err = connects(u.echo, 400); err != nil {
		return err
	}
	var times, rates []float64
	for range 3 {
		got, err := i.do(order{Do: "connect"})
		if err != nil {
			return fmt.Errorf("connecting inside run: %w", err)
		}
		times = append(times, got.P50)
		before, err := cpuTime(pid)
		if err != nil {
			return err
		}
		if got, err = i.do(order{Do: "bulk"}); err != nil {
			return fmt.Errorf("receiving inside run: %w", err)
		}
		after, err := cpuTime(pid)
		if err != nil {
			return err
		}
		rates = append(rates, float64(got.Bytes)/1e9/max(after-before, tick).Seconds())
		r.wallRate = max(r.wallRate, float64(got.Bytes)/1e9/got.Seconds)
	}
	r.connect, r.rate = median(times), median(rates)
	return nil
}

// loadCPUs keeps the load off the CPU of the proxies, or gives all CPUs back.
func loadCPUs(own bool) {
	n := runtime.NumCPU()
	if n < 2 || !pinned() {
		return
	}
	first := 0
	if own {
		first = 1
	}
	affinity(first, n)
	runtime.GOMAXPROCS(n - first)
}
