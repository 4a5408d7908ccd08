package app

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"postern/internal/broker"
	"postern/internal/ca"
	"postern/internal/catalog"
	"postern/internal/credential"
	"postern/internal/event"
	"postern/internal/placeholder"
	"postern/internal/redact"
	"postern/internal/run"
	"postern/internal/secret"
)

// Proof is one of the three measurements behind the word "protected".
type Proof struct {
	Name  string `json:"name"`
	State State  `json:"state"` // passed, failed or not checked
	Text  string `json:"text,omitempty"`
	Why   string `json:"why,omitempty"` // of what did not pass
}

// Proofs are the three.
type Proofs struct {
	Dir           string `json:"dir"`
	ThroughBroker Proof  `json:"through_broker"`
	NoValue       Proof  `json:"no_value"`
	DirectRefused Proof  `json:"direct_refused"`
}

// List are the proofs in the order in which they are shown.
func (p Proofs) List() []Proof { return []Proof{p.ThroughBroker, p.NoValue, p.DirectRefused} }

// All says whether every proof passed.
func (p Proofs) All() bool {
	for _, one := range p.List() {
		if one.State != Passed {
			return false
		}
	}
	return true
}

// canaryHost is the name of our own responder; .invalid never leads anywhere
// (RFC 6761).
const canaryHost = "canary.postern.invalid"

// proofTime bounds the whole measurement.
const proofTime = 20 * time.Second

// Prove measures the three proofs with a process that is started as the agent
// would be, a canary credential, and a responder of our own. No provider is
// called.
func (a *App) Prove(ctx context.Context, name string) Proofs {
	p := Proofs{
		ThroughBroker: Proof{Name: "through the broker", State: NotChecked},
		NoValue:       Proof{Name: "no real value", State: NotChecked},
		DirectRefused: Proof{Name: "direct connection", State: NotChecked},
	}
	agent, err := a.Agents.Get(ctx, name)
	if err == nil {
		p.Dir = agent.Directory
		ctx, cancel := context.WithTimeout(ctx, proofTime)
		defer cancel()
		err = a.prove(ctx, agent, &p)
	}
	if err != nil {
		for _, one := range []*Proof{&p.ThroughBroker, &p.NoValue, &p.DirectRefused} {
			if one.State == NotChecked && one.Why == "" {
				one.Why = err.Error()
			}
		}
		return p
	}
	if p.All() {
		now, _ := json.Marshal(a.o.Now().UTC())
		_ = a.DB.SetSetting(ctx, "proved/"+name, string(now))
	}
	return p
}

// Inside is what the process inside measured.
type Inside struct {
	Status int    `json:"status"` // of the canary's call, 0 where there was no answer
	Body   string `json:"body"`
	Error  string `json:"error,omitempty"`
	Direct string `json:"direct"` // what a direct connection to this machine gave; "connected" where there was one
	UDP    string `json:"udp"`
}

func (a *App) prove(ctx context.Context, agent credential.Agent, p *Proofs) error {
	if agent.Directory == "" {
		return errors.New("the agent has no directory to start in")
	}
	c, err := newCanary()
	if err != nil {
		return err
	}
	defer c.close()
	known, err := a.matcher(ctx, agent.Name)
	if err != nil {
		return err
	}
	inside, found, err := a.measure(ctx, agent, c, known)
	if err != nil {
		return err
	}
	p.ThroughBroker.judge(inside.Status == http.StatusOK && c.right.Load() == 1, "a canary got its value at the door",
		fmt.Sprintf("the canary's call ended with %d %s", inside.Status, inside.Error))
	if c.in(inside.Body) {
		found++
	}
	p.NoValue.judge(found == 0, "none in the environment, the files and the memory of a process started like the agent",
		fmt.Sprintf("%d found", found))
	p.DirectRefused.judge(c.direct.Load() == 0 && inside.Direct != "connected" && inside.UDP != "answered", "this machine is out of reach, and so is UDP",
		"a direct connection was made")
	return nil
}

func (p *Proof) judge(ok bool, text, why string) {
	p.State, p.Text = Passed, text
	if !ok {
		p.State, p.Text, p.Why = Failed, "", why
	}
}

