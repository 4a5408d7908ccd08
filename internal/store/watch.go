package store

import (
	"context"
	"encoding/binary"
	"os"
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
	file    *os.File
	connect int64 // the connection that keeps the file in place
}

// Generation is another number after every commit of this or another process.
// It costs one small read of a file that is in memory.
func (d *DB) Generation(ctx context.Context) (uint64, error) {
	if w := d.watch.now.Load(); w != nil && w.connect == d.connects.Load() {
		if n, ok := w.read(); ok {
			return n, nil
		}
	}
	return d.lookAgain(ctx)
}

func (w *watched) read() (uint64, bool) {
	var b [8]byte
	n, err := unix.Pread(int(w.file.Fd()), b[:], indexChecksum)
	return binary.NativeEndian.Uint64(b[:]), err == nil && n == len(b)
}

// lookAgain opens the index of the current connection.
func (d *DB) lookAgain(ctx context.Context) (uint64, error) {
	d.watch.mu.Lock()
	defer d.watch.mu.Unlock()
	var count int64 // the read makes sure that there is a connection and an index
	if err := d.sql.QueryRowContext(ctx, "SELECT count(*) FROM settings").Scan(&count); err != nil {
		return 0, d.failed("looking for changes", err)
	}
	connect := d.connects.Load()
	file, err := os.Open(d.path + "-shm")
	if err != nil {
		return 0, d.failed("looking for changes", err)
	}
	var head [indexChecksum + 8]byte
	if _, err := file.ReadAt(head[:], 0); err != nil || binary.NativeEndian.Uint32(head[:]) != indexVersion {
		_ = file.Close()
		return 0, d.damaged().Because("its index %s-shm has another form", d.path).Wrap(err)
	}
	if old := d.watch.now.Swap(&watched{file: file, connect: connect}); old != nil {
		_ = old.file.Close()
	}
	return binary.NativeEndian.Uint64(head[indexChecksum:]), nil
}

func (w *watch) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if old := w.now.Swap(nil); old != nil {
		_ = old.file.Close()
	}
}
