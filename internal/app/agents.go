package app

import (
	"context"
	"path/filepath"
	"strings"

	"postern/internal/credential"
	"postern/internal/event"
	"postern/internal/fail"
	"postern/internal/policy"
)

// NewAgent is an agent to be added.
type NewAgent struct {
	Name, Directory string
	Environment     credential.Environment
	Secrets         []string
}

// AgentDetail is an agent with what it holds.
type AgentDetail struct {
	Agent        credential.Agent         `json:"agent"`
	Egress       string                   `json:"egress"`
	Placeholders []credential.Placeholder `json:"placeholders"`
}

// AddAgent adds an agent, grants it the secrets and makes their placeholders.
func (a *App) AddAgent(ctx context.Context, n NewAgent) (AgentDetail, error) {
	if !credential.ValidName(n.Name) {
		return AgentDetail{}, fail.New(fail.Invalid, "P-E018", "%q is no name for an agent", n.Name).
			Because("names are made of a-z, 0-9, dot, hyphen and underscore, at most 64 characters")
	}
	if _, err := a.Agents.Get(ctx, n.Name); err == nil {
		return AgentDetail{}, fail.New(fail.Conflict, "P-E018", "there is an agent %q already", n.Name).Hint("postern agent show %s", n.Name)
	} else if !fail.Is(err, fail.NotFound) {
		return AgentDetail{}, err
	}
	for _, name := range n.Secrets {
		if _, err := a.Safe.Get(ctx, name); err != nil {
			return AgentDetail{}, err
		}
	}
	agent := credential.Agent{Name: n.Name, Environment: n.Environment, Directory: n.Directory, Created: a.o.Now().UTC()}
	if err := a.Agents.Add(ctx, agent); err != nil {
		return AgentDetail{}, err
	}
	if err := a.Record(ctx, event.Event{Kind: event.AgentAdded, Agent: n.Name}); err != nil {
		return AgentDetail{}, err
	}
	for _, name := range n.Secrets {
		if _, err := a.lend(ctx, n.Name, name); err != nil {
			return AgentDetail{}, err
		}
	}
	return a.AgentDetail(ctx, n.Name)
}

// RemoveAgent removes an agent; its placeholders are tripwires from then on.
func (a *App) RemoveAgent(ctx context.Context, name string) error {
	if err := a.Agents.Remove(ctx, name); err != nil {
		return err
	}
	if _, err := a.changePolicy(ctx, func(current []byte) ([]byte, error) { return policy.RemoveAgent(current, name) }); err != nil {
		return err
	}
	return a.Record(ctx, event.Event{Kind: event.AgentRemoved, Agent: name})
}

// AgentDetail is one agent.
func (a *App) AgentDetail(ctx context.Context, name string) (AgentDetail, error) {
	agent, err := a.Agents.Get(ctx, name)
	if err != nil {
		return AgentDetail{}, err
	}
	held, err := a.Agents.Placeholders(ctx, name)
	return AgentDetail{Agent: agent, Egress: a.egressOf(name), Placeholders: append([]credential.Placeholder{}, held...)}, err
}

// AgentDetails are all agents that were not removed.
func (a *App) AgentDetails(ctx context.Context) ([]AgentDetail, error) {
	details := []AgentDetail{}
	agents, err := a.Agents.List(ctx)
	if err != nil {
		return nil, err
	}
	for _, agent := range agents {
		if agent.Removed {
			continue
		}
		d, err := a.AgentDetail(ctx, agent.Name)
		if err != nil {
			return nil, err
		}
		details = append(details, d)
	}
	return details, nil
}

// OnlyAgent is name, or the one agent that there is.
func (a *App) OnlyAgent(ctx context.Context, name string) (string, error) {
	if name != "" {
		_, err := a.Agents.Get(ctx, name)
		return name, err
	}
	details, err := a.AgentDetails(ctx)
	if err != nil {
		return "", err
	}
	if len(details) != 1 {
		return "", fail.New(fail.Invalid, "P-E122", "it is not clear which agent is meant").Because("there are %d agents", len(details)).Hint("--agent NAME   postern agent ls lists them")
	}
	return details[0].Agent.Name, nil
}

// agentAt is the agent of a directory: the one whose directory is dir or the
// nearest one above it.
func (a *App) agentAt(ctx context.Context, dir string) (credential.Agent, error) {
	agents, err := a.Agents.List(ctx)
	if err != nil {
		return credential.Agent{}, err
	}
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		dir = real
	}
	var best credential.Agent
	for _, agent := range agents {
		inside := dir == agent.Directory || strings.HasPrefix(dir, strings.TrimSuffix(agent.Directory, "/")+"/")
		if !agent.Removed && agent.Directory != "" && inside && len(agent.Directory) > len(best.Directory) {
			best = agent
		}
	}
	if best.Name == "" {
		return best, fail.New(fail.NotFound, "P-E122", "no agent belongs to this directory").
			Because("%s was not set up", dir).Hint("postern setup   take its keys into the safe").Hint("postern run --agent NAME -- …")
	}
	return best, nil
}