// measure starts the process inside and looks for known values in all that it
// can see, and in its memory.
func (a *App) measure(ctx context.Context, agent credential.Agent, c *canary, known *redact.Matcher) (Inside, int, error) {
	exe, err := os.Executable()
	if err != nil {
		return Inside{}, 0, err
	}
	fromIn, toOut, err := os.Pipe()
	if err != nil {
		return Inside{}, 0, err
	}
	defer fromIn.Close()
	stay, hold, err := os.Pipe() // the process inside ends when this one is closed
	if err != nil {
		return Inside{}, 0, err
	}
	defer hold.Close()
	o := RunOptions{Command: []string{exe, "inside", canaryHost, c.placeholder, c.host(), c.end}, AsRoot: true, Stdin: stay, Stdout: toOut, Say: func(bool, string, ...any) {}}
	spec, err := a.spec(ctx, agent, agent.Directory, o, &canaryWay{})
	if err != nil {
		return Inside{}, 0, err
	}
	environ, _, err := a.environ(ctx, agent, &ownWay{a: a, ctx: ctx, agent: agent.Name})
	if err != nil {
		return Inside{}, 0, err
	}
	spec.Env, spec.Overlay[bundlePath], spec.Filter, spec.Publish, spec.TCP = trusting(environ, bundlePath), c.agentCA.CertPEM(), nil, nil, nil
	proc, err := run.Start(ctx, breakSpec(spec))
	if err != nil {
		return Inside{}, 0, err
	}
	return c.watch(ctx, proc, fromIn, hold, known, toOut, stay)
}

// watch serves the process and reads what it sends: its measurements in one
// line, then everything that it could read. passed are the ends that only the
// process shall hold.
func (c *canary) watch(ctx context.Context, proc *run.Process, out io.Reader, hold io.Closer, known *redact.Matcher, passed ...io.Closer) (Inside, int, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ln, err := net.FileListener(proc.Listener())
	_ = proc.Listener().Close()
	if err == nil {
		go func() { _ = c.broker.ServeTransparent(ctx, run.Original(ln), canaryAgent, proc.Names) }()
		err = proc.Release()
	}
	for _, end := range passed {
		_ = end.Close()
	}
	var inside Inside
	found := 0
	if err == nil {
		inside, found, err = c.read(out, known)
	}
	if err == nil {
		var inMemory int
		inMemory, err = valuesInMemory(proc.PID(), known)
		found += inMemory
	}
	_ = hold.Close()
	if errors.Is(err, io.EOF) { // it has ended: why?
		if code, waitErr := proc.Wait(); waitErr != nil {
			err = waitErr
		} else {
			err = fmt.Errorf("the process inside ended with %d", code)
		}
		return inside, found, err
	}
	if err != nil {
		proc.Close()
		return inside, found, err
	}
	_, err = proc.Wait()
	return inside, found, err
}

// read takes the measurements and counts known values in all that follows.
func (c *canary) read(out io.Reader, known *redact.Matcher) (Inside, int, error) {
	var inside Inside
	var line []byte
	one := make([]byte, 1)
	for !bytes.HasSuffix(line, []byte("\n")) && len(line) < 1<<20 {
		if _, err := io.ReadFull(out, one); err != nil {
			return inside, 0, fmt.Errorf("the process inside said nothing: %w", err)
		}
		line = append(line, one[0])
	}
	if err := json.Unmarshal(line, &inside); err != nil {
		return inside, 0, fmt.Errorf("the process inside said something else: %w", err)
	}
	stream := known.Stream()
	var scratch, tail []byte
	buffer := make([]byte, 64<<10)
	for {
		n, err := out.Read(buffer)
		scratch = stream.Write(scratch[:0], buffer[:n])
		tail = append(tail, buffer[:n]...)
		if bytes.Contains(tail, []byte(c.end)) {
			break
		}
		tail = tail[max(0, len(tail)-len(c.end)):]
		if err != nil {
			return inside, 0, fmt.Errorf("reading what the process inside can see: %w", err)
		}
	}
	stream.Close(nil)
	return inside, stream.Hits(), nil
}

// canary is a credential of no provider, a responder that answers to it alone,
// and a broker between the two.
type canary struct {
	value       secret.Value
	text        string
	placeholder string
	end         string // what the process inside sends last
	kind        *catalog.Kind
	agentCA     *ca.CA
	broker      *broker.Broker
	server      *http.Server
	bait        net.Listener // who reaches it got around the broker
	right       atomic.Int64
	direct      atomic.Int64
}

const canaryAgent = "canary"

func newCanary() (*canary, error) {
	var raw [48]byte
	if _, err := rand.Read(raw[:]); err != nil {
		return nil, err
	}
	c := &canary{text: "canary-" + hex.EncodeToString(raw[:24]), end: "end-" + hex.EncodeToString(raw[24:])}
	c.value = secret.New([]byte(c.text))
	kinds, err := catalog.Open("")
	if err != nil {
		return nil, err
	}
	if c.kind, err = kinds.Kind(catalog.GenericID); err != nil {
		return nil, err
	}
	if c.placeholder, err = placeholder.Mint(c.kind, []byte(c.text), rand.Reader); err != nil {
		return nil, err
	}
	if c.agentCA, err = ca.Generate(time.Now()); err != nil {
		return nil, err
	}
	return c, c.listen()
}

