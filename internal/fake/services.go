package fake

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

func stripe(a *answer) {
	a.Header().Set("Request-Id", "req_fake")
	a.Header().Set("Stripe-Version", "2025-01-01.fake")
	if a.key == "" {
		a.json(http.StatusUnauthorized, object{"error": object{"message": "Invalid API Key provided", "type": "invalid_request_error"}})
		return
	}
	list := func(path string, data ...object) object {
		return object{"object": "list", "url": path, "has_more": false, "data": append([]object{}, data...)}
	}
	money := []object{{"amount": 4200, "currency": "eur", "source_types": object{"card": 4200}}}
	form, err := url.ParseQuery(string(a.body))
	if err != nil {
		form = url.Values{}
	}
	customer := object{"id": "cus_fake", "object": "customer", "created": 1, "email": form.Get("email"), "name": form.Get("name"), "livemode": false, "metadata": object{}}
	switch {
	case a.path == "/v1/balance":
		a.json(http.StatusOK, object{"object": "balance", "available": money, "pending": []object{}, "livemode": false})
	case a.path == "/v1/customers" && a.Method == http.MethodPost, strings.HasPrefix(a.path, "/v1/customers/"):
		a.json(http.StatusOK, customer)
	case a.path == "/v1/customers", a.path == "/v1/customers/search":
		a.json(http.StatusOK, list(a.path, customer))
	case a.path == "/v1/events", a.path == "/v1/charges":
		a.json(http.StatusOK, list(a.path))
	default:
		a.json(http.StatusNotFound, object{"error": object{"message": "Unrecognized request URL", "type": "invalid_request_error"}})
	}
}

func telegram(a *answer) {
	ok := func(result any) {
		if o, is := result.(object); is {
			result = a.quoting(o) // clients look at nothing else
		}
		a.json(http.StatusOK, object{"ok": true, "result": result})
	}
	fail := func(status int, why string) {
		a.json(status, object{"ok": false, "error_code": status, "description": why})
	}
	if a.key == "" {
		fail(http.StatusUnauthorized, "Unauthorized")
		return
	}
	_, method, _ := strings.Cut(a.path, "/bot{token}/")
	bot := object{"id": 4711, "is_bot": true, "first_name": "Fake", "username": "fake_gate_bot", "can_join_groups": true, "can_read_all_group_messages": false, "supports_inline_queries": false}
	if id, err := strconv.ParseInt(strings.SplitN(a.key, ":", 2)[0], 10, 64); err == nil {
		bot["id"] = id
	}
	switch method {
	case "getMe":
		ok(bot)
	case "sendMessage", "editMessageText":
		o := a.parameters()
		ok(object{"message_id": 1, "from": bot, "date": time.Now().Unix(), "text": text(o, "text", ""), "chat": object{"id": o["chat_id"], "type": "private", "first_name": "Somebody"}})
	case "getUpdates":
		if a.parameters()["timeout"] != nil {
			a.pause = max(a.pause, 200*time.Millisecond) // a long poll that does not spin
			a.wait()
		}
		ok([]object{})
	case "getWebhookInfo":
		ok(object{"url": "", "has_custom_certificate": false, "pending_update_count": 0})
	case "setWebhook", "deleteWebhook", "setMyCommands", "sendChatAction", "answerCallbackQuery", "close", "logOut":
		ok(true)
	default:
		fail(http.StatusNotFound, "Not Found: method not found")
	}
}

// parameters are what Telegram's clients send: JSON, a form, or a query.
func (c *call) parameters() object {
	if o := c.asked(); o != nil {
		return o
	}
	o := object{}
	form, err := url.ParseQuery(string(c.body))
	if err != nil || len(c.body) == 0 {
		form = c.URL.Query()
	}
	for key := range form {
		o[key] = form.Get(key)
	}
	if id, err := strconv.ParseInt(text(o, "chat_id", ""), 10, 64); err == nil {
		o["chat_id"] = id
	}
	return o
}

const discordBot = "discord.bot"

func discordUser() object {
	return object{"id": "123456789012345678", "username": "fakegate", "discriminator": "0001", "global_name": nil, "avatar": nil, "bot": true, "verified": true, "email": nil, "flags": 0, "mfa_enabled": false}
}

