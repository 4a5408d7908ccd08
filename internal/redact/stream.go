package redact

// mode says what is known of what follows the bytes at hand.
type mode int

const (
	more    mode = iota // more may follow at any time
	pausing             // what is held must be seen now, and more may follow
	ending              // nothing follows
)

// Stream redacts one stream of bytes. It holds back only what is the beginning
// of a form, so an event that ends in other bytes passes without delay. Not safe
// for concurrent use; of one Matcher there may be any number.
type Stream struct{ open func() *stream }

// Stream starts a stream.
func (m *Matcher) Stream() *Stream {
	s := &stream{}
	if !m.Empty() {
		s.core = m.open()
	}
	return &Stream{open: func() *stream { return s }}
}

// Write takes the next bytes of the stream and appends to dst what may go out.
// It keeps neither chunk nor dst, which must not overlap. Without a hit nothing is allocated but what
// dst needs to grow.
func (s *Stream) Write(dst, chunk []byte) []byte { return s.open().write(dst, chunk, more) }

// Flush appends what is held back, for a terminal on which nothing has come for
// a while: the beginning of a form, unless it is three quarters or more of a long
// one. A hit that ends there counts although it might have become a longer one.
// When the rest of a form follows after all, it is replaced from there on: even a
// stream that comes byte by byte never shows a long value whole.
func (s *Stream) Flush(dst []byte) []byte { return s.open().write(dst, nil, pausing) }

// Close appends the rest; the stream may then be used for another one.
func (s *Stream) Close(dst []byte) []byte {
	in := s.open()
	dst = in.write(dst, nil, ending)
	in.before, in.rest = in.before[:0], rest{}
	return dst
}

// Held is the number of bytes that are held back.
func (s *Stream) Held() int { in := s.open(); return len(in.held) - in.shown }

// Hits is the number of hits so far.
func (s *Stream) Hits() int { return s.open().hits }

type stream struct {
	core    *core
	held    []byte  // may begin a form
	shown   int     // bytes of held that a Flush has let out
	before  []byte  // what stood before held, at most contextBytes
	rest    rest    // of the last hit, for the byte behind it
	joined  []byte  // held and the next chunk
	matches []match // scratch
	hits    int
}

func (s *stream) write(dst, chunk []byte, how mode) []byte {
	if s.core == nil {
		return append(dst, chunk...)
	}
	buf := chunk
	if len(s.held) > 0 {
		s.joined = append(append(s.joined[:0], s.held...), chunk...)
		buf = s.joined
	}
	s.matches = s.core.find(buf, s.matches[:0])
	return s.pass(dst, buf, how)
}

// pass appends buf with the hits among s.matches replaced, and holds back its
// end where more may follow. Of matches that overlap the first counts, of those
// that begin together the longest.
func (s *stream) pass(dst, buf []byte, how mode) []byte {
	now := text{before: s.before, now: buf}
	at, hold := 0, -1
	if how == more {
		hold = s.core.prefixes.under(buf, 0)
	}
	for _, m := range s.matches {
		if m.start < at {
			continue
		}
		if hold >= 0 && hold <= m.start {
			break // something longer, or earlier, may be under way
		}
		n := &s.core.needles[m.needle]
		if how == more && m.end+n.look() > len(buf) {
			hold = m.start
			break
		}
		if n.short && !now.bordered(n, m.start, m.end) {
			continue
		}
		dst = s.literal(dst, buf, at, m.start)
		dst = s.replace(dst, n, m.start)
		if at = m.end; hold >= 0 && hold < at {
			hold = s.core.prefixes.under(buf, at)
		}
	}
	switch how {
	case more:
		if hold < 0 {
			hold = len(buf)
		}
		dst = s.literal(dst, buf, at, hold)
		s.keep(buf, hold)
		return dst
	case pausing:
		if hold = s.core.prefixes.under(buf, at); hold < 0 {
			hold = len(buf)
		}
		show := len(buf)
		if cut, _ := s.core.prefixes.cutOff(buf, at); cut >= 0 {
			show = cut
		}
		dst = s.literal(dst, buf, at, show)
		shown := max(s.shown, show)
		s.keep(buf, hold)
		s.shown = max(0, shown-hold)
		return dst
	default:
		end := len(buf)
		cut, needle := s.core.prefixes.cutOff(buf, at)
		if cut >= 0 {
			end = cut
		}
		dst = s.literal(dst, buf, at, end)
		if cut >= 0 {
			dst = s.replace(dst, &s.core.needles[needle], cut)
		}
		s.keep(buf, len(buf))
		return dst
	}
}

// literal appends buf from a to b as it is, but for what a Flush has let out and
// for the bits of a hit in the byte behind it.
func (s *stream) literal(dst, buf []byte, a, b int) []byte {
	if a = max(a, min(s.shown, b)); a >= b {
		return dst
	}
	if s.rest.bits > 0 {
		dst = append(dst, s.rest.exchange(buf[a]))
		s.rest = rest{}
		a++
	}
	return append(dst, buf[a:b]...)
}

// replace appends what stands for n, without as many bytes as a Flush has let
// out of its beginning; all of it where nothing would be left.
func (s *stream) replace(dst []byte, n *needle, start int) []byte {
	s.hits++
	s.rest = n.rest
	if shown := s.shown - start; shown > 0 && shown < len(n.replacement) {
		return append(dst, n.replacement[shown:]...)
	}
	return append(dst, n.replacement...)
}

// keep holds back buf from hold on.
func (s *stream) keep(buf []byte, hold int) {
	if hold >= contextBytes {
		s.before = append(s.before[:0], buf[hold-contextBytes:hold]...)
	} else {
		s.before = append(s.before, buf[:hold]...)
		s.before = append(s.before[:0], s.before[max(0, len(s.before)-contextBytes):]...)
	}
	s.held = append(s.held[:0], buf[hold:]...)
	s.shown = max(0, s.shown-hold)
}

// exchange is c with the value's bits replaced, where c is a base64 character
// that holds them.
func (r rest) exchange(c byte) byte {
	v := base64Value(c)
	keep := 6 - r.bits
	if v > 63 || v>>keep != r.old {
		return c
	}
	v = r.new<<keep | v&(1<<keep-1)
	switch {
	case v < 62:
		return "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"[v]
	case r.urlSafe:
		return "-_"[v-62]
	}
	return "+/"[v-62]
}
