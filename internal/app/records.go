package app

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"strings"
	"time"

	"postern/internal/config"
	"postern/internal/event"
	"postern/internal/fail"
	"postern/internal/ledger"
)

// LedgerFilter says which records are wanted; empty fields match all.
type LedgerFilter struct {
	Agent, Credential, Kind, Host string
	Since                         time.Time
}

// LedgerReport is the outcome of a verification.
type LedgerReport struct {
	OK         bool     `json:"ok"`
	Records    uint64   `json:"records"`
	Checkpoint uint64   `json:"checkpoint"` // records that the signed checkpoint covers
	Problem    string   `json:"problem,omitempty"`
	BadSeq     uint64   `json:"bad_seq,omitempty"` // the first record that does not hold
	Limits     []string `json:"limits"`            // what the verification cannot say
}

// LedgerTail are the last n records.
func LedgerTail(_ context.Context, o Options, n int) ([]event.Event, error) {
	dir, err := ledgerDir(o)
	if err != nil {
		return nil, err
	}
	return ledger.ReadTail(dir, n)
}

// LedgerFind are the records that match.
func LedgerFind(ctx context.Context, o Options, f LedgerFilter) ([]event.Event, error) {
	dir, err := ledgerDir(o)
	if err != nil {
		return nil, err
	}
	found := []event.Event{}
	filter := ledger.Filter{Agent: f.Agent, Credential: f.Credential, Kind: event.Kind(f.Kind), Host: f.Host, Since: f.Since}
	err = ledger.Find(ctx, dir, filter, func(e event.Event) bool {
		found = append(found, e)
		return true
	})
	return found, err
}

// LedgerVerify checks the whole ledger against its public key, and against
// checkpoints that were kept elsewhere.
func LedgerVerify(ctx context.Context, o Options, kept ...string) (LedgerReport, error) {
	dir, err := ledgerDir(o)
	if err != nil {
		return LedgerReport{}, err
	}
	paths, err := config.Locate(o.Getenv)
	if err != nil {
		return LedgerReport{}, err
	}
	public, err := os.ReadFile(paths.LedgerPublic())
	if err != nil {
		return LedgerReport{}, fail.New(fail.Incomplete, "P-E148", "the ledger cannot be verified").Because("its public key, %s, cannot be read", paths.LedgerPublic())
	}
	var witnessed [][]byte
	for _, path := range kept {
		checkpoint, err := os.ReadFile(path)
		if err != nil {
			return LedgerReport{}, fail.New(fail.Invalid, "P-E149", "the checkpoint cannot be read").Wrap(err)
		}
		witnessed = append(witnessed, checkpoint)
	}
	return verifyLedger(ctx, dir, witnessed, strings.TrimSpace(string(public)))
}

func ledgerDir(o Options) (string, error) {
	paths, err := config.Locate(o.Getenv)
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(paths.LedgerDir()); errors.Is(err, fs.ErrNotExist) {
		return "", fail.New(fail.NotFound, "P-E012", "nothing is set up yet").Because("there is no ledger in %s", paths.State).Hint("postern setup")
	}
	return paths.LedgerDir(), nil
}

// verifyLedger puts the outcome of a verification into the form of the report.
func verifyLedger(ctx context.Context, dir string, witnessed [][]byte, public string) (LedgerReport, error) {
	r, err := ledger.Verify(ctx, dir, public, witnessed...)
	if err != nil {
		return LedgerReport{}, err
	}
	report := LedgerReport{OK: r.OK(), Records: r.Entries, Checkpoint: r.Signed, BadSeq: r.FirstBad, Limits: append([]string{}, r.Limits()...)}
	if len(r.Problems) > 0 {
		report.Problem = r.Problems[0].Text
	}
	return report, nil
}
