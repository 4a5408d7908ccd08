package app

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"postern/internal/broker"
	"postern/internal/ca"
	"postern/internal/config"
	"postern/internal/credential"
	"postern/internal/event"
	"postern/internal/fail"
	"postern/internal/policy"
	"postern/internal/run"
	"postern/internal/setup"
)

// bundlePath is where the roots lie inside, beside the distribution's own place.
const bundlePath = "/run/postern/ca-bundle.pem"

// RunOptions say what to run and how.
type RunOptions struct {
	Agent   string
	Command []string
	Publish []string // "[ADDR:]PORT"
	User    string
	AsRoot  bool
	Mode    string // empty: what config.yaml says
	NewKeys string // the same

	Stdin, Stdout, Stderr *os.File
	// Say talks to the person; amber is for what they should notice.
	Say func(amber bool, format string, args ...any)
	// Adopt asks whether keys that have appeared shall be taken in.
	Adopt func([]setup.Secret) (bool, error)
}

// amber says what a person should notice.
func (o RunOptions) amber(format string, args ...any) { o.Say(true, format, args...) }

// ChildMain is called first in main: where this process is a part of a sandbox it
// does not return.
func ChildMain() { run.ChildMain() }

// Guard keeps other processes of the same user out of this one.
func Guard() error { return run.Guard() }

// Run starts the command of an agent and gives its exit code.
func (a *App) Run(ctx context.Context, o RunOptions) (int, error) {
	dir, err := os.Getwd()
	if err != nil {
		return 125, fmt.Errorf("finding the current directory: %w", err)
	}
	agent, err := a.agentFor(ctx, o.Agent, dir)
	if err != nil {
		return 125, err
	}
	if err := a.ready(ctx); err != nil {
		return 125, err
	}
	if err := a.adoptNew(ctx, agent, o); err != nil {
		return 125, err
	}
	way, err := a.openWay(ctx, agent.Name, o.amber)
	if err != nil {
		return 125, err
	}
	defer way.close()
	spec, err := a.spec(ctx, agent, dir, o, way)
	if err != nil {
		return 125, err
	}
	mode, err := a.mode(o)
	if err != nil {
		return 125, err
	}
	before := a.firstUse(ctx, agent.Name)
	if err := a.note(ctx, event.Event{Kind: event.RunStarted, Agent: agent.Name, Detail: map[string]string{"mode": mode}}); err != nil {
		return 125, err
	}
	absent := missing(spec.ReadOnly)
	defer a.followFiles(ctx, agent, o)()
	code, err := a.runIn(ctx, mode, spec, agent, way, o.Say)
	endErr := a.note(context.WithoutCancel(ctx), event.Event{Kind: event.RunEnded, Agent: agent.Name, Status: code})
	way.close()
	a.sayAppeared(ctx, agent.Name, absent, o.Say)
	if after := a.firstUse(ctx, agent.Name); before == "" && after != "" {
		o.Say(false, "the first real call went through the broker: %s", after)
	}
	return code, errors.Join(err, endErr)
}

// sayAppeared names start-up files that did not exist before the run and do now:
// what is not there cannot be made read-only.
func (a *App) sayAppeared(ctx context.Context, agent string, absent []string, say func(bool, string, ...any)) {
	still := missing(absent)
	for _, path := range absent {
		if slices.Contains(still, path) {
			continue
		}
		say(true, "a start-up file has appeared while the agent ran, look at it before you log in again: %s", path)
		_ = a.Record(context.WithoutCancel(ctx), event.Event{Kind: event.FileChanged, Agent: agent, Reason: "a start-up file appeared", Detail: map[string]string{"path": path}})
	}
}

// runIn starts the command in its sandbox, or without one where that was asked for
// or the system allows none; the person is told.
func (a *App) runIn(ctx context.Context, mode string, spec run.Spec, agent credential.Agent, way way, say func(bool, string, ...any)) (int, error) {
	if mode != config.ModeCooperative {
		code, err := a.runEnforced(ctx, spec, agent, way)
		var why *fail.Error
		if mode == config.ModeEnforced || !errors.As(err, &why) || why.ID != "P-E120" {
			return code, err
		}
		next := "postern doctor"
		if len(why.Next) > 0 {
			next = why.Next[0]
		}
		say(true, "namespaces are not allowed here: %s   next  %s", why.Why, next)
	}
	say(true, "cooperative mode: a program that ignores the proxy variables is not stopped")
	return a.runCooperative(ctx, spec, agent, say)
}

