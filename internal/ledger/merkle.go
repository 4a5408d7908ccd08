package ledger

import (
	"crypto/sha256"
	"fmt"
	"math/bits"
	"strings"
)

// tileWidth is the number of hashes in a full tile, and of entries in a full
// bundle (C2SP tlog-tiles).
const tileWidth = 256

type hash [sha256.Size]byte

// leafHash is the hash of an entry (RFC 6962 §2.1). prefixed is the entry with
// a zero byte before it.
func leafHash(prefixed []byte) hash { return sha256.Sum256(prefixed) }

func nodeHash(left, right hash) hash {
	var b [1 + 2*sha256.Size]byte
	b[0] = 1
	copy(b[1:], left[:])
	copy(b[1+sha256.Size:], right[:])
	return sha256.Sum256(b[:])
}

// merge is the root over nodes that stand side by side, all of the same size but
// for the last one, which may be smaller.
func merge(nodes []hash) hash {
	if len(nodes) == 1 {
		return nodes[0]
	}
	split := 1 << (bits.Len(uint(len(nodes)-1)) - 1) // the largest power of two below
	return nodeHash(merge(nodes[:split]), merge(nodes[split:]))
}

// tree is the right edge of a Merkle tree: what is needed to let it grow and to
// write its tiles. edge[l] holds the nodes of the unfinished tile of level l.
type tree struct {
	size uint64
	edge [][]hash
}

// tile is one full tile.
type tile struct {
	level int
	index uint64
	nodes []hash
}

// add appends a leaf and gives back full with the tiles that it completed.
func (t *tree) add(leaf hash, full []tile) []tile {
	t.size++
	for level, node := 0, leaf; ; level++ {
		if level == len(t.edge) {
			t.edge = append(t.edge, make([]hash, 0, tileWidth))
		}
		t.edge[level] = append(t.edge[level], node)
		if len(t.edge[level]) < tileWidth {
			return full
		}
		done := tile{level, (t.size - 1) >> (8 * (level + 1)), t.edge[level]}
		full = append(full, done)
		node = merge(done.nodes)
		t.edge[level] = make([]hash, 0, tileWidth)
	}
}

// root is the tree's root hash (RFC 6962 §2.1).
func (t *tree) root() hash {
	if t.size == 0 {
		return sha256.Sum256(nil)
	}
	var nodes [tileWidth]hash
	var below hash // the root of everything right of the nodes of a level
	some := false
	for _, level := range t.edge {
		n := copy(nodes[:], level)
		if some {
			nodes[n] = below
			n++
		}
		if n > 0 {
			below, some = merge(nodes[:n]), true
		}
	}
	return below
}

// clone is a copy that does not share memory with t.
func (t *tree) clone() tree {
	c := tree{size: t.size}
	for _, level := range t.edge {
		c.edge = append(c.edge, append(make([]hash, 0, tileWidth), level...))
	}
	return c
}

// flatten is the content of a tile's file.
func flatten(nodes []hash) []byte {
	data := make([]byte, 0, len(nodes)*sha256.Size)
	for _, node := range nodes {
		data = append(data, node[:]...)
	}
	return data
}

// entries stands for the level of bundles of entries.
const entries = -1

// tilePath is the place of a tile, or of a bundle where level is entries, below
// the ledger's directory; width is tileWidth for a full one.
func tilePath(level int, index uint64, width int) string {
	var b strings.Builder
	b.WriteString("tile/")
	if level == entries {
		b.WriteString("entries/")
	} else {
		fmt.Fprintf(&b, "%d/", level)
	}
	var groups []uint64
	for n := index; ; n /= 1000 {
		groups = append(groups, n%1000)
		if n < 1000 {
			break
		}
	}
	for i := len(groups) - 1; i > 0; i-- {
		fmt.Fprintf(&b, "x%03d/", groups[i])
	}
	fmt.Fprintf(&b, "%03d", groups[0])
	if width < tileWidth {
		fmt.Fprintf(&b, ".p/%d", width)
	}
	return b.String()
}

// partials are the paths of the unfinished tiles and of the unfinished bundle of
// a tree of size.
func partials(size uint64) []string {
	var paths []string
	if width := int(size % tileWidth); width > 0 {
		paths = append(paths, tilePath(entries, size/tileWidth, width))
	}
	for level := 0; size > 0; level, size = level+1, size/tileWidth {
		if width := int(size % tileWidth); width > 0 {
			paths = append(paths, tilePath(level, size/tileWidth, width))
		}
	}
	return paths
}
