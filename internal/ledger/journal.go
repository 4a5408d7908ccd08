package ledger

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// The journal takes entries first: one write(2) each. It begins with a header
// that says how many entries lie before it in bundles, with the tree's edge at
// that point, and goes on with frames: length (2 bytes, big-endian), CRC-32C of
// the entry (4 bytes), entry. A journal is only ever appended to or replaced as
// a whole.
const (
	journalMagic = "postern-ledger-1\n"
	frameHeader  = 6
	maxEntry     = 1<<16 - 1 // what the length of a bundle's entry can say
	maxLevels    = 8         // 256^8 entries are all that a uint64 can count
)

var errFrame = errors.New("a record whose checksum is wrong")

// crcTable is made by the standard library at first use; this is only a look-up.
func checksum(entry []byte) uint32 {
	return crc32.Checksum(entry, crc32.MakeTable(crc32.Castagnoli))
}

// appendHeader writes the header of a journal that begins after t.size entries,
// a multiple of tileWidth.
func appendHeader(b []byte, t *tree) []byte {
	start := len(b)
	b = append(b, journalMagic...)
	b = binary.BigEndian.AppendUint64(b, t.size)
	upper := t.edge[min(1, len(t.edge)):]
	b = append(b, byte(len(upper)))
	for _, level := range upper {
		b = append(b, byte(len(level)))
		b = append(b, flatten(level)...)
	}
	return binary.BigEndian.AppendUint32(b, checksum(b[start:]))
}

// cutHeader reads the header: the tree before the first frame, and the header's
// length.
func cutHeader(data []byte) (tree, int, error) {
	bad := func(what string) (tree, int, error) { return tree{}, 0, fmt.Errorf("the journal's header %s", what) }
	n := len(journalMagic)
	if len(data) < n+9 || string(data[:n]) != journalMagic {
		return bad("is not one of this version")
	}
	t := tree{size: binary.BigEndian.Uint64(data[n:])}
	levels := int(data[n+8])
	if n += 9; levels > maxLevels || t.size%tileWidth != 0 {
		return bad("makes no sense")
	}
	t.edge = append(t.edge, make([]hash, 0, tileWidth))
	for level := 1; level <= levels; level++ {
		if n >= len(data) {
			return bad("ends too soon")
		}
		width := int(data[n])
		if n++; len(data) < n+width*len(hash{}) {
			return bad("ends too soon")
		}
		if uint64(width) != t.size>>(8*level)%tileWidth {
			return bad("makes no sense")
		}
		nodes := make([]hash, width, tileWidth)
		for i := range nodes {
			n += copy(nodes[i][:], data[n:])
		}
		t.edge = append(t.edge, nodes)
	}
	if levels < maxLevels-1 && t.size>>(8*(levels+1)) != 0 {
		return bad("makes no sense")
	}
	if len(data) < n+4 || binary.BigEndian.Uint32(data[n:]) != checksum(data[:n]) {
		return bad("has a wrong checksum")
	}
	return t, n + 4, nil
}

// startFrame makes room for a frame's header in an empty buffer.
func startFrame(b []byte) []byte { return append(b[:0], 0, 0, 0, 0, 0, 0) }

// endFrame fills the header of the frame that b holds, and returns the hash of
// its entry.
func endFrame(b []byte) hash {
	b[frameHeader-1] = 0 // the prefix of a leaf lies where the checksum comes to lie
	leaf := leafHash(b[frameHeader-1:])
	binary.BigEndian.PutUint16(b, uint16(len(b)-frameHeader))
	binary.BigEndian.PutUint32(b[2:], checksum(b[frameHeader:]))
	return leaf
}

// cutFrame takes the first frame off data. entry is nil when data ends within
// the frame; an error means that the frame is there and wrong.
func cutFrame(data []byte) (entry, rest []byte, err error) {
	if len(data) < frameHeader {
		return nil, data, nil
	}
	n := int(binary.BigEndian.Uint16(data))
	if n == 0 {
		return nil, data, errFrame
	}
	if len(data) < frameHeader+n {
		return nil, data, nil
	}
	entry = data[frameHeader : frameHeader+n]
	if binary.BigEndian.Uint32(data[2:]) != checksum(entry) {
		return nil, data, errFrame
	}
	return entry, data[frameHeader+n:], nil
}

// bundle is the content of a bundle's file for whole frames.
func bundle(frames []byte) ([]byte, error) {
	data := make([]byte, 0, len(frames))
	for len(frames) > 0 {
		entry, rest, err := cutFrame(frames)
		if err == nil && entry == nil {
			err = errors.New("the journal ends too soon")
		}
		if err != nil {
			return nil, err
		}
		data = binary.BigEndian.AppendUint16(data, uint16(len(entry)))
		data = append(data, entry...)
		frames = rest
	}
	return data, nil
}

// cutBundle takes the first entry off a bundle.
func cutBundle(data []byte) (entry, rest []byte, err error) {
	if len(data) < 2 {
		return nil, nil, errors.New("the bundle ends too soon")
	}
	n := int(binary.BigEndian.Uint16(data))
	if n == 0 || len(data) < 2+n {
		return nil, nil, errors.New("the bundle ends too soon")
	}
	return data[2 : 2+n], data[2+n:], nil
}
