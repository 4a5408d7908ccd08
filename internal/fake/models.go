package fake

import (
	"net/http"
	"strings"
	"time"
)

const line = "All quiet at the gate, nobody came in without a key."

func anthropic(a *answer) {
	fail := func(status int, kind, message string) {
		a.json(status, object{"type": "error", "error": object{"type": kind, "message": message}, "request_id": "req_fake"})
	}
	a.Header().Set("Request-Id", "req_fake")
	if a.key == "" {
		fail(http.StatusUnauthorized, "authentication_error", "invalid x-api-key")
		return
	}
	asked := a.asked()
	model := text(asked, "model", "claude-fake")
	switch {
	case a.path == "/v1/messages" && a.Method == http.MethodPost:
		message := object{
			"id": "msg_fake", "type": "message", "role": "assistant", "model": model,
			"content":     []object{{"type": "text", "text": line}},
			"stop_reason": "end_turn", "stop_sequence": nil,
			"usage": object{"input_tokens": 12, "output_tokens": 11},
		}
		if asked["stream"] != true {
			a.json(http.StatusOK, message)
			return
		}
		message["content"], message["stop_reason"] = []object{}, nil
		list := []event{
			{"message_start", object{"type": "message_start", "message": a.quoting(message)}},
			{"content_block_start", object{"type": "content_block_start", "index": 0, "content_block": object{"type": "text", "text": ""}}},
			{"ping", object{"type": "ping"}},
		}
		for _, word := range words(line) {
			list = append(list, event{"content_block_delta", object{"type": "content_block_delta", "index": 0, "delta": object{"type": "text_delta", "text": word}}})
		}
		a.events(append(list,
			event{"content_block_stop", object{"type": "content_block_stop", "index": 0}},
			event{"message_delta", object{"type": "message_delta", "delta": object{"stop_reason": "end_turn", "stop_sequence": nil}, "usage": object{"output_tokens": 11}}},
			event{"message_stop", object{"type": "message_stop"}}))
	case a.path == "/v1/messages/count_tokens":
		a.json(http.StatusOK, object{"input_tokens": 12})
	case a.path == "/v1/models":
		a.json(http.StatusOK, object{"data": []object{{"type": "model", "id": "claude-fake", "display_name": "Fake", "created_at": "2025-01-01T00:00:00Z"}}, "has_more": false})
	case strings.HasPrefix(a.path, "/v1/organizations/"):
		a.json(http.StatusOK, object{"data": []object{}, "has_more": false})
	default:
		fail(http.StatusNotFound, "not_found_error", "Not found")
	}
}

func openai(a *answer) {
	a.Header().Set("X-Request-Id", "req_fake")
	if a.key == "" {
		a.json(http.StatusUnauthorized, object{"error": object{
			"message": "Incorrect API key provided. You can find your API key at https://platform.openai.com/account/api-keys.",
			"type":    "invalid_request_error", "param": nil, "code": "invalid_api_key",
		}})
		return
	}
	asked := a.asked()
	model := text(asked, "model", "gpt-fake")
	switch a.path {
	case "/v1/chat/completions":
		a.chat(model, asked["stream"] == true)
	case "/v1/responses":
		a.responses(model, asked["stream"] == true)
	case "/v1/models":
		a.json(http.StatusOK, object{"object": "list", "data": []object{{"id": "gpt-fake", "object": "model", "created": 1, "owned_by": "fake"}}})
	case "/v1/embeddings":
		a.json(http.StatusOK, object{"object": "list", "model": model, "data": []object{{"object": "embedding", "index": 0, "embedding": []float64{0.25, -0.5}}}, "usage": object{"prompt_tokens": 1, "total_tokens": 1}})
	default:
		a.json(http.StatusNotFound, object{"error": object{"message": "Unknown request URL", "type": "invalid_request_error", "param": nil, "code": "unknown_url"}})
	}
}

func (a *answer) chat(model string, stream bool) {
	head := func(kind string) object {
		return object{"id": "chatcmpl-fake", "object": kind, "created": time.Now().Unix(), "model": model}
	}
	if !stream {
		o := head("chat.completion")
		o["choices"] = []object{{"index": 0, "finish_reason": "stop", "logprobs": nil, "message": object{"role": "assistant", "content": line, "refusal": nil}}}
		o["usage"] = object{"prompt_tokens": 12, "completion_tokens": 11, "total_tokens": 23}
		a.json(http.StatusOK, o)
		return
	}
	var list []event
	chunk := func(delta object, finish any) {
		o := head("chat.completion.chunk")
		o["choices"] = []object{{"index": 0, "delta": delta, "finish_reason": finish, "logprobs": nil}}
		list = append(list, event{"", a.quoting(o)})
	}
	chunk(object{"role": "assistant", "content": ""}, nil)
	for _, word := range words(line) {
		chunk(object{"content": word}, nil)
	}
	chunk(object{}, "stop")
	a.events(append(list, event{}))
}

func (a *answer) responses(model string, stream bool) {
	part := object{"type": "output_text", "text": line, "annotations": []any{}}
	item := object{"id": "msg_fake", "type": "message", "role": "assistant", "status": "completed", "content": []object{part}}
	whole := func(status string, output []object) object {
		return a.quoting(object{
			"id": "resp_fake", "object": "response", "created_at": time.Now().Unix(), "status": status, "model": model, "output": output,
			"error": nil, "incomplete_details": nil, "instructions": nil, "metadata": object{}, "parallel_tool_calls": true, "tool_choice": "auto", "tools": []any{},
			"usage": object{"input_tokens": 12, "output_tokens": 11, "total_tokens": 23, "input_tokens_details": object{"cached_tokens": 0}, "output_tokens_details": object{"reasoning_tokens": 0}},
		})
	}
	if !stream {
		a.json(http.StatusOK, whole("completed", []object{item}))
		return
	}
	var list []event
	next := func(kind string, o object) {
		o["type"], o["sequence_number"] = kind, len(list)
		list = append(list, event{kind, o})
	}
	next("response.created", object{"response": whole("in_progress", []object{})})
	begun := object{"id": "msg_fake", "type": "message", "role": "assistant", "status": "in_progress", "content": []object{}}
	next("response.output_item.added", object{"output_index": 0, "item": begun})
	place := func(o object) object {
		o["item_id"], o["output_index"], o["content_index"] = "msg_fake", 0, 0
		return o
	}
	next("response.content_part.added", place(object{"part": object{"type": "output_text", "text": "", "annotations": []any{}}}))
	for _, word := range words(line) {
		next("response.output_text.delta", place(object{"delta": word, "logprobs": []any{}}))
	}
	next("response.output_text.done", place(object{"text": line, "logprobs": []any{}}))
	next("response.content_part.done", place(object{"part": part}))
	next("response.output_item.done", object{"output_index": 0, "item": item})
	next("response.completed", object{"response": whole("completed", []object{item})})
	a.events(list)
}
