package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// target is one way to the upstream.
type target struct {
	Name    string
	Addr    string // where the connection goes
	Connect string // host:port of CONNECT; empty: Addr ends the TLS itself
	Auth    string // user:password of the proxy
	Key     string // what the client shows
	Share   int    // of the calls, in hundredths: slow peers get fewer
	pid     int    // of the proxy; 0 for none
	inside  *inside
}

// work is one kind of call.
type work struct {
	Title string
	Path  string
	Conns int
	Calls int  // a round, over all connections
	Fresh bool // a new connection for each
}

// sample is one target's round.
type sample struct {
	cpu     float64 // µs a call
	p50     float64 // µs
	right   int
	wrong   int
	problem error
}

func (t target) calls(w work) int { return max(w.Conns, w.Calls*t.Share/100/w.Conns*w.Conns) }

// round makes the calls of w through t and adds the proxy's CPU time.
func (t target) round(w work, a answers) sample {
	if t.pid == 0 {
		return t.drive(w, a)
	}
	before, err := cpuTime(t.pid)
	if err != nil {
		return sample{problem: err}
	}
	var s sample
	if t.inside == nil {
		s = t.drive(w, a)
	} else {
		r, err := t.inside.do(order{Do: "round", Target: t, Work: w})
		s = sample{right: r.Right, wrong: r.Wrong, p50: r.P50, problem: err}
	}
	after, err := cpuTime(t.pid)
	if err != nil {
		s.problem = err
	}
	s.cpu = float64((after - before).Microseconds()) / float64(max(s.right, 1))
	return s
}

// drive makes the calls of w; only correct answers count.
func (t target) drive(w work, a answers) sample {
	each := t.calls(w) / w.Conns
	took := make([][]time.Duration, w.Conns)
	wrong := make([]int, w.Conns)
	problems := make([]error, w.Conns)
	var all sync.WaitGroup
	for i := range w.Conns {
		all.Go(func() { took[i], wrong[i], problems[i] = t.client(w, a, each) })
	}
	all.Wait()
	var s sample
	var times []time.Duration
	for i := range w.Conns {
		times = append(times, took[i]...)
		s.wrong += wrong[i]
		if problems[i] != nil {
			s.problem = problems[i]
		}
	}
	if s.right = len(times); s.right == 0 {
		return s
	}
	slices.Sort(times)
	s.p50 = float64(times[len(times)/2].Nanoseconds()) / 1e3
	return s
}

// client is one caller: n calls, one after another.
func (t target) client(w work, a answers, n int) (took []time.Duration, wrong int, problem error) {
	request := t.request(w)
	scratch := make([]byte, 64<<10)
	var c net.Conn
	var r *bufio.Reader
	defer func() {
		if c != nil {
			_ = c.Close()
		}
	}()
	for range n {
		start := time.Now()
		if c == nil {
			var err error
			if c, err = t.dial(); err != nil {
				return took, wrong + 1, err
			}
			r = bufio.NewReaderSize(c, 16<<10)
			if !w.Fresh {
				start = time.Now()
			}
		}
		keep, err := call(c, r, request, w, a, scratch)
		if err != nil {
			wrong, problem = wrong+1, err
		} else {
			took = append(took, time.Since(start))
		}
		if err != nil || !keep || w.Fresh {
			_ = c.Close()
			c = nil
		}
		if wrong > 20 {
			return took, wrong, problem
		}
	}
	return took, wrong, problem
}

// request is a call as an official SDK sends it.
func (t target) request(w work) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "POST %s HTTP/1.1\r\nHost: %s\r\n", w.Path, t.host())
	for _, f := range [][2]string{
		{"Accept", "application/json"}, {"Content-Type", "application/json"}, {"User-Agent", "Anthropic/JS 0.60.0"}, {keyHeader, t.Key},
		{"anthropic-version", "2023-06-01"}, {"X-Stainless-Retry-Count", "0"}, {"X-Stainless-Timeout", "600"}, {"X-Stainless-Lang", "js"},
		{"X-Stainless-Package-Version", "0.60.0"}, {"X-Stainless-OS", "Linux"}, {"X-Stainless-Arch", "x64"}, {"X-Stainless-Runtime", "node"},
		{"X-Stainless-Runtime-Version", "v22.0.0"}, {"Accept-Language", "*"}, {"Sec-Fetch-Mode", "cors"},
	} {
		fmt.Fprintf(&b, "%s: %s\r\n", f[0], f[1])
	}
	fmt.Fprintf(&b, "Content-Length: %d\r\n\r\n", requestLen)
	head, tail := `{"model":"claude","max_tokens":1024,"messages":[{"role":"user","content":"`, `"}]}`
	b.WriteString(head + strings.Repeat("x", requestLen-len(head)-len(tail)) + tail)
	return b.Bytes()
}

func (t target) host() string {
	if host, port, err := net.SplitHostPort(t.Connect); err == nil && port != "443" {
		return net.JoinHostPort(host, port)
	}
	return provider
}

func (t target) dial() (net.Conn, error) {
	c, err := net.DialTimeout("tcp", t.Addr, 10*time.Second)
	if err != nil {
		return nil, err
	}
	_ = c.SetDeadline(time.Now().Add(2 * time.Minute))
	name := provider
	if t.Connect != "" {
		auth := ""
		if t.Auth != "" {
			auth = "Proxy-Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(t.Auth)) + "\r\n"
		}
		if _, err := fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n%s\r\n", t.Connect, t.Connect, auth); err != nil {
			return nil, err
		}
		answer, err := http.ReadResponse(bufio.NewReaderSize(c, 1), nil)
		if err != nil {
			return nil, err
		}
		if answer.StatusCode != http.StatusOK {
			return nil, fmt.Errorf("CONNECT through %s: %s", t.Name, answer.Status)
		}
		name, _, _ = net.SplitHostPort(t.Connect)
	}
	// Each peer shows a certificate of its own; what is measured is the peer.
	s := tls.Client(c, &tls.Config{ServerName: name, InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}})
	return s, s.Handshake()
}

// call makes one call and compares the answer with the one that is right.
func call(c net.Conn, r *bufio.Reader, request []byte, w work, a answers, scratch []byte) (keep bool, err error) {
	if _, err := c.Write(request); err != nil {
		return false, err
	}
	answer, err := http.ReadResponse(r, nil)
	if err != nil {
		return false, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(answer.Body, 300))
		return false, fmt.Errorf("%s: %s", answer.Status, text)
	}
	unit, total := a.json, len(a.json)
	switch w.Path {
	case pathStream:
		unit, total = a.event, events*len(a.event)
	case pathDownload:
		unit, total = a.block, download
	}
	read := 0
	for {
		n, err := answer.Body.Read(scratch)
		for part := scratch[:n]; len(part) > 0; {
			at := read % len(unit)
			m := min(len(part), len(unit)-at)
			if !bytes.Equal(part[:m], unit[at:at+m]) {
				return false, fmt.Errorf("the answer differs at byte %d", read)
			}
			part, read = part[m:], read+m
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return false, err
		}
	}
	if read != total {
		return false, fmt.Errorf("the answer has %d bytes of %d", read, total)
	}
	return !answer.Close, nil
}
