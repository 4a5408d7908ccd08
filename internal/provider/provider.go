// Package provider carries out the catalogue's recipes: cheap calls to a
// credential's own provider. It is used only where a person asked for it.
package provider

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"postern/internal/catalog"
	"postern/internal/netclass"
	"postern/internal/secret"
)

// State is what a provider says of a credential.
type State string

// The states.
const (
	Live    State = "live"
	Dead    State = "dead"         // wrong or revoked
	Scoped  State = "scoped"       // works, but not for this call
	Broke   State = "out of money" // or out of calls
	Unknown State = "unknown"      // an answer that the catalogue does not know, or none
)

// Answer is the outcome of a verification.
type Answer struct {
	State  State  `json:"state"`
	Status int    `json:"status,omitempty"` // of the provider's answer
	Owner  string `json:"owner,omitempty"`  // whose the credential is, where the answer says so
	Why    string `json:"why,omitempty"`    // of Unknown
}

const (
	callTime  = 15 * time.Second
	bodyBytes = 1 << 20
)

// Client calls providers. Redirects are not followed, private addresses not
// dialled.
type Client struct {
	http *http.Client
	dial map[string]string
}

// New makes a client. dial leads "host:port" to "addr:port" past the address
// check; roots nil are the system's.
func New(dial map[string]string, roots *x509.CertPool) *Client {
	c := &Client{dial: dial}
	c.http = &http.Client{
		Timeout:       callTime,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			DialContext: c.connect, TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
			ResponseHeaderTimeout: callTime, MaxResponseHeaderBytes: 64 << 10, DisableKeepAlives: true,
		},
	}
	return c
}

// connect dials the address of a provider after looking at it.
func (c *Client) connect(ctx context.Context, network, hostport string) (net.Conn, error) {
	var d net.Dialer
	if to, found := c.dial[hostport]; found {
		return d.DialContext(ctx, network, to)
	}
	host, port, err := net.SplitHostPort(hostport)
	if err != nil {
		return nil, err
	}
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, err
	}
	for _, addr := range addrs {
		addr = addr.Unmap()
		if class, public := netclass.ClassifyAddr(addr); !public {
			return nil, fmt.Errorf("%s leads to a %s address", host, class)
		}
	}
	if len(addrs) == 0 {
		return nil, errors.New("the name has no address")
	}
	return d.DialContext(ctx, network, net.JoinHostPort(netip.Addr.String(addrs[0].Unmap()), port))
}

// ErrNoRecipe says that the catalogue knows no call for the kind.
var ErrNoRecipe = errors.New("the catalogue knows no call that checks this kind")

// Verify asks the provider whether a value works. What cannot be found out is
// Unknown with the reason, never an error that could hold the value.
func (c *Client) Verify(ctx context.Context, kind *catalog.Kind, value secret.Value) (Answer, error) {
	if kind.Verify == nil || len(kind.Slots) == 0 {
		return Answer{}, ErrNoRecipe
	}
	var answer Answer
	err := value.Reveal(func(b []byte) error {
		request, err := build(ctx, kind, kind.Verify, string(b))
		if err != nil {
			return err
		}
		answer = c.call(request, kind.Verify)
		return nil
	})
	return answer, err
}

// build makes the request of a recipe, with the value in the kind's first slot.
func build(ctx context.Context, kind *catalog.Kind, r *catalog.Recipe, value string) (*http.Request, error) {
	method, address, found := strings.Cut(r.Call, " ")
	if !found {
		return nil, errors.New("the recipe has no method")
	}
	inPath := strings.Contains(address, "{secret}")
	request, err := http.NewRequestWithContext(ctx, method, strings.ReplaceAll(address, "{secret}", url.PathEscape(value)), strings.NewReader(r.Body))
	if err != nil {
		return nil, errors.New("the recipe's address cannot be read")
	}
	for name, text := range r.Headers {
		request.Header.Set(name, text)
	}
	if inPath {
		return request, nil
	}
	slot := kind.Slots[0]
	switch slot.In {
	case "header":
		form := "{secret}"
		if len(slot.Formats) > 0 {
			form = slot.Formats[0]
		}
		request.Header.Set(slot.Name, strings.ReplaceAll(form, "{secret}", value))
	case "basic":
		if slot.Part == "password" {
			request.SetBasicAuth("x", value)
		} else {
			request.SetBasicAuth(value, "")
		}
	case "query":
		query := request.URL.Query()
		query.Set(slot.Name, value)
		request.URL.RawQuery = query.Encode()
	default:
		return nil, ErrNoRecipe
	}
	return request, nil
}

func (c *Client) call(request *http.Request, r *catalog.Recipe) Answer {
	response, err := c.http.Do(request)
	if err != nil {
		var where *url.Error // names the address, in which a value may stand
		if errors.As(err, &where) {
			err = where.Err
		}
		return Answer{State: Unknown, Why: err.Error()}
	}
	defer response.Body.Close()
	answer := Answer{State: stateOf(response.StatusCode, r), Status: response.StatusCode}
	body, err := io.ReadAll(io.LimitReader(response.Body, bodyBytes))
	if err != nil {
		return Answer{State: Unknown, Status: response.StatusCode, Why: "the answer broke off"}
	}
	if answer.State == Live && r.OK != "" && pointer(body, r.OK) != true {
		answer.State = Dead
	}
	if answer.State == Live && r.Owner != "" {
		answer.Owner, _ = pointer(body, r.Owner).(string)
	}
	if answer.State == Unknown {
		answer.Why = fmt.Sprintf("status %d says nothing about the key", response.StatusCode)
	}
	return answer
}

func stateOf(status int, r *catalog.Recipe) State {
	switch {
	case slices.Contains(r.Live, status):
		return Live
	case slices.Contains(r.Dead, status):
		return Dead
	case slices.Contains(r.Scoped, status):
		return Scoped
	case slices.Contains(r.Broke, status):
		return Broke
	}
	return Unknown
}

// pointer is what stands at a JSON pointer (RFC 6901, objects only); nil where
// nothing does.
func pointer(body []byte, path string) any {
	var at any
	if err := json.NewDecoder(bytes.NewReader(body)).Decode(&at); err != nil {
		return nil
	}
	for name := range strings.SplitSeq(strings.TrimPrefix(path, "/"), "/") {
		object, isObject := at.(map[string]any)
		if !isObject {
			return nil
		}
		at = object[name]
	}
	return at
}
