// Package change makes file changes that survive a kill at any point and can
// be taken back byte for byte. Every change is journaled before it is made:
// an intent with the sealed before-image, the atomic write, then "done".
package change

import (
	"context"
	"time"
)

// The states of a run and of a change.
const (
	Open     = "open"     // a run that has not finished, or was killed
	Done     = "done"     // a finished run, a change that was made
	Undone   = "undone"   // taken back, or never made
	Intended = "intended" // a change that is about to be made, or was cut off
)

// RunInfo is one run of a command that changes files.
type RunInfo struct {
	ID       int64     `json:"id"` // from 1, rising
	Command  string    `json:"command"`
	Started  time.Time `json:"started"`
	Finished time.Time `json:"finished"` // zero while the run is open
	State    string    `json:"state"`    // Open, Done or Undone
}

// Change is one step of a run. Run and Seq together name it.
type Change struct {
	Run        int64
	Seq        int    // from 1 within the run
	Path       string // absolute, without symbolic links
	Action     string // "write", "create" or "mkdir"
	Before     []byte // sealed image, see image; empty for "mkdir"
	BeforeMeta string // JSON, see meta
	AfterHash  string // SHA-256 of the written bytes in hex, empty for "mkdir"
	State      string // Intended, Done or Undone
}

// Store keeps the journal. Every call is on disk before it returns.
type Store interface {
	// BeginRun adds an open run and returns its id.
	BeginRun(ctx context.Context, command string, at time.Time) (int64, error)
	// PutChange adds the change or replaces the one with the same Run and Seq.
	PutChange(ctx context.Context, c Change) error
	// SetRun gives a run its state; at becomes Finished.
	SetRun(ctx context.Context, id int64, state string, at time.Time) error
	// Runs are all runs by rising id.
	Runs(ctx context.Context) ([]RunInfo, error)
	// Changes are the changes of a run by rising Seq, none for an unknown run.
	Changes(ctx context.Context, run int64) ([]Change, error)
}

// Sealer keeps before-images unreadable without the safe's key. What was
// sealed for one purpose does not unseal for another.
type Sealer interface {
	Seal(ctx context.Context, purpose string, plain []byte) ([]byte, error)
	Unseal(ctx context.Context, purpose string, sealed []byte) ([]byte, error)
}
