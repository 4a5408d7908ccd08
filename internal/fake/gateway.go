package fake

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// The opcodes of Discord's gateway.
const (
	opDispatch       = 0
	opHeartbeat      = 1
	opIdentify       = 2
	opResume         = 6
	opInvalidSession = 9
	opHello          = 10
	opAck            = 11
)

// frame is a message of the gateway.
type frame struct {
	Op int             `json:"op"`
	D  json.RawMessage `json:"d"`
	S  *int            `json:"s,omitempty"`
	T  string          `json:"t,omitempty"`
}

// gateway speaks WebSocket: Discord's protocol at its hosts; elsewhere it greets
// whoever came with a real key with that key, cut into frames, and then gives
// every message back.
func (s *Server) gateway(w http.ResponseWriter, c *call) {
	discord := strings.HasSuffix(c.host, ".discord.gg")
	if !discord && c.key == "" {
		s.count(c.host, false)
		http.Error(w, "the credential is not valid", http.StatusUnauthorized)
		return
	}
	ws, err := accept(w, c.Request)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	s.sockets[ws.conn] = true
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.sockets, ws.conn)
		s.mu.Unlock()
		_ = ws.conn.Close()
	}()
	if discord {
		(&session{server: s, ws: ws, host: c.host}).run()
		return
	}
	s.count(c.host, true)
	for _, form := range c.quotes() {
		if ws.writeCut([]byte(form)) != nil {
			return
		}
	}
	for {
		kind, data, err := ws.read()
		if err != nil || ws.write(kind, data) != nil {
			return
		}
	}
}

// session is one connection to the gateway.
type session struct {
	server   *Server
	ws       *socket
	host     string
	sequence int
	ready    bool
}

func (g *session) run() {
	if g.send(opHello, "", object{"heartbeat_interval": 41250}) != nil {
		return
	}
	for {
		kind, data, err := g.ws.read()
		if err != nil {
			return
		}
		var f frame
		if kind != textFrame || json.Unmarshal(data, &f) != nil {
			g.ws.close(4002, "Error while decoding payload.")
			return
		}
		if !g.handle(f) {
			return
		}
	}
}

// handle answers one message; false where the connection ends.
func (g *session) handle(f frame) bool {
	var d struct {
		Token     string `json:"token"`
		SessionID string `json:"session_id"`
	}
	switch f.Op {
	case opHeartbeat:
		return g.send(opAck, "", nil) == nil
	case opIdentify, opResume:
		if json.Unmarshal(f.D, &d) != nil {
			g.ws.close(4002, "Error while decoding payload.")
			return false
		}
		if g.ready {
			g.ws.close(4005, "Already authenticated.")
			return false
		}
		real := g.server.accepts(discordBot, d.Token)
		g.server.count(g.host, real)
		if !real {
			g.ws.close(4004, "Authentication failed.")
			return false
		}
		if f.Op == opResume {
			return g.resume(d.SessionID, d.Token)
		}
		return g.welcome(d.Token)
	case 3, 4, 8: // presence, voice, members
		if g.ready {
			return true
		}
	}
	if g.ready {
		g.ws.close(4001, "Unknown opcode.")
	} else {
		g.ws.close(4003, "Not authenticated.")
	}
	return false
}

// welcome sends READY, which quotes the token.
func (g *session) welcome(token string) bool {
	id := "session-" + strconv.FormatInt(time.Now().UnixNano(), 36)
	g.server.mu.Lock()
	g.server.sessions[id] = token
	g.server.mu.Unlock()
	g.ready = true
	quotes := (&call{received: []string{token}}).quotes()
	err := g.send(opDispatch, "READY", object{
		"v": 10, "user": discordUser(), "guilds": []any{}, "session_id": id, "session_type": "normal", "private_channels": []any{}, "relationships": []any{},
		"resume_gateway_url": "wss://" + resumeHost, "shard": []int{0, 1}, "application": object{"id": "123456789012345678", "flags": 0}, "echo": quotes,
	})
	return err == nil
}

func (g *session) resume(id, token string) bool {
	g.server.mu.Lock()
	known := g.server.sessions[id] == token
	g.server.mu.Unlock()
	if !known {
		return g.send(opInvalidSession, "", false) == nil
	}
	g.ready = true
	return g.send(opDispatch, "RESUMED", object{"echo": (&call{received: []string{token}}).quotes()}) == nil
}

func (g *session) send(op int, name string, d any) error {
	data, err := json.Marshal(d)
	if err != nil {
		return err
	}
	f := frame{Op: op, D: data, T: name}
	if op == opDispatch {
		g.sequence++
		f.S = &g.sequence
	}
	whole, err := json.Marshal(f)
	if err != nil {
		return err
	}
	return g.ws.write(textFrame, whole)
}

// accepts says whether key is a real one of the kind.
func (s *Server) accepts(kind, key string) bool {
	for _, one := range s.cfg.Keys[kind] {
		if key == one {
			return true
		}
	}
	return false
}
