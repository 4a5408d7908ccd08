package cli

import (
	"postern/internal/app"
	"postern/internal/catalog"
	"postern/internal/credential"
	"postern/internal/event"
)

// outputs are the documents that commands print with --json, by command.
func outputs() map[string]any {
	return map[string]any{
		"agent add":      app.AgentDetail{},
		"agent ls":       []app.AgentDetail{},
		"agent show":     app.AgentDetail{},
		"catalog ls":     []catalog.Record{},
		"catalog show":   catalog.Kind{},
		"doctor":         []app.Probe{},
		"env check":      []EnvReport{},
		"ledger find":    []event.Event{},
		"ledger tail":    []event.Event{},
		"ledger verify":  app.LedgerReport{},
		"policy explain": app.Answer{},
		"policy ls":      []app.Rule{},
		"policy test":    app.Answer{},
		"secret add":     app.AddedSecret{},
		"secret history": []credential.Version{},
		"secret import":  SetupOutput{},
		"secret ls":      []credential.Credential{},
		"secret show":    SecretDetail{},
		"setup":          SetupOutput{},
		"status":         app.Status{},
		"undo":           app.UndoReport{},
		"version":        Version{},
	}
}
