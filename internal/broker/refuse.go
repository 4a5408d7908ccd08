package broker

import (
	"encoding/json"
	"net/http"
	"strings"

	"postern/internal/event"
)

// refusal is an answer of ours in place of the upstream's. No field ever holds
// a value, a token or a part of the message that was refused.
type refusal struct {
	status     int
	id         string // help page, "P-E1nn"
	kind       event.Kind
	rule       string // the policy's rule, or the broker's own in words
	message    string
	next       string // the command that comes next
	credential string
}

// The rules of the broker itself, as records and answers name them.
const (
	ruleBinding    = "broker: one name for connection, certificate and Host"
	ruleStrict     = "broker: strict messages only"
	ruleForeign    = "broker: no foreign key on a granted host"
	ruleTripwire   = "broker: a placeholder works for its agent, at its host, in its slot"
	ruleOne        = "broker: exactly one credential in one slot"
	ruleCleartext  = "broker: no credential over plain http"
	rulePath       = "broker: one reading of a path"
	ruleMethod     = "broker: one reading of a method"
	ruleAddress    = "broker: public addresses only"
	ruleLedger     = "broker: no use without a record"
	ruleLease      = "broker: the safe must lend the value"
	ruleUpstream   = "broker: the provider could not be reached safely"
	ruleEncoding   = "broker: what cannot be searched is not passed"
	ruleIdentity   = "broker: every caller is known"
	ruleUpgrade    = "broker: WebSocket is the only switch of protocols"
	ruleReady      = "broker: known values are masked"
	contentTypeOur = "application/json"
)

func malformed(why string) *refusal {
	return &refusal{status: http.StatusBadRequest, id: "P-E100", kind: event.Malformed, rule: ruleStrict, message: why}
}

func misdirected(why string) *refusal {
	return &refusal{status: http.StatusMisdirectedRequest, id: "P-E101", kind: event.Refused, rule: ruleBinding, message: why}
}

func tripwire(credential, why string) *refusal {
	return &refusal{status: http.StatusForbidden, id: "P-E102", kind: event.Tripwire, rule: ruleTripwire, message: why, credential: credential}
}

func cleartext(credential string) *refusal {
	r := tripwire(credential, "the placeholder of "+credential+" was sent over plain http; use https")
	r.id, r.rule = "P-E104", ruleCleartext
	return r
}

func foreign(credential, why string) *refusal {
	return &refusal{status: http.StatusForbidden, id: "P-E103", kind: event.Refused, rule: ruleForeign, message: why, credential: credential}
}

func forbidden(rule, why string) *refusal {
	return &refusal{status: http.StatusForbidden, id: "P-E104", kind: event.Refused, rule: rule, message: why}
}

func unavailable(rule, why string) *refusal {
	return &refusal{status: http.StatusServiceUnavailable, id: "P-E105", kind: event.Refused, rule: rule, message: why}
}

func badGateway(rule, why string) *refusal {
	return &refusal{status: http.StatusBadGateway, id: "P-E106", kind: event.Refused, rule: rule, message: why}
}

func policyRefusal(d Decision, credential, hostport string) *refusal {
	why := d.Reason
	if why == "" {
		why = "the policy does not allow it"
	}
	return &refusal{
		status: http.StatusForbidden, id: "P-E107", kind: event.Refused, rule: d.Rule, credential: credential, next: d.Fix,
		message: "credential " + credential + " may not be used at " + hostport + ": " + why,
	}
}

func egressRefusal(d EgressDecision, hostport string) *refusal {
	why := d.Reason
	if why == "" {
		why = "the policy does not allow it"
	}
	return &refusal{
		status: http.StatusForbidden, id: "P-E108", kind: event.Refused, rule: d.Rule, next: d.Fix,
		message: "the agent may not reach " + hostport + ": " + why,
	}
}

// answer is the body of a refusal: the shape that the SDKs of the large
// providers show to people (error.type, error.message).
type answer struct {
	Error answerError `json:"error"`
}

type answerError struct {
	Type    string `json:"type"`
	Message string `json:"message"`
	Rule    string `json:"rule,omitempty"`
	Next    string `json:"next,omitempty"`
	Help    string `json:"help"`
	Request string `json:"request"`
}

// appendRefusal appends the whole response, after which the connection closes.
func appendRefusal(dst []byte, r *refusal, request string, headOnly bool) []byte {
	body, err := json.Marshal(answer{answerError{
		Type: "postern_refused", Message: "postern refused the call: " + r.message,
		Rule: r.rule, Next: r.next, Help: "postern help " + r.id, Request: request,
	}})
	if err != nil {
		body = []byte(`{"error":{"type":"postern_refused"}}`)
	}
	body = append(body, '\n')
	dst = append(dst, "HTTP/1.1 "+itoa(r.status)+" "+http.StatusText(r.status)+"\r\n"...)
	dst = append(dst, "Content-Type: "+contentTypeOur+"\r\nCache-Control: no-store\r\nX-Postern-Refused: "+headerText(r.rule)+"\r\nX-Postern-Request: "+request+"\r\n"...)
	if r.status == http.StatusProxyAuthRequired {
		dst = append(dst, "Proxy-Authenticate: Basic realm=\"postern\"\r\n"...)
	}
	dst = append(dst, "Connection: close\r\nContent-Length: "+itoa(len(body))+"\r\n\r\n"...)
	if headOnly {
		return dst
	}
	return append(dst, body...)
}

// headerText keeps printable ASCII only.
func headerText(s string) string {
	return strings.Map(func(r rune) rune {
		if r < 0x20 || r > 0x7e {
			return -1
		}
		return r
	}, s)
}
