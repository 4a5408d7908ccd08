package broker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"strings"

	"postern/internal/broker/ws"
	"postern/internal/catalog"
	"postern/internal/placeholder"
)

// put puts the real value into a message of the agent that holds a placeholder
// in a JSON field which the catalogue names. All other messages come back as
// they are.
func (s *socket) put(ctx context.Context, message []byte) ([]byte, error) {
	quoted := len(placeholder.Find(message))
	if !json.Valid(message) {
		s.sent.quoted = s.sent.quoted || quoted > 0
		return message, nil
	}
	for _, l := range s.x.host.lents {
		for _, slot := range l.Kind.Slots {
			if slot.In != "ws" {
				continue
			}
			start, end, found, err := s.place(message, slot)
			if err != nil {
				return nil, err
			}
			var token string
			if !found || json.Unmarshal(message[start:end], &token) != nil || token == "" {
				continue
			}
			s.sent.quoted = s.sent.quoted || quoted > 1
			holder := s.holder(slot, token)
			if holder == nil {
				return message, s.judge(slot, token)
			}
			return s.replace(ctx, message, start, end, holder, slot)
		}
	}
	s.sent.quoted = s.sent.quoted || quoted > 0
	return message, nil
}

// place is where the slot's value stands in the message, if it is a message
// that has the slot.
func (s *socket) place(message []byte, slot catalog.Slot) (start, end int, found bool, err error) {
	if len(slot.Ops) > 0 {
		start, end, found, err = ws.Find(message, "/op")
		op, wrong := strconv.Atoi(string(message[start:end]))
		if err == nil && (!found || wrong != nil || !slices.Contains(slot.Ops, op)) {
			return 0, 0, false, nil
		}
	}
	if err == nil {
		start, end, found, err = ws.Find(message, slot.Pointer)
	}
	if err != nil {
		r := malformed("WebSocket: a name stands twice in a JSON object")
		return 0, 0, false, &closing{code: ws.CodePolicy, r: r}
	}
	return start, end, found, nil
}

// holder is the credential of this host whose placeholder is token.
func (s *socket) holder(slot catalog.Slot, token string) *lent {
	for _, l := range s.x.host.lents {
		same := func(o catalog.Slot) bool { return o.In == "ws" && o.Pointer == slot.Pointer }
		if l.token == token && slices.ContainsFunc(l.Kind.Slots, same) {
			return l
		}
	}
	return nil
}

// judge says why a token that is no placeholder for this slot closes the
// socket; nil lets it through.
func (s *socket) judge(slot catalog.Slot, token string) error {
	x := s.x
	r, err := x.stray([]byte(token))
	if errors.Is(err, errStale) { // handed out after the handshake
		r, err = tripwire("", "a placeholder that is newer than the connection; connect again"), nil
	}
	if r == nil && err == nil {
		r, err = x.foreignKey(func(o catalog.Slot) bool { return o.In == "ws" && o.Pointer == slot.Pointer })
	}
	if r == nil && err == nil {
		return nil
	}
	return &closing{code: ws.CodePolicy, r: r}
}

// replace asks the policy, lends, records and only then writes the real value
// into the message.
func (s *socket) replace(ctx context.Context, message []byte, start, end int, l *lent, slot catalog.Slot) ([]byte, error) {
	x := s.x
	x.durable = false
	if x.views == nil {
		return nil, &closing{code: ws.CodePolicy, r: malformed(errPath.Error())}
	}
	if r := x.ask(l.Credential); r != nil {
		return nil, &closing{code: ws.CodePolicy, r: r}
	}
	m := match{lent: l, place: inFrame}
	if r := x.lendOne(ctx, &m); r != nil {
		return nil, &closing{code: ws.CodePolicy, r: r}
	}
	s.matcher.Store(x.view.matcher)
	if r := x.recordUse(ctx, &m); r != nil {
		return nil, &closing{code: ws.CodeInternal, r: r}
	}
	x.matches = append(x.matches, m)
	changed := append(make([]byte, 0, len(message)+512), message[:start]...)
	changed, err := m.put(changed)
	if err != nil {
		return nil, &closing{code: ws.CodeInternal, r: unavailable(ruleLease, "the value of "+l.Credential+" cannot be used: "+err.Error())}
	}
	changed = append(changed, message[end:]...)
	return withoutZlib(changed, slot.Pointer), nil
}

// withoutZlib turns off the flag beside the token by which Discord is asked to
// compress single messages, which then could not be searched.
// Source: Discord's developer documentation, "Gateway, payload compression";
// discord.py sets it and takes plain messages all the same.
func withoutZlib(message []byte, pointer string) []byte {
	flag := pointer[:strings.LastIndexByte(pointer, '/')+1] + "compress"
	start, end, found, err := ws.Find(message, flag)
	if err != nil || !found || string(message[start:end]) != "true" {
		return message
	}
	return bytes.Join([][]byte{message[:start], []byte("false"), message[end:]}, nil)
}

// appendJSON appends s as a JSON string. Values are printable ASCII, mostly.
func appendJSON(dst, s []byte) []byte {
	const digits = "0123456789abcdef"
	dst = append(dst, '"')
	for _, c := range s {
		switch {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c < 0x20:
			dst = append(dst, '\\', 'u', '0', '0', digits[c>>4], digits[c&15])
		default:
			dst = append(dst, c)
		}
	}
	return append(dst, '"')
}
