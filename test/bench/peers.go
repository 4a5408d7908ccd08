package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// peer is a proxy to compare with; each puts the real key into the request.
type peer struct {
	name    string
	program string // looked for on PATH; empty: this binary
	debian  string // the package that has it
	share   int
	connect bool // a forward proxy that intercepts, not a reverse one
	argv    func(dir, addr string, u *upstream) ([]string, error)
	version []string
}

func peers() []peer {
	return []peer{
		{name: "nginx", program: "nginx", debian: "nginx-light", share: 100, argv: nginx, version: []string{"-v"}},
		{name: "HAProxy", program: "haproxy", debian: "haproxy", share: 100, argv: haproxy, version: []string{"-v"}},
		{name: "goproxy", share: 100, connect: true, argv: goproxyArgs},
		{name: "mitmproxy", program: "mitmdump", debian: "mitmproxy", share: 5, connect: true, argv: mitmproxy, version: []string{"--version"}},
	}
}

// startPeer starts a peer; skipped says why it is not measured.
func startPeer(ctx context.Context, p peer, dir string, u *upstream) (t target, running *process, version, skipped string) {
	if p.program != "" {
		if _, err := exec.LookPath(p.program); err != nil {
			return t, nil, "", p.name + " is not installed (Debian package " + p.debian + ")"
		}
	}
	fail := func(err error) (target, *process, string, string) {
		return t, nil, "", fmt.Sprintf("%s: %v", p.name, err)
	}
	addr, err := freeAddr()
	if err != nil {
		return fail(err)
	}
	argv, err := p.argv(dir, addr, u)
	if err != nil {
		return fail(err)
	}
	if running, err = start(place{pinned: true}, os.Environ(), dir, argv...); err != nil {
		return fail(err)
	}
	if err := waitFor(ctx, addr, running); err != nil {
		running.stop()
		return fail(err)
	}
	t = target{Name: p.name, Addr: addr, Key: "a-placeholder", Share: p.share, pid: running.pid()}
	if p.connect {
		_, port, _ := net.SplitHostPort(u.addr)
		t.Connect = "localhost:" + port
	}
	return t, running, peerVersion(p), ""
}

var numbers = regexp.MustCompile(`[0-9]+\.[0-9]+[0-9.]*`)

func peerVersion(p peer) string {
	if p.program == "" {
		return goproxyVersion()
	}
	out, err := exec.Command(p.program, p.version...).CombinedOutput()
	if err != nil {
		return "?"
	}
	return numbers.FindString(string(out))
}

// fill writes a configuration: words in braces are replaced.
func fill(path, text, addr string, u *upstream) error {
	host, port, _ := net.SplitHostPort(addr)
	text = strings.NewReplacer("{dir}", u.dir, "{addr}", addr, "{host}", host, "{port}", port,
		"{upstream}", u.addr, "{key}", u.key, "{header}", keyHeader, "{provider}", provider, "{stream}", pathStream).Replace(text)
	return os.WriteFile(path, []byte(text), 0o600)
}

func nginx(dir, addr string, u *upstream) ([]string, error) {
	path := filepath.Join(dir, "nginx.conf")
	return []string{"nginx", "-p", dir, "-c", path, "-e", "stderr"}, fill(path, `
daemon off; master_process off; worker_processes 1; pid {dir}/nginx.pid; error_log stderr crit;
events { worker_connections 1024; }
http {
  access_log off;
  client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy; fastcgi_temp_path {dir}/f; uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;
  upstream provider { server {upstream}; keepalive 64; keepalive_requests 100000000; }
  server {
    listen {addr} ssl; keepalive_requests 100000000; client_body_buffer_size 16k;
    ssl_certificate {dir}/cert.pem; ssl_certificate_key {dir}/key.pem; ssl_protocols TLSv1.3; ssl_session_cache shared:s:1m;
    proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host {provider}; proxy_set_header {header} {key};
    proxy_ssl_server_name on; proxy_ssl_name {provider}; proxy_ssl_verify on; proxy_ssl_trusted_certificate {dir}/ca.pem;
    proxy_ssl_protocols TLSv1.3; proxy_buffer_size 32k; proxy_buffers 8 32k;
    location / { proxy_pass https://provider; }
    location {stream} { proxy_buffering off; proxy_pass https://provider; }
  }
}
`, addr, u)
}

func haproxy(dir, addr string, u *upstream) ([]string, error) {
	path := filepath.Join(dir, "haproxy.cfg")
	return []string{"haproxy", "-db", "-q", "-f", path}, fill(path, `
global
  nbthread 1
  maxconn 1000
  tune.bufsize 32768
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  http-reuse always
frontend agents
  bind {addr} ssl crt {dir}/both.pem alpn http/1.1 ssl-min-ver TLSv1.3
  http-request set-header {header} {key}
  http-request set-header Host {provider}
  default_backend provider
backend provider
  server provider {upstream} ssl verify required ca-file {dir}/ca.pem sni str({provider}) verifyhost {provider} alpn http/1.1
`, addr, u)
}

func mitmproxy(dir, addr string, u *upstream) ([]string, error) {
	path := filepath.Join(dir, "inject.py")
	host, port, _ := net.SplitHostPort(addr)
	return []string{
			"mitmdump", "-q", "--listen-host", host, "-p", port, "-s", path, "--set", "confdir=" + filepath.Join(dir, "mitm"),
			"--set", "ssl_verify_upstream_trusted_ca=" + filepath.Join(u.dir, "ca.pem"),
		}, fill(path, `
def request(flow):
    flow.request.headers["{header}"] = "{key}"

def responseheaders(flow):
    flow.response.stream = flow.request.path != "/v1/messages"
`, addr, u)
}

// goproxyArgs starts this binary once more, as a goproxy.
func goproxyArgs(dir, addr string, u *upstream) ([]string, error) {
	self, err := os.Executable()
	return []string{self, "goproxy", addr, filepath.Join(u.dir, "ca.pem"), keyFile(u.dir)}, err
}

func keyFile(dir string) string { return filepath.Join(dir, "real.key") }
