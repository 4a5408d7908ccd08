package store

import (
	"context"
	"encoding/binary"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// The header of the WAL index: a transaction counter at 8, and at 40 the
// checksum over everything before, which changes with every commit.
// Source: sqlite.org/walformat.html §2.1, read 2026-11-25.
const (
	indexVersion  = 3007000
	indexChecksum = 40
)

// watch tells changes by any process without a query: it reads the checksum in
// the header of the WAL index that all of them share.
type watch struct {
	mu  sync.Mutex
	now atomic.Pointer[watched]
}

type watched struct {
	fd      int
	connect int64 // the connection that keeps the file in place
}

// Generation is another number after every commit of this or another process.
// It costs one small read of a file that is in memory.
func (d *DB) Generation(ctx context.Context) (uint64, error) {
	if w := d.watch.now.Load(); w != nil && w.connect == d.connects.Load() {
		var b [8]byte
		if n, err := unix.Pread(w.fd, b[:], indexChecksum); err == nil && n == len(b) {
			return binary.NativeEndian.Uint64(b[:]), nil
		}
	}
	return d.lookAgain(ctx)
}

// lookAgain opens the index of the current connection.
func (d *DB) lookAgain(ctx context.Context) (uint64, error) {
	d.watch.mu.Lock()
	defer d.watch.mu.Unlock()
	var count int64 // the read makes sure that there is a connection and an index
	if err := d.sql.QueryRowContext(ctx, "SELECT count(*) FROM settings").Scan(&count); err != nil {
		return 0, d.failed("looking for changes", err)
	}
	next := &watched{connect: d.connects.Load()}
	var err error
	if next.fd, err = unix.Open(d.path+"-shm", unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0); err != nil {
		return 0, d.failed("looking for changes", err)
	}
	d.watch.now.Swap(next).close()
	var head [indexChecksum + 8]byte
	if n, err := unix.Pread(next.fd, head[:], 0); err != nil || n != len(head) || binary.NativeEndian.Uint32(head[:]) != indexVersion {
		return 0, d.damaged().Because("its index %s-shm has another form", d.path).Wrap(err)
	}
	return binary.NativeEndian.Uint64(head[indexChecksum:]), nil
}

// close gives up the file, but keeps the descriptor as long as the file has a
// name: closing any descriptor of it would drop the locks that SQLite holds on
// it for all of this process. SQLite removes the name with the last connection.
func (w *watched) close() {
	var info unix.Stat_t
	if w != nil && unix.Fstat(w.fd, &info) == nil && info.Nlink == 0 {
		_ = unix.Close(w.fd)
	}
}