func (a *App) agentFor(ctx context.Context, name, dir string) (credential.Agent, error) {
	if name == "" {
		return a.agentAt(ctx, dir)
	}
	agent, err := a.Agents.Get(ctx, name)
	if err == nil && agent.Removed {
		err = fail.New(fail.NotFound, "P-E122", "agent %s was removed", name).Hint("postern agent ls")
	}
	return agent, err
}

// mode is how the command shall be kept in.
func (a *App) mode(o RunOptions) (string, error) {
	mode := o.Mode
	if mode == "" {
		mode = a.Config.Run.Mode
	}
	switch mode {
	case "":
		return config.ModeAuto, nil
	case config.ModeAuto, config.ModeEnforced, config.ModeCooperative:
		return mode, nil
	}
	return "", fail.New(fail.Invalid, "P-E001", "there is no mode %q", mode).Because("there are auto, enforced and cooperative")
}

// ownKeys says whether some grant lets the agent bring keys of its own.
func (a *App) ownKeys(agent string) bool {
	rules, _ := a.Policy.Policy().Agent(agent)
	for _, g := range rules.Grants {
		if g.OwnKeys {
			return true
		}
	}
	return false
}

// runEnforced starts the command in its sandbox; where one of the agent is up
// already, in that.
func (a *App) runEnforced(ctx context.Context, spec run.Spec, agent credential.Agent, way way) (int, error) {
	var err error
	if err = a.Paths.MakeRuntime(); err != nil {
		return 125, err
	}
	if spec.Socket, err = a.Paths.Socket(sandboxSocket(agent.Name)); err != nil {
		return 125, err
	}
	spec.Env = with(spec.Env, map[string]string{"TMUX_TMPDIR": "/run"}) // a tmux inside is not the host's
	if p, err := run.Join(ctx, spec); err == nil {
		if err := p.Release(); err != nil {
			p.Close()
			return 125, err
		}
		return p.Wait()
	} else if !fail.Is(err, fail.NotFound) {
		return 125, err
	}
	tmux, release := tmuxDir(a.o.Getenv("TMUX_TMPDIR"), spec.User)
	defer release()
	spec.Hidden = append(spec.Hidden, tmux)
	p, err := run.Start(ctx, breakSpec(spec))
	if err != nil {
		return 125, err
	}
	err = way.serve(ctx, p.Listener(), agent.Name, p.Names)
	if err == nil {
		err = p.Release()
	}
	if err != nil {
		p.Close()
		return 125, err
	}
	return p.Wait()
}

// sandboxSocket is the name of the socket at which an agent's sandbox can be
// joined. Names of agents may be longer than a socket's path can bear.
func sandboxSocket(agent string) string {
	sum := sha256.Sum256([]byte(agent))
	return "run-" + hex.EncodeToString(sum[:8])
}

// runCooperative starts the command with variables that lead to the broker.
func (a *App) runCooperative(ctx context.Context, spec run.Spec, agent credential.Agent, say func(bool, string, ...any)) (int, error) {
	if a.Safe.Locked() { // the daemon's: its proxy is not ours to open
		if err := a.unlockSafe(ctx); err != nil {
			return 125, err
		}
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 125, err
	}
	token, err := a.proxyToken(agent.Name)
	if err != nil {
		return 125, err
	}
	d, err := a.openDoor(ctx, func(format string, args ...any) { say(true, format, args...) })
	if err != nil {
		return 125, err
	}
	defer d.close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	d.done.Go(func() { _ = d.broker.ServeProxy(ctx, ln) })
	proxy := fmt.Sprintf("http://%s:%s@%s", agent.Name, token, ln.Addr())
	bundle, err := a.bundleFile(ctx)
	if err != nil {
		return 125, err
	}
	set := map[string]string{"NO_PROXY": "127.0.0.1,localhost", "no_proxy": "127.0.0.1,localhost"}
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"} {
		set[name] = proxy
	}
	spec.Env = with(trusting(spec.Env, bundle), set)
	return run.StartPlain(spec)
}