// listen opens the responder, whose certificate comes from an authority of its
// own, and the bait.
func (c *canary) listen() error {
	internet, err := ca.Generate(time.Now())
	if err != nil {
		return err
	}
	leaf, err := internet.Leaf(context.Background(), canaryHost)
	if err != nil {
		return err
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	if c.bait, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return errors.Join(err, ln.Close())
	}
	go func() {
		for {
			conn, err := c.bait.Accept()
			if err != nil {
				return
			}
			c.direct.Add(1)
			_ = conn.Close()
		}
	}()
	c.server = &http.Server{Handler: http.HandlerFunc(c.respond), ReadHeaderTimeout: 5 * time.Second}
	go func() {
		_ = c.server.Serve(tls.NewListener(ln, &tls.Config{Certificates: []tls.Certificate{*leaf}, MinVersion: tls.VersionTLS12}))
	}()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(internet.CertPEM())
	c.broker = broker.New(breaks(broker.Config{
		Leaser: c, Decider: c, Recorder: c, Placeholders: c, Issuer: c.agentCA, RootCAs: roots, Now: time.Now,
		Dial: map[string]string{canaryHost + ":443": ln.Addr().String()},
	}))
	return nil
}

// respond answers to the canary alone, and sends it back as careless servers do.
func (c *canary) respond(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Authorization") != "Bearer "+c.text {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	c.right.Add(1)
	w.Header().Set("X-Echo", c.text)
	_, _ = io.WriteString(w, "you sent "+c.text)
}

func (c *canary) in(text string) bool { return strings.Contains(text, c.text) }

// host is the address of the bait.
func (c *canary) host() string { return c.bait.Addr().String() }

func (c *canary) close() {
	_ = c.server.Close()
	_ = c.bait.Close()
	c.broker.Close()
}

// What the broker asks; the canary answers for itself.

func (c *canary) Lease(context.Context, string, string) (secret.Value, credential.Version, error) {
	return c.value, credential.Version{Number: 1, State: credential.Current}, nil
}

func (c *canary) Decide(r broker.Request) broker.Decision {
	return broker.Decision{Allow: r.Host == canaryHost+":443", Rule: "canary", Reason: "only the responder"}
}

func (c *canary) Egress(_, hostport string) broker.EgressDecision {
	named := hostport == canaryHost+":443"
	return broker.EgressDecision{Allow: named, Mode: broker.Closed, Named: named, Rule: "canary", Reason: "only the responder"}
}

func (c *canary) Record(context.Context, event.Event, bool) error { return nil }

func (c *canary) Lookup(text string) (credential.Placeholder, bool) {
	return credential.Placeholder{Text: c.placeholder, Agent: canaryAgent, Credential: canaryAgent}, text == c.placeholder
}

func (c *canary) Of(string) ([]broker.Lent, error) {
	return []broker.Lent{{Placeholder: c.placeholder, Credential: canaryAgent, Kind: c.kind, Hosts: []string{canaryHost}}}, nil
}

// canaryWay is a way for a command that nobody talks to.
type canaryWay struct{}

func (canaryWay) serve(context.Context, *os.File, string, broker.Names) error { return nil }
func (canaryWay) filter() (run.Filter, error)                                 { return (*redact.Matcher)(nil).Stream(), nil }
func (canaryWay) close()                                                      {}

// valuesInMemory counts known values in the memory of all processes below pid.
func valuesInMemory(pid int, known *redact.Matcher) (int, error) {
	found := 0
	for _, one := range append(descendants(pid), pid) {
		if one == pid {
			continue // the first process inside is ours and cannot be looked into
		}
		n, err := inMemoryOf(one, known)
		if err != nil {
			return found, fmt.Errorf("the memory of the process inside cannot be read: %w", err)
		}
		found += n
	}
	return found, nil
}

func descendants(pid int) []int {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return nil
	}
	var all []int
	for _, field := range strings.Fields(string(data)) {
		if child, err := strconv.Atoi(field); err == nil {
			all = append(append(all, child), descendants(child)...)
		}
	}
	return all
}

func inMemoryOf(pid int, known *redact.Matcher) (int, error) {
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return 0, err
	}
	memory, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		return 0, err
	}
	defer memory.Close()
	found := 0
	buffer := make([]byte, 1<<20)
	for line := range bytes.Lines(maps) {
		var from, to uint64
		var mode string
		if n, _ := fmt.Sscanf(string(line), "%x-%x %s", &from, &to, &mode); n != 3 || mode[0] != 'r' {
			continue
		}
		stream := known.Stream()
		var out []byte
		for at := from; at < to; {
			n, err := memory.ReadAt(buffer[:min(uint64(len(buffer)), to-at)], int64(at))
			out = stream.Write(out[:0], buffer[:n])
			at += uint64(n)
			if err != nil || n == 0 {
				break // a hole, or a mapping of the kernel
			}
		}
		stream.Close(nil)
		found += stream.Hits()
	}
	return found, nil
}
