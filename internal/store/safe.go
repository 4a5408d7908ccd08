package store

import (
	"context"
	"database/sql"
	"errors"

	"postern/internal/safe/local"
)

// SafeRows keeps the sealed rows of the embedded safe; it is local.Rows.
type SafeRows struct{ d *DB }

// SafeRows is the safe's part of the store.
func (d *DB) SafeRows() *SafeRows { return &SafeRows{d} }

// Generation is another number after every change of this or another process.
func (r *SafeRows) Generation(ctx context.Context) (uint64, error) { return r.d.Generation(ctx) }

// Meta is the head of the safe, nil where there is none.
func (r *SafeRows) Meta(ctx context.Context) (*local.Meta, error) {
	m, err := readMeta(ctx, r.d.sql)
	return m, r.d.failed("reading the safe", err)
}

// Image is everything, as of one moment.
func (r *SafeRows) Image(ctx context.Context) (local.Image, error) {
	var image local.Image
	err := r.d.read(ctx, func(q queryer) (err error) {
		image, err = readImage(ctx, q)
		return err
	})
	return image, r.d.failed("reading the safe", err)
}

// Update gives change everything and writes what it returns, in one
// transaction that keeps other writers out.
func (r *SafeRows) Update(ctx context.Context, change func(local.Image) (local.Batch, error)) error {
	var batch local.Batch
	err := r.d.write(ctx, func(q queryer) error {
		image, err := readImage(ctx, q)
		if err != nil {
			return err
		}
		if batch, err = change(image); err != nil {
			return err
		}
		return writeBatch(ctx, q, batch)
	})
	if err != nil {
		return r.d.failed("writing the safe", err)
	}
	if batch.Erase {
		// Freed pages are overwritten with zeros (secure_delete); this empties the
		// log that still has them. Where a reader is in the way, the next writer
		// does it.
		_, _ = r.d.sql.ExecContext(context.WithoutCancel(ctx), "PRAGMA wal_checkpoint(TRUNCATE)")
	}
	return nil
}

func readImage(ctx context.Context, q queryer) (image local.Image, err error) {
	if image.Meta, err = readMeta(ctx, q); err != nil {
		return image, err
	}
	if image.Credentials, err = readCredentials(ctx, q); err != nil {
		return image, err
	}
	if image.Versions, err = readVersions(ctx, q); err != nil {
		return image, err
	}
	image.Blobs, err = readBlobs(ctx, q)
	return image, err
}

func readMeta(ctx context.Context, q queryer) (*local.Meta, error) {
	var m local.Meta
	err := q.QueryRowContext(ctx, `SELECT format, store_id, root_kind, root_salt, verifier, checksum, store_key, counter, contents, mac
		FROM safe_meta WHERE id = 1`).
		Scan(&m.Format, &m.StoreID, &m.RootKind, &m.RootSalt, &m.Verifier, &m.Checksum, &m.StoreKey, &m.Counter, &m.Contents, &m.MAC)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &m, nil
}

func readCredentials(ctx context.Context, q queryer) (list []local.CredentialRow, err error) {
	rows, err := q.QueryContext(ctx, `SELECT name, kind, environment, hosts, variable, origin, restored, disabled, created, serial, mac
		FROM safe_credentials ORDER BY name`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var c local.CredentialRow
		err := rows.Scan(&c.Name, &c.Kind, &c.Environment, &c.Hosts, &c.Variable, &c.Origin, &c.Restored, &c.Disabled, &c.Created, &c.Serial, &c.MAC)
		if err != nil {
			return nil, err
		}
		list = append(list, c)
	}
	return list, rows.Err()
}

func readVersions(ctx context.Context, q queryer) (list []local.VersionRow, err error) {
	rows, err := q.QueryContext(ctx, `SELECT credential, number, state, created, fingerprint, bytes, mask, wrapped_key, sealed
		FROM safe_versions ORDER BY credential, number`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var v local.VersionRow
		err := rows.Scan(&v.Credential, &v.Number, &v.State, &v.Created, &v.Fingerprint, &v.Bytes, &v.Mask, &v.WrappedKey, &v.Sealed)
		if err != nil {
			return nil, err
		}
		list = append(list, v)
	}
	return list, rows.Err()
}

func readBlobs(ctx context.Context, q queryer) (list []local.BlobRow, err error) {
	rows, err := q.QueryContext(ctx, "SELECT name, serial, wrapped_key, sealed FROM safe_blobs ORDER BY name")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var b local.BlobRow
		if err := rows.Scan(&b.Name, &b.Serial, &b.WrappedKey, &b.Sealed); err != nil {
			return nil, err
		}
		list = append(list, b)
	}
	return list, rows.Err()
}

func writeBatch(ctx context.Context, q queryer, b local.Batch) error {
	for _, name := range b.Remove {
		if _, err := q.ExecContext(ctx, "DELETE FROM safe_versions WHERE credential = ?", name); err != nil {
			return err
		}
		if _, err := q.ExecContext(ctx, "DELETE FROM safe_credentials WHERE name = ?", name); err != nil {
			return err
		}
	}
	for _, c := range b.Credentials {
		_, err := q.ExecContext(ctx, `INSERT INTO safe_credentials (name, kind, environment, hosts, variable, origin, restored, disabled, created, serial, mac)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (name) DO UPDATE SET kind = excluded.kind, environment = excluded.environment,
			hosts = excluded.hosts, variable = excluded.variable, origin = excluded.origin, restored = excluded.restored,
			disabled = excluded.disabled, created = excluded.created, serial = excluded.serial, mac = excluded.mac`,
			c.Name, c.Kind, c.Environment, c.Hosts, c.Variable, c.Origin, c.Restored, c.Disabled, c.Created, c.Serial, c.MAC)
		if err != nil {
			return err
		}
	}
	for _, v := range b.Versions {
		_, err := q.ExecContext(ctx, `INSERT INTO safe_versions (credential, number, state, created, fingerprint, bytes, mask, wrapped_key, sealed)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (credential, number) DO UPDATE SET state = excluded.state, created = excluded.created,
			fingerprint = excluded.fingerprint, bytes = excluded.bytes, mask = excluded.mask, wrapped_key = excluded.wrapped_key, sealed = excluded.sealed`,
			v.Credential, v.Number, v.State, v.Created, v.Fingerprint, v.Bytes, v.Mask, v.WrappedKey, v.Sealed)
		if err != nil {
			return err
		}
	}
	for _, one := range b.Blobs {
		_, err := q.ExecContext(ctx, `INSERT INTO safe_blobs (name, serial, wrapped_key, sealed) VALUES (?, ?, ?, ?)
			ON CONFLICT (name) DO UPDATE SET serial = excluded.serial, wrapped_key = excluded.wrapped_key, sealed = excluded.sealed`,
			one.Name, one.Serial, one.WrappedKey, one.Sealed)
		if err != nil {
			return err
		}
	}
	if m := b.Meta; m != nil {
		_, err := q.ExecContext(ctx, `INSERT INTO safe_meta (id, format, store_id, root_kind, root_salt, verifier, checksum, store_key, counter, contents, mac)
			VALUES (1, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET format = excluded.format, store_id = excluded.store_id,
			root_kind = excluded.root_kind, root_salt = excluded.root_salt, verifier = excluded.verifier, checksum = excluded.checksum,
			store_key = excluded.store_key, counter = excluded.counter, contents = excluded.contents, mac = excluded.mac`,
			m.Format, m.StoreID, m.RootKind, m.RootSalt, m.Verifier, m.Checksum, m.StoreKey, m.Counter, m.Contents, m.MAC)
		return err
	}
	return nil
}
