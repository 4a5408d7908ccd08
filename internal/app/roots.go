package app

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"postern/internal/config"
	"postern/internal/event"
	"postern/internal/fail"
	"postern/internal/safe"
	"postern/internal/safe/local"
	"postern/internal/secret"
)

// RootWay is a way to keep the root key.
type RootWay struct {
	Kind  string
	Title string
}

// RootWays are the ways that work here, the proposed one first.
func RootWays(o Options) []RootWay {
	ways := []RootWay{{config.RootKeyFile, "key file"}, {config.RootPassphrase, "passphrase"}}
	if systemdWorks(o) == nil {
		ways = append([]RootWay{{config.RootSystemd, "systemd credential"}}, ways...)
	}
	return ways
}

// systemdWorks tries to make a credential, in a directory that is removed again.
func systemdWorks(o Options) error {
	dir, err := os.MkdirTemp("", "postern-root-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	_, err = safe.NewSystemdCredential(context.Background(), filepath.Join(dir, "try"), o.Getenv)
	return err
}

// CheckRoot refuses what is no way to keep the root key.
func CheckRoot(kind string) error {
	switch kind {
	case config.RootKeyFile, config.RootPassphrase, config.RootSystemd:
		return nil
	}
	return fail.New(fail.Invalid, "P-E015", "there is no root key by %q", kind).Because("there are keyfile, passphrase and systemd")
}

// RootWords say how the root key is kept, and how good that is.
func (a *App) RootWords() string {
	switch a.Safe.RootKind() {
	case config.RootKeyFile:
		return "key file " + a.keyFile() + " (the weakest way: whoever reads it can open the safe)"
	case config.RootSystemd:
		return "systemd credential"
	}
	return "passphrase"
}

func (a *App) keyFile() string {
	if a.Config.Safe.KeyFile != "" {
		return a.Config.Safe.KeyFile
	}
	return a.Paths.RootKey()
}

func (a *App) credentialFile() string {
	if a.Config.Safe.CredentialFile != "" {
		return a.Config.Safe.CredentialFile
	}
	return a.Paths.RootCredential()
}

// root is the way into a safe that exists.
func (a *App) root(kind string) (safe.Root, error) {
	switch kind {
	case config.RootKeyFile:
		return safe.KeyFile(a.keyFile()), nil
	case config.RootSystemd:
		return safe.SystemdCredential(a.credentialFile(), a.o.Getenv), nil
	case config.RootPassphrase:
		return safe.Passphrase(func() (secret.Value, error) { return a.o.Passphrase("Passphrase of the safe:") }), nil
	}
	return nil, fail.New(fail.Invalid, "P-E015", "the safe wants a root key by %q, which this version does not know", kind)
}

// newRoot makes a root key of its own where the way needs one.
func (a *App) newRoot(ctx context.Context, kind string) (safe.Root, error) {
	switch kind {
	case config.RootKeyFile:
		return leftOver(safe.KeyFile(a.keyFile()), func() (safe.Root, error) { return safe.NewKeyFile(a.keyFile()) })
	case config.RootSystemd:
		old := safe.SystemdCredential(a.credentialFile(), a.o.Getenv)
		return leftOver(old, func() (safe.Root, error) { return safe.NewSystemdCredential(ctx, a.credentialFile(), a.o.Getenv) })
	case config.RootPassphrase:
		return safe.Passphrase(a.newPassphrase()), nil
	}
	return nil, CheckRoot(kind)
}

// leftOver takes the key that a killed first set-up has made already: there is
// no safe yet that it could open.
func leftOver(old safe.Root, make func() (safe.Root, error)) (safe.Root, error) {
	root, err := make()
	if fail.Is(err, fail.Conflict) {
		return old, nil
	}
	return root, err
}

// newPassphrase asks twice, once.
func (a *App) newPassphrase() func() (secret.Value, error) {
	return func() (secret.Value, error) {
		if !a.typed.IsZero() {
			return a.typed, nil
		}
		first, err := a.o.Passphrase("New passphrase of the safe:")
		if err != nil {
			return secret.Value{}, err
		}
		if first.Len() < 8 {
			return secret.Value{}, fail.New(fail.Invalid, "P-E016", "the passphrase is too short").Because("it needs at least 8 characters; several words are better")
		}
		second, err := a.o.Passphrase("Once more:")
		if err != nil {
			return secret.Value{}, err
		}
		if !first.Equal(second) {
			return secret.Value{}, fail.New(fail.Invalid, "P-E016", "the two passphrases differ")
		}
		a.typed = first
		return a.typed, nil
	}
}

// Create makes an installation with an empty safe, whose root key is kept by
// kind. What a killed Create left is taken up again.
func Create(ctx context.Context, o Options, kind string) (*App, error) {
	if err := CheckRoot(kind); err != nil {
		return nil, err
	}
	a, err := openStore(ctx, o, true)
	if err != nil {
		return nil, err
	}
	if err := a.create(ctx, kind); err != nil {
		return nil, errors.Join(err, a.DB.Close())
	}
	if err := a.DB.Close(); err != nil {
		return nil, err
	}
	if typed := a.typed; !typed.IsZero() { // it was asked for just now
		o.Passphrase = func(string) (secret.Value, error) { return typed, nil }
	}
	return Open(ctx, o)
}

func (a *App) create(ctx context.Context, kind string) error {
	unlock, err := a.lock()
	if err != nil {
		return err
	}
	defer unlock()
	root, err := a.newRoot(ctx, kind)
	if err != nil {
		return err
	}
	if err := a.chooseRoot(kind); err != nil {
		return err
	}
	a.Safe, err = local.Create(ctx, a.DB.SafeRows(), root)
	if err != nil {
		return err
	}
	a.Safe.Mask = a.mask
	if err := a.openLedger(ctx); err != nil {
		return err
	}
	if _, err := a.authority(ctx); err != nil {
		return err
	}
	err = a.Record(ctx, event.Event{Kind: event.SafeCreated, Detail: map[string]string{"root": kind}})
	return errors.Join(err, a.ledger.Load().Close())
}

// chooseRoot notes the way in config.yaml, and keeps what stands there.
func (a *App) chooseRoot(kind string) error {
	path := a.Paths.ConfigFile()
	data, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("reading config.yaml: %w", err)
	}
	next, err := config.Set(data, "safe", "root", kind)
	if err != nil {
		return err
	}
	a.Config.Safe.Root = kind
	return replaceFile(path, next, 0o600)
}