// bundleFile writes the roots with ours to a file of the host, for the
// cooperative mode.
func (a *App) bundleFile(ctx context.Context) (string, error) {
	bundle, err := a.bundle(ctx)
	if err != nil {
		return "", err
	}
	path := a.Paths.CACert() + ".bundle"
	return path, a.publish(path, bundle)
}

// bundle are the public roots with our own behind them.
func (a *App) bundle(context.Context) ([]byte, error) {
	ours, err := os.ReadFile(a.Paths.CACert())
	if err != nil {
		return nil, fmt.Errorf("reading the certificate of the local authority: %w", err)
	}
	system, err := ca.SystemRoots()
	if err != nil {
		return ours, nil // a machine without public roots has only ours to trust inside
	}
	return append(append(system, '\n'), ours...), nil
}

// spec is everything about the command but its mode.
func (a *App) spec(ctx context.Context, agent credential.Agent, dir string, o RunOptions, way way) (run.Spec, error) {
	who, account, err := runAs(agent, dir, o)
	if err != nil {
		return run.Spec{}, err
	}
	if who == nil && os.Geteuid() == 0 {
		o.Say(true, "running as root: a bug in the agent is a bug with all of this machine's power but Postern's files")
	}
	rules, _ := a.Policy.Policy().Agent(agent.Name)
	s := run.Spec{
		Command: o.Command, Dir: dir, User: who, Filter: way.filter,
		Stdin: o.Stdin, Stdout: o.Stdout, Stderr: o.Stderr,
		Hidden:   hidden(a.Paths, account.home, a.o.Getenv("XDG_RUNTIME_DIR"), append(rules.Files, rules.Unix...)),
		ReadOnly: readOnly(account.home, dir), Shown: append(append([]string{}, rules.Unix...), rules.Files...),
	}
	if s.Masked, err = a.realFiles(ctx, agent); err != nil {
		return s, err
	}
	if s.TCP, err = localServices(rules); err != nil {
		return s, err
	}
	if s.Publish, err = published(o.Publish, rules.Publish); err != nil {
		return s, err
	}
	bundle, err := a.bundle(ctx)
	if err != nil {
		return s, err
	}
	s.Overlay = map[string][]byte{bundlePath: bundle, "/etc/resolv.conf": []byte("nameserver 127.0.0.53\n")}
	for _, path := range ca.SystemPaths() {
		s.Overlay[path] = bundle
	}
	env, dropped, err := a.environ(ctx, agent, way)
	if err != nil {
		return s, err
	}
	if len(dropped) > 0 {
		o.Say(true, "left out of the environment, real keys that the safe does not have: %s   next  postern secret add NAME", strings.Join(dropped, ", "))
	}
	s.Env = with(trusting(env, bundlePath), account.variables())
	return s, nil
}

// environ is our environment as the command may see it.
func (a *App) environ(ctx context.Context, agent credential.Agent, way way) (kept, dropped []string, err error) {
	own, err := a.ownVariables(ctx, agent.Name)
	if err != nil {
		return nil, nil, err
	}
	filter, err := way.filter()
	if err != nil {
		return nil, nil, err
	}
	e := environment{kinds: a.Catalog, own: own, ownKeys: a.ownKeys(agent.Name), replace: func(b []byte) []byte {
		return filter.Close(filter.Write(nil, b))
	}}
	kept, dropped = e.clean(os.Environ())
	return with(kept, a.byHand(ctx, own)), dropped, nil
}

