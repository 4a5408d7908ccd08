// Command postern-fake stands in for the real providers on a loopback address,
// for the demo and for tests. It ends with SIGTERM, with its parent, and when a
// pipe on its standard input closes.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"postern/internal/catalog"
	"postern/internal/fake"
)

func main() {
	keys := flag.String("keys", "", "JSON `file` that leads kinds or hosts to the real keys")
	out := flag.String("out", "", "`directory` for ca.pem, config-fragment, calls.json and ready")
	flag.Parse()
	if *keys == "" || *out == "" || flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	if err := serve(*keys, *out); err != nil {
		fmt.Fprintln(os.Stderr, "postern-fake:", err)
		os.Exit(1)
	}
}

func serve(file, out string) error {
	keys, err := fake.ReadKeys(file)
	if err != nil {
		return err
	}
	kinds, err := catalog.Open("")
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	defer stop()
	go whileWanted(stop)
	return fake.Run(ctx, kinds, keys, out)
}

// whileWanted calls stop when whoever started this process is gone.
func whileWanted(stop func()) {
	if info, err := os.Stdin.Stat(); err == nil && info.Mode()&os.ModeCharDevice == 0 && !info.Mode().IsRegular() {
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin) // returns when the other end closes
			stop()
		}()
	}
	parent := os.Getppid()
	for range time.Tick(time.Second) {
		if os.Getppid() != parent {
			stop()
			return
		}
	}
}