// Rekey gives the safe a new root key, kept by kind.
func (a *App) Rekey(ctx context.Context, kind string) error {
	unlock, err := a.lock()
	if err != nil {
		return err
	}
	defer unlock()
	before := a.Safe.RootKind()
	if err := a.rekey(ctx, kind); err != nil {
		return err
	}
	if err := a.chooseRoot(kind); err != nil {
		return err
	}
	if before == config.RootKeyFile && kind != before { // it opens nothing any more
		if err := os.Remove(a.keyFile()); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("removing the old key file: %w", err)
		}
	}
	return a.Record(ctx, event.Event{Kind: event.Rekeyed, Detail: map[string]string{"root": kind}})
}

func (a *App) rekey(ctx context.Context, kind string) error {
	with := func(root safe.Root) error { return a.Safe.Rekey(ctx, root) }
	switch kind {
	case config.RootKeyFile:
		return safe.ReplaceKeyFile(a.keyFile(), with)
	case config.RootSystemd:
		root, err := safe.NewSystemdCredential(ctx, a.credentialFile(), a.o.Getenv)
		if err != nil {
			return err
		}
		return with(root)
	}
	return with(safe.Passphrase(a.newPassphrase()))
}

// unlockSafe opens the safe with the root key that it wants.
func (a *App) unlockSafe(ctx context.Context) error {
	root, err := a.root(a.Safe.RootKind())
	if err != nil {
		return err
	}
	return a.Safe.Unlock(ctx, root)
}
