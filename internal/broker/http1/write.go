package http1

import "strconv"

// AppendField appends "name: value" and the line's end.
func AppendField(dst, name, value []byte) []byte {
	dst = append(dst, name...)
	dst = append(dst, ": "...)
	dst = append(dst, value...)
	return append(dst, "\r\n"...)
}

// AppendLength appends a Content-Length field.
func AppendLength(dst []byte, n int64) []byte {
	dst = append(dst, "Content-Length: "...)
	dst = strconv.AppendInt(dst, n, 10)
	return append(dst, "\r\n"...)
}

// AppendStatus appends a status line.
func AppendStatus(dst []byte, status int, reason []byte) []byte {
	dst = append(dst, "HTTP/1.1 "...)
	dst = strconv.AppendInt(dst, int64(status), 10)
	dst = append(dst, ' ')
	dst = append(dst, reason...)
	return append(dst, "\r\n"...)
}

// ChunkRoom is kept free in front of a chunk for its size line.
const ChunkRoom = 6

// MaxChunk is the most that a chunk may hold.
const MaxChunk = 0xffff

// OpenChunk makes room for a chunk in dst and returns where it begins; at most
// MaxChunk bytes of data are appended behind ChunkRoom, then CloseChunk ends it.
func OpenChunk(dst []byte) ([]byte, int) {
	return append(dst, "0000\r\n"...), len(dst)
}

// CloseChunk ends the chunk that begins at start: without data it takes the
// room back.
func CloseChunk(dst []byte, start int) []byte {
	n := len(dst) - start - ChunkRoom
	if n == 0 {
		return dst[:start]
	}
	var size [ChunkRoom]byte
	line := append(strconv.AppendUint(size[:0], uint64(n), 16), "\r\n"...)
	copy(dst[start:], line)
	if len(line) < ChunkRoom {
		moved := copy(dst[start+len(line):], dst[start+ChunkRoom:])
		dst = dst[:start+len(line)+moved]
	}
	return append(dst, "\r\n"...)
}

// AppendEnd ends a chunked body with its trailers.
func AppendEnd(dst []byte, trailers []Field) []byte {
	dst = append(dst, "0\r\n"...)
	for _, f := range trailers {
		dst = AppendField(dst, f.Name, f.Value)
	}
	return append(dst, "\r\n"...)
}
