// Package app builds everything from the configuration and wires the rooms
// together: it is the only place that knows which safe, policy, ledger and
// broker belong to one another.
package app

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"postern/internal/catalog"
	"postern/internal/config"
	"postern/internal/event"
	"postern/internal/fail"
	"postern/internal/ledger"
	"postern/internal/policy"
	"postern/internal/safe/local"
	"postern/internal/secret"
	"postern/internal/store"
)

// Options are what an installation is opened with.
type Options struct {
	Getenv     func(string) string
	Now        func() time.Time
	Passphrase func(question string) (secret.Value, error)
}

// App is an opened installation.
type App struct {
	Paths   config.Paths
	Config  config.Config
	Catalog *catalog.Catalog
	DB      *store.DB
	Agents  *store.Agents
	Safe    *local.Safe
	Policy  *policy.Live

	o      Options
	ledger atomic.Pointer[ledger.Ledger]
	typed  secret.Value // a new passphrase, while it is being set
}

// Exists says whether there is an installation with a safe.
func Exists(o Options) (bool, error) {
	paths, err := config.Locate(o.Getenv)
	if err != nil {
		return false, err
	}
	if _, err := os.Stat(paths.Database()); errors.Is(err, fs.ErrNotExist) {
		return false, nil
	} else if err != nil {
		return false, fail.New(fail.Invalid, "P-E013", "the installation cannot be looked at").Wrap(err)
	}
	ctx := context.Background()
	db, err := store.Open(ctx, paths.Database())
	if err != nil {
		return false, err
	}
	exists, err := local.Exists(ctx, db.SafeRows())
	return exists, errors.Join(err, db.Close())
}

// OpenLocked opens the installation and leaves the safe locked.
func OpenLocked(ctx context.Context, o Options) (*App, error) {
	a, err := openStore(ctx, o, false)
	if err != nil {
		return nil, err
	}
	if a.Safe, err = local.Open(ctx, a.DB.SafeRows()); err != nil {
		return nil, errors.Join(err, a.DB.Close())
	}
	a.Safe.Mask = a.mask
	if a.Policy, err = policy.NewLive(a.Paths.PolicyFile()); err != nil {
		return nil, errors.Join(err, a.DB.Close())
	}
	return a, nil
}

// ready opens what a run needs: the safe and the ledger, or the ledger alone where
// a daemon has the safe open, so that this process never does.
func (a *App) ready(ctx context.Context) error {
	if a.daemonStatus(ctx).Safe == "unlocked" {
		return a.openLedger(ctx)
	}
	return a.unlock(ctx)
}

// Open opens the installation, the safe and the ledger.
func Open(ctx context.Context, o Options) (*App, error) {
	a, err := OpenLocked(ctx, o)
	if err != nil {
		return nil, err
	}
	if err := a.unlock(ctx); err != nil {
		return nil, errors.Join(err, a.Close())
	}
	return a, nil
}

// mask is what people may see of a value of a kind.
func (a *App) mask(id string, value []byte) string {
	kind, err := a.Catalog.Kind(id)
	if err != nil {
		return "…"
	}
	return catalog.Mask(kind, string(value))
}

// openStore opens what needs no key; with create, directories and store are
// made where they are missing.
func openStore(ctx context.Context, o Options, create bool) (*App, error) {
	paths, err := config.Locate(o.Getenv)
	if err != nil {
		return nil, err
	}
	if create {
		if err := paths.Make(); err != nil {
			return nil, err
		}
	} else if _, err := os.Stat(paths.Database()); errors.Is(err, fs.ErrNotExist) {
		return nil, fail.New(fail.NotFound, "P-E012", "nothing is set up yet").Because("there is no safe in %s", paths.State).Hint("postern setup")
	}
	a := &App{Paths: paths, o: o}
	if a.Config, err = config.Load(paths, o.Getenv); err != nil {
		return nil, err
	}
	if a.Catalog, err = catalog.Open(paths.CatalogDir()); err != nil {
		return nil, err
	}
	if a.DB, err = store.Open(ctx, paths.Database()); err != nil {
		return nil, err
	}
	a.Agents = a.DB.Agents()
	return a, nil
}

