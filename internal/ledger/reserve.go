package ledger

import (
	"golang.org/x/sys/unix"
)

const (
	// reserveStep is what is given up at a time: some 700 records.
	reserveStep = 256 << 10
	// reserveForUses is the share that uses may take: the rest is kept to
	// record that they are refused.
	reserveForUses = 0.75
)

// reserve is a file that holds blocks for the day when the disk is full. The
// shared lock guards it.
type reserve struct {
	dir  *dir
	want int64 // bytes, 0 for none
	low  bool  // some of it was given up, or never got
}

// fill takes the blocks that are missing, while the disk has twice as many left.
func (r *reserve) fill() {
	if r.want <= 0 {
		return
	}
	r.low = true
	f, err := r.dir.open(reserveFile, true)
	if err != nil {
		return // the next round tries again; until then there is no reserve
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return
	}
	if missing := r.want - info.Size(); missing > 0 {
		var disk unix.Statfs_t
		if err := unix.Fstatfs(int(f.Fd()), &disk); err != nil || int64(disk.Bavail)*disk.Bsize < 2*missing {
			return
		}
		if err := unix.Fallocate(int(f.Fd()), 0, info.Size(), missing); err != nil {
			_ = f.Truncate(info.Size())
			return
		}
	}
	r.low = false
}

// release gives a piece back to the disk and says whether there was one for a
// record of this sort.
func (r *reserve) release(use bool) bool {
	f, err := r.dir.open(reserveFile, false)
	if err != nil {
		return false
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return false
	}
	floor := int64(0)
	if use {
		floor = int64(float64(r.want) * (1 - reserveForUses))
	}
	size := info.Size()
	if size <= floor {
		return false
	}
	r.low = true
	return f.Truncate(max(floor, size-reserveStep)) == nil
}
