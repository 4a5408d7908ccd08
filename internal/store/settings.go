package store

import (
	"context"
	"database/sql"
	"errors"
)

// Setting is the value kept under key, false where there is none.
func (d *DB) Setting(ctx context.Context, key string) (string, bool, error) {
	var value string
	err := d.sql.QueryRowContext(ctx, "SELECT value FROM settings WHERE key = ?", key).Scan(&value)
	if errors.Is(err, sql.ErrNoRows) {
		return "", false, nil
	}
	if err != nil {
		return "", false, d.failed("reading a setting", err)
	}
	return value, true, nil
}

// SetSetting keeps value under key.
func (d *DB) SetSetting(ctx context.Context, key, value string) error {
	_, err := d.sql.ExecContext(ctx, "INSERT INTO settings (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value", key, value)
	return d.failed("writing a setting", err)
}
