package app

import (
	"context"
	"encoding/json"
	"os"
	"slices"
	"sort"
	"strings"
	"time"

	"postern/internal/change"
	"postern/internal/credential"
	"postern/internal/run"
	"postern/internal/setup"
)

// Status is what is going on.
type Status struct {
	SetUp    bool          `json:"set_up"`
	Mode     string        `json:"mode"` // enforced or cooperative
	Safe     SafeStatus    `json:"safe"`
	Daemon   DaemonStatus  `json:"daemon"`
	Agents   []AgentStatus `json:"agents"`
	Dial     []string      `json:"dial"` // config.yaml's ways past the address check
	Warnings []string      `json:"warnings"`
	LastRun  int64         `json:"last_run"` // the change of files that undo would take back, 0 for none
	Next     string        `json:"next"`     // the command that comes next
}

// SafeStatus is the safe in short.
type SafeStatus struct {
	Root    string `json:"root"`
	Secrets int    `json:"secrets"`
}

// DaemonStatus says whether `postern serve` answers.
type DaemonStatus struct {
	Running bool   `json:"running"`
	PID     int    `json:"pid,omitempty"`
	Safe    string `json:"safe,omitempty"` // locked or unlocked
}

// AgentStatus is one agent.
type AgentStatus struct {
	Name      string    `json:"name"`
	Directory string    `json:"directory"`
	Egress    string    `json:"egress"`
	Secrets   int       `json:"secrets"`
	Real      []string  `json:"real"` // variables that still hold their value
	TCP       []string  `json:"tcp"`
	Unix      []string  `json:"unix"`
	FirstUse  string    `json:"first_use,omitempty"` // the first call that was answered
	Proved    time.Time `json:"proved,omitzero"`     // when the three proofs last held
}

// ReadStatus says what is going on; the safe may stay locked.
func ReadStatus(ctx context.Context, o Options) (Status, error) {
	s := Status{Mode: "enforced", Agents: []AgentStatus{}, Dial: []string{}, Warnings: []string{}, Next: "postern setup"}
	if err := run.Probe(); err != nil {
		s.Mode = "cooperative"
		s.Warnings = append(s.Warnings, err.Error())
	}
	exists, err := Exists(o)
	if err != nil || !exists {
		return s, err
	}
	a, err := OpenLocked(ctx, o)
	if err != nil {
		return s, err
	}
	defer a.Close()
	s.SetUp = true
	if err := a.fillStatus(ctx, &s); err != nil {
		return s, err
	}
	s.Next = nextCommand(s)
	return s, nil
}

func (a *App) fillStatus(ctx context.Context, s *Status) error {
	list, err := a.Safe.List(ctx)
	if err != nil {
		return err
	}
	s.Safe = SafeStatus{Root: a.Safe.RootKind(), Secrets: len(list)}
	s.Daemon = a.daemonStatus(ctx)
	if _, bad := a.Policy.Status(); bad != nil {
		s.Warnings = append(s.Warnings, "policy.yaml has a mistake, the last good one counts: "+bad.Error())
	}
	for from, to := range a.Config.Upstream.Dial {
		s.Dial = append(s.Dial, from+" goes to "+to)
	}
	sort.Strings(s.Dial)
	if s.LastRun, err = a.lastRun(ctx); err != nil {
		return err
	}
	details, err := a.AgentDetails(ctx)
	if err != nil {
		return err
	}
	for _, d := range details {
		one, err := a.agentStatus(ctx, d, list)
		if err != nil {
			return err
		}
		s.Agents = append(s.Agents, one)
	}
	return nil
}

func (a *App) agentStatus(ctx context.Context, d AgentDetail, list []credential.Credential) (AgentStatus, error) {
	name := d.Agent.Name
	rules, _ := a.Policy.Policy().Agent(name)
	s := AgentStatus{
		Name: name, Directory: d.Agent.Directory, Egress: d.Egress, Secrets: len(d.Placeholders),
		TCP: append([]string{}, rules.TCP...), Unix: append([]string{}, rules.Unix...),
		Real: realVariables(d.Agent, list),
	}
	s.FirstUse = a.firstUse(ctx, name)
	proved, found, err := a.DB.Setting(ctx, "proved/"+name)
	if err != nil || !found {
		return s, err
	}
	return s, json.Unmarshal([]byte(proved), &s.Proved)
}

// realVariables are the variables of the agent's directory that keep their
// value: what "protected except" names.
func realVariables(agent credential.Agent, list []credential.Credential) []string {
	real := []string{}
	for _, c := range list {
		inside := agent.Directory != "" && strings.HasPrefix(c.Origin, agent.Directory+"/")
		if c.Restored && inside && c.Variable != "" && !slices.Contains(real, c.Variable) {
			real = append(real, c.Variable)
		}
	}
	sort.Strings(real)
	return real
}

// firstUse is the agent's first call that was answered, for people; the door
// notes it.
func (a *App) firstUse(ctx context.Context, agent string) string {
	text, _, err := a.DB.Setting(ctx, firstUseKey+agent)
	if err != nil {
		return ""
	}
	return text
}

func (a *App) lastRun(ctx context.Context) (int64, error) {
	runs, err := a.journal().Runs(ctx)
	if err != nil {
		return 0, err
	}
	for _, r := range slices.Backward(runs) {
		if r.State != change.Undone {
			return r.ID, nil
		}
	}
	return 0, nil
}

// nextCommand is the one thing to do now.
func nextCommand(s Status) string {
	switch {
	case len(s.Agents) == 0 && s.Safe.Secrets == 0:
		return "postern setup"
	case len(s.Agents) == 0:
		return "postern agent add NAME --secret SECRET"
	case s.Mode != "enforced":
		return "postern doctor"
	}
	for _, agent := range s.Agents {
		if agent.FirstUse == "" && agent.Directory != "" {
			return "cd " + agent.Directory + " && postern run -- COMMAND"
		}
	}
	return "postern ledger tail"
}

// realFiles are the files of the agent's directory in which a value of the safe
// still stands, and which are therefore covered inside.
func (a *App) realFiles(ctx context.Context, agent credential.Agent) ([]string, error) {
	if agent.Directory == "" {
		return nil, nil
	}
	found, err := setup.Find(agent.Directory)
	if err != nil {
		if os.IsNotExist(err) {
			return nil, nil
		}
		return nil, err
	}
	plan, err := a.Plan(ctx, found, agent.Name)
	if err != nil {
		return nil, err
	}
	return plan.RealFiles(), nil
}
