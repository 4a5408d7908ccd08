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

// The addresses that names are answered with: 198.18.0.1 and on. When all have
// been given out, the oldest is given to another name.
const (
	firstName = 198<<24 | 18<<16 | 1
	maxNames  = 1 << 16
	maxLabel  = 63
	maxName   = 253
	answerTTL = 60 // seconds
)

const (
	streamTime = 10 * time.Second // for a question over TCP
	maxStreams = 64               // at a time
)

// resolver answers the command's questions for names. It asks nobody: each name
// gets an address that stands for it, so that the broker learns the name, and
// nothing leaves by way of a question.
type resolver struct {
	packets net.PacketConn
	streams net.Listener
	free    chan struct{} // one for each stream under way

	mu    sync.Mutex
	addrs map[string]int // name to index
	names []string       // by index
	next  int            // the index that is given out next, once names is full
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
	r := &resolver{packets: packets, streams: streams, free: make(chan struct{}, maxStreams), addrs: map[string]int{}}
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
		select {
		case r.free <- struct{}{}:
			go func() {
				r.serveStream(conn)
				<-r.free
			}()
		default:
			_ = conn.Close()
		}
	}
}

// serveStream answers one question after another, each with its length in front.
func (r *resolver) serveStream(conn net.Conn) {
	defer conn.Close()
	for {
		_ = conn.SetDeadline(time.Now().Add(streamTime))
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

// answer is the answer to a question: an address for type A, no data for other
// types of a name, a refusal for what only serves to carry data out.
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
	var resource dnsmessage.ResourceBody
	out.RCode, resource = r.resolve(head, question)
	b := dnsmessage.NewBuilder(make([]byte, 0, 512), out)
	b.EnableCompression()
	if err := errors.Join(b.StartQuestions(), b.Question(question), b.StartAnswers()); err != nil {
		return nil, err
	}
	header := dnsmessage.ResourceHeader{Name: question.Name, Class: dnsmessage.ClassINET, TTL: answerTTL}
	switch resource := resource.(type) {
	case *dnsmessage.AResource:
		err = b.AResource(header, *resource)
	case *dnsmessage.AAAAResource:
		err = b.AAAAResource(header, *resource)
	}
	if err != nil {
		return nil, err
	}
	return b.Finish()
}

// resolve finds the answer; a nil resource with success means that the name has
// no record of that type.
func (r *resolver) resolve(head dnsmessage.Header, q dnsmessage.Question) (dnsmessage.RCode, dnsmessage.ResourceBody) {
	if head.OpCode != 0 || q.Class != dnsmessage.ClassINET {
		return dnsmessage.RCodeNotImplemented, nil
	}
	name := strings.ToLower(strings.TrimSuffix(q.Name.String(), "."))
	local := name == "localhost" || strings.HasSuffix(name, ".localhost")
	if !local && !public(name) {
		return dnsmessage.RCodeNameError, nil
	}
	switch q.Type {
	case dnsmessage.TypeA:
		if local {
			return dnsmessage.RCodeSuccess, &dnsmessage.AResource{A: [4]byte{127, 0, 0, 1}}
		}
		a := new(dnsmessage.AResource)
		binary.BigEndian.PutUint32(a.A[:], r.addressOf(name))
		return dnsmessage.RCodeSuccess, a
	case dnsmessage.TypeAAAA:
		if local {
			return dnsmessage.RCodeSuccess, &dnsmessage.AAAAResource{AAAA: netip.IPv6Loopback().As16()}
		}
		return dnsmessage.RCodeSuccess, nil
	case dnsmessage.TypeHTTPS, dnsmessage.TypeSVCB:
		return dnsmessage.RCodeSuccess, nil
	}
	return dnsmessage.RCodeRefused, nil
}

// public says whether a lower-case name could be one of the public name space: at
// least two labels of letters, digits, hyphens and underscores, and no reverse
// look-up. Whether it exists is found out when it is connected to.
func public(name string) bool {
	if len(name) > maxName || !strings.Contains(name, ".") || strings.HasSuffix(name, ".arpa") {
		return false
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > maxLabel {
			return false
		}
		for i := range len(label) {
			c := label[i]
			if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
				return false
			}
		}
	}
	return true
}

// addressOf is the address that stands for a name.
func (r *resolver) addressOf(name string) uint32 {
	r.mu.Lock()
	defer r.mu.Unlock()
	index, found := r.addrs[name]
	if found {
		return uint32(firstName + index)
	}
	if len(r.names) < maxNames {
		index = len(r.names)
		r.names = append(r.names, name)
	} else {
		index = r.next
		r.next = (r.next + 1) % maxNames
		delete(r.addrs, r.names[index])
		r.names[index] = name
	}
	r.addrs[name] = index
	return uint32(firstName + index)
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
