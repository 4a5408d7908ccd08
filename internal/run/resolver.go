package run

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// The addresses that names are answered with, and how many names one command may
// ask for.
const (
	firstName = 198<<24 | 18<<16 | 1
	maxNames  = 1 << 16
	answerTTL = 60 // seconds; an address stands for its name as long as the sandbox lives
)

// resolver answers the command's questions for names. It asks nobody: each name
// gets an address that stands for it, so that the broker learns the name, and
// nothing leaves by way of a question.
type resolver struct {
	packets net.PacketConn
	streams net.Listener

	mu    sync.Mutex
	addrs map[string]uint32
	names []string // by address, from firstName on
}

// newResolver serves a datagram and a listening socket until close.
func newResolver(datagram, stream *os.File) (*resolver, error) {
	packets, err := net.FilePacketConn(datagram)
	if err != nil {
		return nil, err
	}
	streams, err := net.FileListener(stream)
	if err != nil {
		return nil, errors.Join(err, packets.Close())
	}
	r := &resolver{packets: packets, streams: streams, addrs: map[string]uint32{}}
	go r.servePackets()
	go r.serveStreams()
	return r, nil
}

func (r *resolver) close() {
	_ = r.packets.Close()
	_ = r.streams.Close()
}

func (r *resolver) servePackets() {
	buffer := make([]byte, 4096)
	for {
		n, from, err := r.packets.ReadFrom(buffer)
		if err != nil {
			return
		}
		if answer, err := r.answer(buffer[:n]); err == nil {
			_, _ = r.packets.WriteTo(answer, from)
		}
	}
}

func (r *resolver) serveStreams() {
	for {
		conn, err := r.streams.Accept()
		if err != nil {
			return
		}
		go r.serveStream(conn)
	}
}

// serveStream answers one question after another, each with its length in front.
func (r *resolver) serveStream(conn net.Conn) {
	defer conn.Close()
	for {
		_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
		var length [2]byte
		if _, err := io.ReadFull(conn, length[:]); err != nil {
			return
		}
		question := make([]byte, binary.BigEndian.Uint16(length[:]))
		if _, err := io.ReadFull(conn, question); err != nil {
			return
		}
		answer, err := r.answer(question)
		if err != nil {
			return
		}
		if _, err := conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(answer))), answer...)); err != nil {
			return
		}
	}
}

// answer is the answer to a question: an address for type A, none for AAAA and
// HTTPS, a refusal for what could carry data out.
func (r *resolver) answer(packet []byte) ([]byte, error) {
	var parser dnsmessage.Parser
	head, err := parser.Start(packet)
	if err != nil {
		return nil, err
	}
	if head.Response {
		return nil, errors.New("not a question")
	}
	question, err := parser.Question()
	if err != nil {
		return nil, err
	}
	out := dnsmessage.Header{ID: head.ID, Response: true, RecursionDesired: head.RecursionDesired, RecursionAvailable: true}
	addr, known := uint32(0), true
	switch question.Type {
	case dnsmessage.TypeA:
		if addr, known = r.addressOf(question.Name.String()); !known {
			out.RCode = dnsmessage.RCodeServerFailure
		}
	case dnsmessage.TypeAAAA, dnsmessage.TypeHTTPS, dnsmessage.TypeSVCB:
	default:
		out.RCode = dnsmessage.RCodeRefused
	}
	b := dnsmessage.NewBuilder(make([]byte, 0, 512), out)
	b.EnableCompression()
	if err := errors.Join(b.StartQuestions(), b.Question(question), b.StartAnswers()); err != nil {
		return nil, err
	}
	if addr != 0 {
		resource := dnsmessage.AResource{}
		binary.BigEndian.PutUint32(resource.A[:], addr)
		header := dnsmessage.ResourceHeader{Name: question.Name, Class: dnsmessage.ClassINET, TTL: answerTTL}
		if err := b.AResource(header, resource); err != nil {
			return nil, err
		}
	}
	return b.Finish()
}

// addressOf is the address that stands for a name; false where too many names
// were asked for.
func (r *resolver) addressOf(name string) (uint32, bool) {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if name == "localhost" || strings.HasSuffix(name, ".localhost") {
		return 127<<24 | 1, true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if addr, found := r.addrs[name]; found {
		return addr, true
	}
	if len(r.names) >= maxNames || name == "" {
		return 0, false
	}
	addr := uint32(firstName + len(r.names))
	r.addrs[name] = addr
	r.names = append(r.names, name)
	return addr, true
}

// nameOf is the name that addr stands for.
func (r *resolver) nameOf(addr netip.Addr) (string, bool) {
	if !addr.Unmap().Is4() {
		return "", false
	}
	four := addr.Unmap().As4()
	index := int64(binary.BigEndian.Uint32(four[:])) - firstName
	r.mu.Lock()
	defer r.mu.Unlock()
	if index < 0 || index >= int64(len(r.names)) {
		return "", false
	}
	return r.names[index], true
}