func discord(a *answer) {
	if strings.Contains(a.path, "/webhooks/") && a.key != "" {
		if a.URL.Query().Get("wait") == "true" {
			a.json(http.StatusOK, object{"id": "1", "type": 0, "content": text(a.asked(), "content", "")})
			return
		}
		a.WriteHeader(http.StatusNoContent)
		return
	}
	if a.key == "" {
		a.json(http.StatusUnauthorized, object{"message": "401: Unauthorized", "code": 0})
		return
	}
	for _, name := range []string{"X-Ratelimit-Limit", "X-Ratelimit-Remaining"} {
		a.Header().Set(name, "50")
	}
	path := strings.TrimPrefix(a.path, "/api")
	if version, rest, ok := strings.Cut(strings.TrimPrefix(path, "/"), "/"); ok && strings.HasPrefix(version, "v") {
		path = "/" + rest
	}
	switch {
	case path == "/users/@me":
		a.json(http.StatusOK, discordUser())
	case path == "/gateway":
		a.json(http.StatusOK, object{"url": "wss://gateway.discord.gg"})
	case path == "/gateway/bot":
		a.json(http.StatusOK, object{"url": "wss://gateway.discord.gg", "shards": 1, "session_start_limit": object{"total": 1000, "remaining": 999, "reset_after": 0, "max_concurrency": 1}})
	case path == "/oauth2/applications/@me", path == "/applications/@me":
		a.json(http.StatusOK, object{"id": "123456789012345678", "name": "Fake", "description": "", "bot_public": false, "bot_require_code_grant": false, "flags": 0})
	case strings.HasPrefix(path, "/applications/") && strings.HasSuffix(path, "/commands"):
		a.Header().Set("Content-Type", "application/json")
		a.send(http.StatusOK, []byte("[]"))
	case strings.HasPrefix(path, "/channels/") && strings.HasSuffix(path, "/messages") && a.Method == http.MethodPost:
		channel := strings.Split(path, "/")[2]
		a.json(http.StatusOK, object{"id": "1", "type": 0, "channel_id": channel, "content": text(a.asked(), "content", ""), "author": discordUser(), "timestamp": time.Now().UTC().Format(time.RFC3339), "attachments": []any{}, "embeds": []any{}, "mentions": []any{}, "mention_roles": []any{}, "pinned": false, "tts": false, "mention_everyone": false, "edited_timestamp": nil})
	default:
		a.json(http.StatusNotFound, object{"message": "404: Not Found", "code": 0})
	}
}

// generic answers for every other host, with the statuses that the kind's check
// expects and the fields that its recipe looks for.
func (s *Server) generic(a *answer) {
	if a.key == "" {
		status := http.StatusUnauthorized
		for _, kind := range s.kinds {
			if kind.Allows(a.host) && kind.Verify != nil && len(kind.Verify.Dead) > 0 {
				status = kind.Verify.Dead[0]
				break
			}
		}
		a.json(status, object{"ok": false, "error": "invalid_auth", "message": "the credential is not valid"})
		return
	}
	o := object{"ok": true, "host": a.host, "method": a.Method, "path": a.path, "bytes": len(a.body), "data": []object{}}
	status := http.StatusOK
	if a.kind != nil {
		o["kind"] = a.kind.ID
		if v := a.kind.Verify; v != nil {
			if len(v.Live) > 0 {
				status = v.Live[0]
			}
			place(o, v.OK, true)
			place(o, v.Owner, "fake-owner")
		}
	}
	if strings.HasPrefix(a.call.Request.Header.Get("Content-Type"), "application/json") && len(a.body) < 1<<16 && json.Valid(a.body) {
		o["received"] = json.RawMessage(a.body)
	}
	a.json(status, o)
}

// place sets the field that a JSON pointer names.
func place(o object, pointer string, value any) {
	keys := strings.Split(strings.TrimPrefix(pointer, "/"), "/")
	if pointer == "" {
		return
	}
	for _, key := range keys[:len(keys)-1] {
		inner, ok := o[key].(object)
		if !ok {
			inner = object{}
			o[key] = inner
		}
		o = inner
	}
	o[keys[len(keys)-1]] = value
}
