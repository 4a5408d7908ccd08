package http1

// seen counts the fields that decide about framing.
type seen struct {
	length, encoding, host int
	chunked                bool
}

// scan reads the fields that decide about framing and connection.
func (h *Head) scan() (s seen, err error) {
	h.KeepAlive = h.Minor == 1
	for _, f := range h.Fields {
		switch len(f.Name) {
		case 4:
			if EqualFold(f.Name, "host") {
				s.host++
				h.Host = f.Value
			}
		case 6:
			if EqualFold(f.Name, "expect") {
				if !EqualFold(f.Value, "100-continue") {
					return s, bad("an expectation other than 100-continue")
				}
				h.Expect = true
			}
		case 10:
			if EqualFold(f.Name, "connection") {
				if err := h.connection(f.Value); err != nil {
					return s, err
				}
			}
		case 14:
			if EqualFold(f.Name, "content-length") {
				s.length++
				if h.Length, err = number(f.Value); err != nil {
					return s, err
				}
			}
		case 17:
			if EqualFold(f.Name, "transfer-encoding") {
				s.encoding++
				s.chunked = EqualFold(f.Value, "chunked")
			}
		}
	}
	return s, s.check(h.Minor)
}

func (s seen) check(minor int) error {
	switch {
	case s.length > 1:
		return bad("two Content-Length fields")
	case s.length > 0 && s.encoding > 0:
		return bad("both Content-Length and Transfer-Encoding")
	case s.encoding > 1 || s.encoding == 1 && !s.chunked:
		return bad("a transfer encoding other than one chunked")
	case s.encoding > 0 && minor == 0:
		return bad("Transfer-Encoding in HTTP/1.0")
	}
	return nil
}

// connection reads one Connection field. Fields on which a decision hangs may
// not be nominated as hop-by-hop.
func (h *Head) connection(value []byte) error {
	var err error
	List(value, func(m []byte) bool {
		switch {
		case EqualFold(m, "close"):
			h.KeepAlive = false
		case EqualFold(m, "keep-alive"):
			h.KeepAlive = true
		case EqualFold(m, "upgrade"):
			h.Upgrade = h.Get("upgrade")
		case !IsToken(m):
			err = bad("Connection names something that is no field")
		case h.Status == 0 && protected(m):
			err = bad("Connection names a field that must be sent on")
		default:
			h.nominated = append(h.nominated, m)
		}
		return err == nil
	})
	return err
}

func protected(name []byte) bool {
	for _, p := range [...]string{"host", "content-length", "transfer-encoding", "authorization", "cookie", "content-type", "content-encoding", "expect", "x-api-key", "api-key"} {
		if EqualFold(name, p) {
			return true
		}
	}
	return false
}

func number(b []byte) (int64, error) {
	if len(b) == 0 || len(b) > 18 {
		return 0, bad("Content-Length is not a number")
	}
	var n int64
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, bad("Content-Length is not a number")
		}
		n = n*10 + int64(c-'0')
	}
	return n, nil
}

func (h *Head) finishRequest() error {
	s, err := h.scan()
	if err != nil {
		return err
	}
	// Python before 3.12 sends CONNECT without Host; its target says it all.
	if s.host != 1 && (s.host != 0 || string(h.Method) != "CONNECT") {
		return bad("%d Host fields where there must be one", s.host)
	}
	switch {
	case s.encoding == 1:
		h.Framing = Chunked
	case s.length == 1 && h.Length > 0:
		h.Framing = Length
	}
	return nil
}

func (h *Head) finishResponse(headOnly bool) error {
	s, err := h.scan()
	if err != nil {
		return err
	}
	if h.Minor == 0 {
		h.KeepAlive = h.KeepAlive && s.length == 1
	}
	switch {
	case headOnly || h.Status < 200 || h.Status == 204 || h.Status == 304:
		h.Framing = NoBody
	case s.encoding == 1:
		h.Framing = Chunked
	case s.length == 1 && h.Length == 0:
		h.Framing = NoBody
	case s.length == 1:
		h.Framing = Length
	default:
		h.Framing, h.KeepAlive = UntilEnd, false
	}
	return nil
}
