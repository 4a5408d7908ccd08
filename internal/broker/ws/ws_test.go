package ws

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestFramesRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		op := rapid.SampledFrom([]Op{Continuation, Text, Binary, Close, Ping, Pong}).Draw(t, "op")
		most := 70000
		fin := rapid.Bool().Draw(t, "fin")
		if op.Control() {
			most, fin = MaxControl, true
		}
		payload := bytes.Repeat([]byte{7}, rapid.IntRange(0, most).Draw(t, "n"))
		key := [4]byte{1, 2, 3, 4}
		for _, client := range []bool{true, false} {
			k := &key
			if !client {
				k = nil
			}
			frame := Append(nil, fin, op, payload, k)
			h, size, err := Parse(frame, client)
			if err != nil || h.Fin != fin || h.Op != op || h.Length != int64(len(payload)) || h.Masked != client {
				t.Fatalf("got %+v %v", h, err)
			}
			cut := rapid.IntRange(0, size-1).Draw(t, "cut")
			if _, _, err := Parse(frame[:cut], client); !errors.Is(err, ErrMore) {
				t.Fatalf("%d of %d header bytes: %v", cut, size, err)
			}
			got := frame[size:]
			if client { // in two parts
				half := len(got) / 3
				Mask(got[:half], key, 0)
				Mask(got[half:], key, int64(half))
			}
			if !bytes.Equal(got, payload) {
				t.Fatal("the payload changed")
			}
			if _, _, err := Parse(frame, !client); err == nil {
				t.Fatal("a frame of the wrong side was taken")
			}
		}
	})
}

func TestBadFrames(t *testing.T) {
	t.Parallel()
	for name, b := range map[string][]byte{
		"reserved bit":      {0xc1, 0x00},
		"reserved opcode":   {0x83, 0x00},
		"reserved control":  {0x8b, 0x00},
		"fragmented ping":   {0x09, 0x00},
		"long ping":         {0x89, 126, 0, 126},
		"long form of 5":    {0x81, 126, 0, 5},
		"longest form of 5": {0x81, 127, 0, 0, 0, 0, 0, 0, 0, 5},
		"negative":          {0x81, 127, 0x80, 0, 0, 0, 0, 0, 0, 5},
	} {
		var e *Error
		if _, _, err := Parse(b, false); !errors.As(err, &e) || e.Code != CodeProtocol {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestOrder(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		frames []Header
		ok     bool
	}{
		{"two messages", []Header{{Fin: true, Op: Text}, {Fin: true, Op: Binary}}, true},
		{"fragments with a ping between", []Header{{Op: Text}, {Fin: true, Op: Ping}, {}, {Fin: true}, {Fin: true, Op: Text}}, true},
		{"continuation of nothing", []Header{{Fin: true}}, false},
		{"message inside a message", []Header{{Op: Text}, {Fin: true, Op: Text}}, false},
		{"continuation after the end", []Header{{Op: Text}, {Fin: true}, {Fin: true}}, false},
	} {
		var o Order
		var err error
		for _, h := range tt.frames {
			if err == nil {
				_, err = o.Next(h)
			}
		}
		if (err == nil) != tt.ok {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

func TestFind(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ text, pointer, want string }{
		{`{"op":2,"d":{"token":"x"}}`, "/d/token", `"x"`},
		{` { "d" : [1,{"token":1}] , "op" : 2 } `, "/op", `2`},
		{`{"d":{"a":{"token":"no"},"token":"yes"}}`, "/d/token", `"yes"`},
		{`{"\u0064":{"tok\u0065n":"x\"y\\"}}`, "/d/token", `"x\"y\\"`},
		{`{"token":"x"}`, "/d/token", ""},
		{`[{"token":"x"}]`, "/0/token", ""},
		{`{"d":null}`, "/d/token", ""},
		{`"d"`, "/d", ""},
		{`{}`, "/d", ""},
		{`{"a":"}","d":{}}`, "/d", `{}`},
	} {
		start, end, found, err := Find([]byte(tt.text), tt.pointer)
		got := ""
		if found {
			got = tt.text[start:end]
		}
		if err != nil || got != tt.want {
			t.Errorf("%s %s: got %q %v", tt.text, tt.pointer, got, err)
		}
	}
	for _, twice := range []string{`{"d":1,"d":2}`, `{"d":1,"\u0064":2}`} {
		if _, _, _, err := Find([]byte(twice), "/d"); !errors.Is(err, ErrTwice) {
			t.Errorf("%s: got %v", twice, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte{0x81, 0x85, 1, 2, 3, 4, 5, 6, 7, 8, 9})
	f.Add([]byte{0x89, 0x00})
	f.Add([]byte{0x81, 126, 1, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, client := range []bool{true, false} {
			h, size, err := Parse(b, client)
			if err != nil {
				continue
			}
			var key *[4]byte
			if client {
				key = &h.Key
			}
			if h.Length < 1<<31 && !bytes.Equal(AppendHeader(nil, h.Fin, h.Op, int(h.Length), key), b[:size]) {
				t.Errorf("%x is read as %+v and written differently", b[:size], h)
			}
		}
	})
}

func FuzzFind(f *testing.F) {
	f.Add(`{"op":2,"d":{"token":"x"}}`, "/d/token")
	f.Add(`[[{}],"\"",1e5,null]`, "/a~1b")
	f.Fuzz(func(t *testing.T, text, pointer string) {
		if !json.Valid([]byte(text)) {
			return
		}
		start, end, found, err := Find([]byte(text), pointer)
		if err != nil || !found {
			return
		}
		if part := text[start:end]; !json.Valid([]byte(part)) {
			t.Errorf("%q is no value", part)
		}
		if strings.TrimSpace(text[start:end]) != text[start:end] {
			t.Error("white space around the value")
		}
	})
}
