package fake

import (
	"bufio"
	"crypto/sha1" //nolint:gosec // RFC 6455 asks for it
	"encoding/base64"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// The kinds of frames of RFC 6455.
const (
	moreFrame   = 0x0
	textFrame   = 0x1
	binaryFrame = 0x2
	closeFrame  = 0x8
	pingFrame   = 0x9
	pongFrame   = 0xa
)

// maxMessage bounds what a client may send in one message.
const maxMessage = 1 << 20

// socket is the server's side of a WebSocket, as far as the fakes need it: no
// extensions, whole messages, one goroutine.
type socket struct {
	conn net.Conn
	in   *bufio.Reader
}

// accept takes the connection over and answers the handshake.
func accept(w http.ResponseWriter, r *http.Request) (*socket, error) {
	key := r.Header.Get("Sec-Websocket-Key")
	if key == "" || !strings.Contains(strings.ToLower(r.Header.Get("Connection")), "upgrade") || r.Header.Get("Sec-Websocket-Version") != "13" {
		return nil, errors.New("not a WebSocket handshake")
	}
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil, err
	}
	_ = conn.SetDeadline(time.Time{})                                     // the HTTP server's own
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11")) //nolint:gosec // see above
	_, err = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "+
		base64.StdEncoding.EncodeToString(sum[:])+"\r\n\r\n")
	return &socket{conn: conn, in: rw.Reader}, err
}

// read is the next whole message; it answers pings, and ends with io.EOF where
// the client says good-bye.
func (s *socket) read() (kind byte, data []byte, err error) {
	for {
		final, op, part, err := s.frame()
		if err != nil {
			return 0, nil, err
		}
		switch op {
		case pingFrame:
			if err := s.write(pongFrame, part); err != nil {
				return 0, nil, err
			}
			continue
		case pongFrame:
			continue
		case closeFrame:
			_ = s.write(closeFrame, part)
			return 0, nil, io.EOF
		case textFrame, binaryFrame:
			kind, data = op, part
		case moreFrame:
			data = append(data, part...)
		default:
			return 0, nil, errors.New("unknown frame")
		}
		if len(data) > maxMessage {
			return 0, nil, errors.New("the message is too long")
		}
		if final {
			return kind, data, nil
		}
	}
}

// frame is one frame of the client.
func (s *socket) frame() (final bool, op byte, data []byte, err error) {
	var head [8]byte
	if _, err := io.ReadFull(s.in, head[:2]); err != nil {
		return false, 0, nil, err
	}
	if head[0]&0x70 != 0 || head[1]&0x80 == 0 {
		return false, 0, nil, errors.New("a client's frame is masked and uses no extension")
	}
	final, op = head[0]&0x80 != 0, head[0]&0x0f
	size := uint64(head[1] & 0x7f)
	switch size {
	case 126:
		_, err = io.ReadFull(s.in, head[:2])
		size = uint64(binary.BigEndian.Uint16(head[:2]))
	case 127:
		_, err = io.ReadFull(s.in, head[:8])
		size = binary.BigEndian.Uint64(head[:8])
	}
	if err != nil || size > maxMessage {
		return false, 0, nil, errors.Join(err, errors.New("the frame is too long"))
	}
	if _, err := io.ReadFull(s.in, head[:4]); err != nil {
		return false, 0, nil, err
	}
	data = make([]byte, size)
	if _, err := io.ReadFull(s.in, data); err != nil {
		return false, 0, nil, err
	}
	for i := range data {
		data[i] ^= head[i%4]
	}
	return final, op, data, nil
}

// write sends a message in one frame.
func (s *socket) write(op byte, data []byte) error { return s.send(0x80|op, data) }

// writeCut sends a text in two frames.
func (s *socket) writeCut(data []byte) error {
	if err := s.send(textFrame, data[:len(data)/2]); err != nil {
		return err
	}
	return s.send(0x80|moreFrame, data[len(data)/2:])
}

// close says good-bye with a code and a reason.
func (s *socket) close(code uint16, reason string) {
	_ = s.write(closeFrame, append(binary.BigEndian.AppendUint16(nil, code), reason...)) // it ends either way
}

func (s *socket) send(first byte, data []byte) error {
	head := []byte{first}
	switch n := len(data); {
	case n < 126:
		head = append(head, byte(n))
	case n < 1<<16:
		head = binary.BigEndian.AppendUint16(append(head, 126), uint16(n))
	default:
		head = binary.BigEndian.AppendUint64(append(head, 127), uint64(n))
	}
	_, err := s.conn.Write(append(head, data...))
	return err
}