// ownVariables are the variables of the agent's secrets, with the placeholders.
func (a *App) ownVariables(ctx context.Context, agent string) (map[string]string, error) {
	held, err := a.Agents.Placeholders(ctx, agent)
	if err != nil {
		return nil, err
	}
	own := map[string]string{}
	for _, p := range held {
		if p.Revoked {
			continue
		}
		c, err := a.Safe.Get(ctx, p.Credential)
		if fail.Is(err, fail.NotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if c.Variable != "" {
			own[c.Variable] = p.Text
		}
	}
	return own, nil
}

// byHand are those of own whose secret came from no file: no .env names them, so
// the environment does.
func (a *App) byHand(ctx context.Context, own map[string]string) map[string]string {
	set := map[string]string{}
	list, err := a.Safe.List(ctx)
	if err != nil {
		return set
	}
	for _, c := range list {
		if text, found := own[c.Variable]; found && c.Origin == "" {
			set[c.Variable] = text
		}
	}
	return set
}

// account is whose home and name the command has.
type account struct{ home, name string }

func (c account) variables() map[string]string {
	if c.name == "" {
		return nil
	}
	return map[string]string{"HOME": c.home, "USER": c.name, "LOGNAME": c.name}
}

// runAs decides who the command runs as. An ordinary user stays who they are;
// root becomes --user, or the owner of the directory.
func runAs(agent credential.Agent, dir string, o RunOptions) (*run.User, account, error) {
	if os.Geteuid() != 0 {
		return nil, account{home: os.Getenv("HOME")}, nil
	}
	if o.User != "" {
		u, err := user.Lookup(o.User)
		if err != nil {
			return nil, account{}, fail.New(fail.NotFound, "P-E128", "there is no user %q", o.User).Wrap(err)
		}
		return become(u)
	}
	place := agent.Directory
	if place == "" {
		place = dir
	}
	info, err := os.Stat(place)
	if err != nil {
		return nil, account{}, fmt.Errorf("looking for the owner of %s: %w", place, err)
	}
	owner := info.Sys().(*syscall.Stat_t)
	if owner.Uid == 0 {
		if o.AsRoot {
			return nil, account{home: os.Getenv("HOME")}, nil
		}
		return nil, account{}, fail.New(fail.NotAllowed, "P-E128", "the directory belongs to root, and an agent should not run as root").
			Because("%s is owned by user 0", place).Hint("postern run --user NAME -- …").Hint("postern run --as-root -- …   if it must be")
	}
	if u, err := user.LookupId(strconv.Itoa(int(owner.Uid))); err == nil {
		return become(u)
	}
	return &run.User{UID: owner.Uid, GID: owner.Gid}, account{home: place, name: strconv.Itoa(int(owner.Uid))}, nil
}

func become(u *user.User) (*run.User, account, error) {
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, account{}, err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return nil, account{}, err
	}
	who := &run.User{UID: uint32(uid), GID: uint32(gid)}
	ids, err := u.GroupIds()
	if err != nil {
		ids = nil // a user without an entry in the group file
	}
	for _, id := range ids {
		if n, err := strconv.ParseUint(id, 10, 32); err == nil {
			who.Groups = append(who.Groups, uint32(n))
		}
	}
	return who, account{home: u.HomeDir, name: u.Username}, nil
}

// localServices are the granted services of this machine; others are reached
// through the broker.
func localServices(rules policy.Agent) ([]netip.AddrPort, error) {
	var services []netip.AddrPort
	for _, text := range rules.TCP {
		at, err := netip.ParseAddrPort(strings.Replace(text, "localhost:", "127.0.0.1:", 1))
		if err == nil && at.Addr().Is4() && at.Addr().IsLoopback() {
			services = append(services, at)
		}
	}
	return services, nil
}

// published reads [ADDR:]PORT; the address is loopback where none is given.
func published(flags []string, ports []int) ([]run.Publish, error) {
	var list []run.Publish
	for _, text := range flags {
		full := text
		if !strings.Contains(text, ":") {
			full = "127.0.0.1:" + text
		}
		at, err := netip.ParseAddrPort(full)
		if err != nil || at.Port() == 0 {
			return nil, fail.New(fail.Invalid, "P-E125", "%q is no port to publish", text).Hint("--publish 18789, or --publish 0.0.0.0:18789")
		}
		list = append(list, run.Publish{Host: at, Port: at.Port()})
	}
	for _, port := range ports {
		at := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(port))
		list = append(list, run.Publish{Host: at, Port: uint16(port)})
	}
	return list, nil
}

var _ broker.Names = (*run.Process)(nil).Names
