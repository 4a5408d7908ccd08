package store

import (
	"context"
	"embed"
	"fmt"

	"postern/internal/fail"
)

//go:embed migrations/*.sql
var migrationFiles embed.FS

// schema is the newest version: the number of files in migrations, which are
// numbered from 1.
const schema = 1

// prepare looks at what the file is and brings it up to this version.
func (d *DB) prepare(ctx context.Context) error {
	var version, application int
	row := d.sql.QueryRowContext(ctx, "SELECT user_version, application_id FROM pragma_user_version, pragma_application_id")
	if err := row.Scan(&version, &application); err != nil {
		return d.failed("opening it", err)
	}
	switch {
	case application != applicationID:
		return fail.New(fail.Invalid, "P-E071", "could not open the store %s", d.path).
			Because("it is a database, but not one of Postern's")
	case version > schema:
		return fail.New(fail.Invalid, "P-E072", "could not open the store %s", d.path).
			Because("a newer Postern wrote it (version %d, this one knows %d); nothing was changed", version, schema).
			Hint("postern version   and install the newer one")
	}
	return d.migrate(ctx, version)
}

// migrate brings the file from version to the newest, each step all or nothing,
// and into WAL mode, which stays with the file.
func (d *DB) migrate(ctx context.Context, version int) error {
	var mode string
	if err := d.sql.QueryRowContext(ctx, "PRAGMA journal_mode = WAL").Scan(&mode); err != nil {
		return d.failed("opening it", err)
	}
	if mode != "wal" {
		return unusable(d.path, fmt.Errorf("its file system cannot share memory between processes (journal mode %s)", mode))
	}
	for next := version + 1; next <= schema; next++ {
		if err := d.step(ctx, next); err != nil {
			return d.failed(fmt.Sprintf("bringing it to version %d", next), err)
		}
	}
	return nil
}

func (d *DB) step(ctx context.Context, next int) error {
	names, err := migrationFiles.ReadDir("migrations")
	if err != nil {
		return err
	}
	text, err := migrationFiles.ReadFile("migrations/" + names[next-1].Name())
	if err != nil {
		return err
	}
	return d.write(ctx, func(q queryer) error {
		var now int
		if err := q.QueryRowContext(ctx, "PRAGMA user_version").Scan(&now); err != nil {
			return err
		}
		if now >= next { // another process was faster
			return nil
		}
		if _, err := q.ExecContext(ctx, string(text)); err != nil {
			return err
		}
		_, err := q.ExecContext(ctx, fmt.Sprintf("PRAGMA user_version = %d; PRAGMA application_id = %d", next, applicationID))
		return err
	})
}
