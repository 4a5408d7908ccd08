CREATE TABLE settings (
	key   TEXT PRIMARY KEY,
	value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE agents (
	name        TEXT PRIMARY KEY,
	environment TEXT NOT NULL,
	directory   TEXT NOT NULL,
	created     INTEGER NOT NULL, -- nanoseconds since 1970, as every time here
	removed     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE placeholders (
	text       TEXT PRIMARY KEY,
	agent      TEXT NOT NULL REFERENCES agents (name),
	credential TEXT NOT NULL,
	created    INTEGER NOT NULL,
	revoked    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX placeholders_of_agent ON placeholders (agent);

CREATE TABLE journal_runs (
	id       INTEGER PRIMARY KEY AUTOINCREMENT,
	command  TEXT NOT NULL,
	started  INTEGER NOT NULL,
	finished INTEGER NOT NULL, -- 0 while the run is open
	state    TEXT NOT NULL
) STRICT;

CREATE TABLE journal_changes (
	run         INTEGER NOT NULL REFERENCES journal_runs (id),
	seq         INTEGER NOT NULL,
	path        TEXT NOT NULL,
	action      TEXT NOT NULL,
	before      BLOB,
	before_meta TEXT NOT NULL,
	after_hash  TEXT NOT NULL,
	state       TEXT NOT NULL,
	PRIMARY KEY (run, seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE safe_meta (
	id        INTEGER PRIMARY KEY CHECK (id = 1),
	format    INTEGER NOT NULL,
	store_id  BLOB NOT NULL,
	root_kind TEXT NOT NULL,
	root_salt BLOB NOT NULL,
	verifier  BLOB NOT NULL,
	checksum  BLOB NOT NULL,
	store_key BLOB NOT NULL,
	counter   INTEGER NOT NULL,
	contents  BLOB NOT NULL,
	mac       BLOB NOT NULL
) STRICT;

CREATE TABLE safe_credentials (
	name        TEXT PRIMARY KEY,
	kind        TEXT NOT NULL,
	environment TEXT NOT NULL,
	hosts       TEXT NOT NULL,
	variable    TEXT NOT NULL,
	origin      TEXT NOT NULL,
	restored    INTEGER NOT NULL,
	disabled    INTEGER NOT NULL,
	created     INTEGER NOT NULL,
	serial      INTEGER NOT NULL,
	mac         BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- No foreign key: a row of versions whose credential is gone is damage that
-- the safe itself must find.
CREATE TABLE safe_versions (
	credential  TEXT NOT NULL,
	number      INTEGER NOT NULL,
	state       TEXT NOT NULL,
	created     INTEGER NOT NULL,
	fingerprint TEXT NOT NULL,
	bytes       INTEGER NOT NULL,
	mask        TEXT NOT NULL,
	wrapped_key BLOB NOT NULL,
	sealed      BLOB NOT NULL,
	PRIMARY KEY (credential, number)
) STRICT;

CREATE TABLE safe_blobs (
	name        TEXT PRIMARY KEY,
	serial      INTEGER NOT NULL,
	wrapped_key BLOB NOT NULL,
	sealed      BLOB NOT NULL
) STRICT;
