package store

import (
	"context"
	"fmt"
	"time"

	"postern/internal/change"
)

// Journal keeps the runs and changes of the undo journal; it is change.Store.
type Journal struct{ d *DB }

// Journal is the undo journal's part of the store.
func (d *DB) Journal() *Journal { return &Journal{d} }

// BeginRun adds an open run and returns its id.
func (j *Journal) BeginRun(ctx context.Context, command string, at time.Time) (int64, error) {
	var id int64
	err := j.d.sql.QueryRowContext(ctx, "INSERT INTO journal_runs (command, started, finished, state) VALUES (?, ?, 0, ?) RETURNING id",
		command, nanos(at), change.Open).Scan(&id)
	return id, j.d.failed("beginning a run", err)
}

// PutChange adds the change or replaces the one with the same Run and Seq.
func (j *Journal) PutChange(ctx context.Context, c change.Change) error {
	_, err := j.d.sql.ExecContext(ctx, `INSERT INTO journal_changes (run, seq, path, action, before, before_meta, after_hash, state)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (run, seq) DO UPDATE SET path = excluded.path, action = excluded.action,
		before = excluded.before, before_meta = excluded.before_meta, after_hash = excluded.after_hash, state = excluded.state`,
		c.Run, c.Seq, c.Path, c.Action, c.Before, c.BeforeMeta, c.AfterHash, c.State)
	return j.d.failed("writing a change", err)
}

// SetRun gives a run its state; at becomes Finished.
func (j *Journal) SetRun(ctx context.Context, id int64, state string, at time.Time) error {
	result, err := j.d.sql.ExecContext(ctx, "UPDATE journal_runs SET state = ?, finished = ? WHERE id = ?", state, nanos(at), id)
	if err != nil {
		return j.d.failed("closing a run", err)
	}
	if n, err := result.RowsAffected(); err != nil || n != 1 {
		return fmt.Errorf("closing run %d: there is no such run", id)
	}
	return nil
}

// Runs are all runs by rising id.
func (j *Journal) Runs(ctx context.Context) ([]change.RunInfo, error) {
	rows, err := j.d.sql.QueryContext(ctx, "SELECT id, command, started, finished, state FROM journal_runs ORDER BY id")
	if err != nil {
		return nil, j.d.failed("reading the runs", err)
	}
	defer rows.Close()
	var list []change.RunInfo
	for rows.Next() {
		var r change.RunInfo
		var started, finished int64
		if err := rows.Scan(&r.ID, &r.Command, &started, &finished, &r.State); err != nil {
			return nil, j.d.failed("reading the runs", err)
		}
		r.Started, r.Finished = moment(started), moment(finished)
		list = append(list, r)
	}
	return list, j.d.failed("reading the runs", rows.Err())
}

// Changes are the changes of a run by rising Seq, none for an unknown run.
func (j *Journal) Changes(ctx context.Context, run int64) ([]change.Change, error) {
	rows, err := j.d.sql.QueryContext(ctx, `SELECT run, seq, path, action, before, before_meta, after_hash, state
		FROM journal_changes WHERE run = ? ORDER BY seq`, run)
	if err != nil {
		return nil, j.d.failed("reading the changes", err)
	}
	defer rows.Close()
	var list []change.Change
	for rows.Next() {
		var c change.Change
		if err := rows.Scan(&c.Run, &c.Seq, &c.Path, &c.Action, &c.Before, &c.BeforeMeta, &c.AfterHash, &c.State); err != nil {
			return nil, j.d.failed("reading the changes", err)
		}
		list = append(list, c)
	}
	return list, j.d.failed("reading the changes", rows.Err())
}
