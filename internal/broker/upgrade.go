package broker

import (
	"bytes"
	"context"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"strings"
	"time"

	"postern/internal/broker/http1"
)

// upgrade opens a WebSocket: the handshake as any other request, then frames in
// both directions. It returns whether the agent's connection goes on, which it
// does only where the upstream answered without switching.
func (x *exchange) upgrade(ctx context.Context) bool {
	if r := x.checkUpgrade(); r != nil {
		x.refuse(ctx, r)
		return false
	}
	u, r := x.reach(ctx, true)
	if r != nil {
		x.refuse(ctx, r)
		return false
	}
	if u.h2 != nil {
		x.b.pool.put(u)
		x.refuse(ctx, badGateway(ruleUpgrade, x.t.key+" offers HTTP/2 only, over which no WebSocket is opened"))
		return false
	}
	r = x.recordStart(ctx)
	if r == nil {
		r = x.shakeHands(u)
	}
	if r != nil {
		u.close()
		x.refuse(ctx, r)
		return false
	}
	if x.resp.Status != 101 {
		return x.answer(ctx, u)
	}
	newSocket(x, u).serve(ctx)
	return false
}

// checkUpgrade refuses a handshake that RFC 6455 §4.2.1 does not know, or whose
// frames could not be looked into.
func (x *exchange) checkUpgrade() *refusal {
	key, err := base64.StdEncoding.DecodeString(string(x.head.Get("sec-websocket-key")))
	r := malformed("the WebSocket handshake is not that of RFC 6455")
	r.rule = ruleUpgrade
	if x.method != "GET" || x.head.Framing != http1.NoBody || x.head.Minor != 1 || err != nil || len(key) != 16 || string(x.head.Get("sec-websocket-version")) != "13" {
		return r
	}
	if !x.host.sockets {
		return nil
	}
	_, query, _ := bytes.Cut(x.target, []byte("?"))
	if coding, given := parameter(query, "encoding"); given && coding != "json" {
		r.id, r.message = "P-E112", "the encoding "+quotedWord(coding)+" was asked for, in which no token can be put in and nothing masked; use encoding=json"
		return r
	}
	return nil
}

// parameter is the first value of a query's parameter.
func parameter(query []byte, name string) (value string, given bool) {
	for pair := range bytes.SplitSeq(query, []byte("&")) {
		key, rest, _ := bytes.Cut(pair, []byte("="))
		plain, _ := appendUnescaped(nil, key, true)
		if strings.EqualFold(string(plain), name) {
			plain, _ = appendUnescaped(nil, rest, true)
			return string(plain), true
		}
	}
	return "", false
}

// quotedWord shows a short word of the agent's, and nothing longer.
func quotedWord(s string) string {
	if len(s) > 16 || headerText(s) != s {
		return "given"
	}
	return `"` + s + `"`
}

// withoutCompression takes the parameter by which a gateway is asked to compress
// its messages out of a request line: what is compressed as one long stream
// could not be searched. Clients take plain text frames whatever they asked for
// (discord.js and discord.py decide by the frame's opcode).
func withoutCompression(line []byte) []byte {
	at := bytes.IndexByte(line, '?')
	if at < 0 {
		return line
	}
	end := bytes.LastIndexByte(line, ' ')
	kept := append([]byte(nil), line[:at]...)
	mark := byte('?')
	for pair := range bytes.SplitSeq(line[at+1:end], []byte("&")) {
		if _, found := parameter(pair, "compress"); !found {
			kept = append(append(kept, mark), pair...)
			mark = '&'
		}
	}
	return append(kept, line[end:]...)
}

// shakeHands sends the handshake and reads the answer.
func (x *exchange) shakeHands(u *upstream) *refusal {
	x.buffer()
	var err error
	if x.out, err = x.appendHead(x.out, true); err != nil {
		return unavailable(ruleLease, "the value of "+x.matches[0].lent.Credential+" cannot be used: "+err.Error())
	}
	if x.host.sockets {
		end := bytes.IndexByte(x.out, '\r')
		if line := withoutCompression(x.out[:end]); len(line) < end {
			x.out = append(x.out[:copy(x.out, line)], x.out[end:]...)
		}
	}
	x.whole = true
	_ = u.conn.SetDeadline(time.Now().Add(x.b.cfg.HeaderTimeout))
	if _, err = u.conn.Write(x.out); err == nil {
		err = x.readSwitch(u)
	}
	if err != nil {
		return x.answerRefusal(err)
	}
	_ = u.conn.SetDeadline(time.Time{})
	return nil
}

// readSwitch reads the answer to a handshake; a switch must be to WebSocket,
// for this very handshake, and without extensions.
func (x *exchange) readSwitch(u *upstream) error {
	err := x.readAnswer(u)
	if !errors.Is(err, errSwitch) {
		return err
	}
	sum := sha1.Sum(append(bytes.Clone(x.head.Get("sec-websocket-key")), "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"...)) // RFC 6455 §1.3
	accept := base64.StdEncoding.EncodeToString(sum[:])
	if !http1.EqualFold(x.resp.Upgrade, "websocket") || string(x.resp.Get("sec-websocket-accept")) != accept || x.resp.Get("sec-websocket-extensions") != nil {
		return errHandshake
	}
	return nil
}

var errHandshake = errors.New("its answer to the WebSocket handshake is not that of RFC 6455, or agrees on an extension that was not asked for")
