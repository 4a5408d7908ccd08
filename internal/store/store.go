// Package store keeps what must survive a restart: agents and placeholders,
// the undo journal, settings and the sealed rows of the safe. All SQL of the
// product stands here. The engine is SQLite in WAL mode; a commit is on disk
// before a call returns.
package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"modernc.org/sqlite"

	"postern/internal/fail"
)

// busyTimeout is how long a writer waits for the writer of another process.
const busyTimeout = 10 * time.Second

// applicationID stands in the file's header ("Pstn"), so that another
// program's database is told apart from ours.
const applicationID = 0x5073746e

// DB is an open store. Safe for concurrent use, also by several processes on
// one file. A process that has it open must not open the file or the ones
// beside it in any other way: closing them again would drop SQLite's locks.
type DB struct {
	sql      *sql.DB
	path     string
	connects *atomic.Int64
	watch    watch
	agents   agentCache
}

// Open opens the store in the file at path, and makes it where there is none.
// A damaged file, one of a newer version and one that is no store are refused,
// each with its own error, and left as they are.
func Open(ctx context.Context, path string) (*DB, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("finding the store: %w", err)
	}
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		if err := create(ctx, path); err != nil {
			return nil, err
		}
	}
	if err := checkFile(path); err != nil {
		return nil, err
	}
	d, err := connect(path)
	if err != nil {
		return nil, err
	}
	if err := d.prepare(ctx); err != nil {
		_ = d.sql.Close()
		return nil, err
	}
	return d, nil
}

// Close closes the store. The last one to close it folds the log back into
// the file.
func (d *DB) Close() error {
	old := d.watch.now.Swap(nil)
	err := d.sql.Close()
	old.close()
	return d.failed("closing the store", err)
}

// counted counts connections: what was learnt from one need not hold for the
// next.
type counted struct {
	driver.Connector
	n *atomic.Int64
}

func (c counted) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := c.Connector.Connect(ctx)
	c.n.Add(1)
	return conn, err
}

// connect prepares the one connection; it is opened at its first use. One is
// enough: calls are short, and writers have to queue anyway.
func connect(path string) (*DB, error) {
	options := url.Values{
		"mode": {"rw"},
		"_pragma": {
			fmt.Sprintf("busy_timeout(%d)", busyTimeout.Milliseconds()), "synchronous(FULL)",
			"foreign_keys(1)", "secure_delete(1)", "trusted_schema(0)", "cell_size_check(1)",
		},
	}
	dsn := url.URL{Scheme: "file", Path: path, RawQuery: options.Encode()}
	connector, err := sqlite.NewConnector(dsn.String())
	if err != nil {
		return nil, fmt.Errorf("naming the store: %w", err)
	}
	n := &atomic.Int64{}
	d := &DB{sql: sql.OpenDB(counted{connector, n}), path: path, connects: n}
	d.sql.SetMaxOpenConns(1)
	d.sql.SetMaxIdleConns(1)
	return d, nil
}

// queryer is what the statements of a transaction run on.
type queryer interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// write runs do alone among all writers, all or nothing.
func (d *DB) write(ctx context.Context, do func(queryer) error) error {
	return d.transact(ctx, "BEGIN IMMEDIATE", do)
}

// read runs do on the rows as they are at one moment.
func (d *DB) read(ctx context.Context, do func(queryer) error) error {
	return d.transact(ctx, "BEGIN DEFERRED", do)
}

func (d *DB) transact(ctx context.Context, begin string, do func(queryer) error) (err error) {
	conn, err := d.sql.Conn(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	done := false
	defer func() {
		if !done {
			// With a context of its own: the connection is used again. Also where
			// the beginning failed, which may have come to its end all the same.
			_, _ = conn.ExecContext(context.WithoutCancel(ctx), "ROLLBACK")
		}
	}()
	if _, err := conn.ExecContext(ctx, begin); err != nil {
		return err
	}
	if err := do(conn); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	// Once it has begun, a commit is not interrupted: its outcome is known.
	if _, err := conn.ExecContext(context.WithoutCancel(ctx), "COMMIT"); err != nil {
		return err
	}
	done = true
	return nil
}

// Check reads the whole file and says whether it is sound. It takes time in
// proportion to the file.
func (d *DB) Check(ctx context.Context) error {
	var verdict string
	err := d.sql.QueryRowContext(ctx, "PRAGMA integrity_check(1)").Scan(&verdict)
	if err == nil && verdict != "ok" {
		return d.damaged().Because("%s", verdict)
	}
	if err != nil {
		return d.failed("checking the store", err)
	}
	return nil
}

func (d *DB) damaged() *fail.Error { return damaged(d.path) }

func damaged(path string) *fail.Error {
	return fail.New(fail.Invalid, "P-E071", "could not open the store %s", path).
		Because("the file is damaged; nothing in it was changed").
		Hint("cp -a %s* /a/safe/place   before anything else is tried", path)
}

// SQLite's result codes, the low byte of an extended one.
// Source: sqlite3.h, read 2026-11-25.
const (
	codeBusy    = 5
	codeLocked  = 6
	codeCorrupt = 11
	codeNotADB  = 26
)

// failed makes an error for people of what the engine answered; doing is the
// text in front, "reading the agents".
func (d *DB) failed(doing string, err error) error {
	var engine *sqlite.Error
	var known *fail.Error
	switch {
	case err == nil || errors.As(err, &known):
		return err
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%s: %w", doing, err)
	case !errors.As(err, &engine):
		return fmt.Errorf("%s: %w", doing, err)
	}
	switch engine.Code() & 0xff {
	case codeCorrupt, codeNotADB:
		return d.damaged().Wrap(err)
	case codeBusy, codeLocked:
		return fail.New(fail.Unavailable, "P-E074", "could not use the store %s", d.path).
			Because("another process has held it for %v", busyTimeout).Wrap(err)
	}
	return fail.New(fail.Unavailable, "P-E073", "could not use the store %s", d.path).Because("%s: %v", doing, err).Wrap(err)
}

// nanos and moment carry times through a column; 0 is the zero time.
func nanos(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func moment(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, n).UTC()
}