// unlock opens the safe with the root key that the configuration names, then
// the ledger, whose signing key lies in the safe.
func (a *App) unlock(ctx context.Context) error {
	if err := a.unlockSafe(ctx); err != nil {
		return err
	}
	return a.openLedger(ctx)
}

// Close ends everything; what was recorded is on disk when it returns.
func (a *App) Close() error {
	var errs []error
	if l := a.ledger.Load(); l != nil {
		errs = append(errs, l.Close())
	}
	if a.Safe != nil {
		a.Safe.Lock()
	}
	errs = append(errs, a.DB.Close())
	return errors.Join(errs...)
}

// note writes to the ledger what need not be on disk before it counts.
func (a *App) note(ctx context.Context, e event.Event) error {
	e.Time = a.o.Now().UTC()
	return a.ledger.Load().Record(ctx, e, false)
}

// Record writes a change to the ledger; it is on disk when Record returns.
func (a *App) Record(ctx context.Context, e event.Event) error {
	if e.Time.IsZero() {
		e.Time = a.o.Now().UTC()
	}
	return a.ledger.Load().Record(ctx, e, true)
}

// openLedger opens the ledger. While the safe is locked its records are written
// and not signed; the next process with the key signs them.
func (a *App) openLedger(ctx context.Context) error {
	o := ledger.Options{Now: a.o.Now, Reserve: int64(a.Config.Ledger.ReserveMB) << 20}
	if a.Safe.Locked() {
		return a.useLedger(o)
	}
	key, err := a.ledgerKey(ctx)
	if err != nil {
		return err
	}
	if err := a.publish(a.Paths.LedgerPublic(), []byte(ledger.PublicKey(key)+"\n")); err != nil {
		return err
	}
	o.Key = key
	return a.useLedger(o)
}

// useLedger opens the ledger and closes the one that was used before.
func (a *App) useLedger(o ledger.Options) error {
	l, err := ledger.Open(a.Paths.LedgerDir(), o)
	if err != nil {
		return err
	}
	if before := a.ledger.Swap(l); before != nil {
		return before.Close()
	}
	return nil
}

// ledgerKey is the signing key of the ledger, made when it is first needed.
func (a *App) ledgerKey(ctx context.Context) (ed25519.PrivateKey, error) {
	value, err := a.internal(ctx, "ledger", func() ([]byte, error) {
		_, key, err := ed25519.GenerateKey(nil)
		if err != nil {
			return nil, fmt.Errorf("making the ledger's key: %w", err)
		}
		return key.Seed(), nil
	})
	if err != nil {
		return nil, err
	}
	var key ed25519.PrivateKey
	err = value.Reveal(func(seed []byte) error {
		if len(seed) != ed25519.SeedSize {
			return errors.New("the ledger's key in the safe is damaged")
		}
		key = ed25519.NewKeyFromSeed(seed)
		return nil
	})
	return key, err
}

// internal is a value of our own in the safe, made by generate where it is
// missing: so a kill during the first set-up is mended by the next command.
func (a *App) internal(ctx context.Context, name string, generate func() ([]byte, error)) (secret.Value, error) {
	value, err := a.Safe.Internal(ctx, name)
	if err == nil || !fail.Is(err, fail.NotFound) {
		return value, err
	}
	raw, err := generate()
	if err != nil {
		return secret.Value{}, err
	}
	defer clear(raw)
	value = secret.New(raw)
	return value, a.Safe.PutInternal(ctx, name, value)
}

// lock keeps a second command from changing files at the same time. The
// returned function gives it back.
func (a *App) lock() (func(), error) {
	path := filepath.Join(a.Paths.State, "lock")
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fail.New(fail.Invalid, "P-E013", "the installation cannot be locked").Wrap(err)
	}
	if err := config.Adopt(path); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = file.Close()
		return nil, fail.New(fail.Conflict, "P-E014", "another command is changing this installation").
			Because("%s is locked", path).Hint("wait for it to end, then give the command again")
	}
	return func() { _ = file.Close() }, nil
}
