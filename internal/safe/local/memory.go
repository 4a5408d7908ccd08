package local

import (
	"os"

	"golang.org/x/sys/unix"
)

// guarded is a page of memory for keys: outside of the heap, never swapped, in
// no core dump, and where the kernel allows it not even readable by the kernel
// itself (memfd_secret). It does not cover copies that a cipher makes while it
// works.
type guarded struct {
	page []byte
	kind string
}

// The kinds of guarded memory, best first.
const (
	memorySecret = "memfd_secret"
	memoryLocked = "mlock"
	memoryPlain  = "unlocked" // no right or no room to lock it
	memoryHeap   = "heap"
)

// newGuarded returns at least n zero bytes; wipe gives them back.
func newGuarded(n int) *guarded {
	size := (n + os.Getpagesize() - 1) / os.Getpagesize() * os.Getpagesize()
	if page, err := secretPage(size); err == nil {
		return &guarded{page, memorySecret}
	}
	page, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return &guarded{make([]byte, size), memoryHeap}
	}
	if unix.Madvise(page, unix.MADV_DONTDUMP) != nil || unix.Mlock(page) != nil {
		return &guarded{page, memoryPlain}
	}
	return &guarded{page, memoryLocked}
}

func secretPage(size int) ([]byte, error) {
	fd, err := unix.MemfdSecret(unix.O_CLOEXEC)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	if err := unix.Ftruncate(fd, int64(size)); err != nil {
		return nil, err
	}
	return unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
}

// wipe overwrites the page and gives it back; nobody may use it any more.
func (g *guarded) wipe() {
	clear(g.page)
	if g.kind != memoryHeap {
		_ = unix.Munmap(g.page)
	}
	g.page = nil
}
