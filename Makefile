# make demo   shows Postern at work: an agent with real SDKs, no real key, three proofs
# make test   everything: unit, stories, clients, race detector, linters
# make help   lists the rest

SHELL := /bin/bash
export CGO_ENABLED ?= 0
BIN := bin/postern
PREFIX ?= /usr/local
AGENT ?= node

.PHONY: help build install demo test unit race lint bench long fuzz gen deps clean

help: ## lists the targets
	@sed -n 's/^\([a-z]*\):.*## /  \1\t/p' $(MAKEFILE_LIST)

build: ## builds bin/postern, static
	@command -v go >/dev/null || { echo "Go is missing: install Go 1.26 or later (https://go.dev/dl)"; exit 1; }
	go build -trimpath -o $(BIN) ./cmd/postern

install: build ## installs postern to PREFIX/bin (default /usr/local/bin)
	install -D -m 755 $(BIN) $(DESTDIR)$(PREFIX)/bin/postern

demo: ## the main job, from end to end (AGENT=python for the Python agent)
	@command -v go >/dev/null || { echo "Go is missing: install Go 1.26 or later (https://go.dev/dl)"; exit 1; }
	@AGENT=$(AGENT) go run ./examples/demo

test: lint unit race ## everything

unit: ## unit tests and stories
	@mkdir -p build
	@go test -v ./... > build/test.log 2>&1; status=$$?; \
	grep -E '^(ok|FAIL|panic:)' build/test.log; \
	if grep -q -e '--- SKIP' build/test.log; then echo "Skipped, with the reason:"; grep -B1 -e '--- SKIP' build/test.log | grep -E '^ .*\.go:[0-9]+: ' | sort -u; fi; \
	[ $$status = 0 ] || { grep -B40 -e '--- FAIL' build/test.log; echo "all of it: build/test.log"; }; exit $$status

# What runs at the same time as something else; the rest has no goroutines of its own.
RACE := ./internal/app/... ./internal/broker/... ./internal/ledger/... ./internal/run/... ./internal/ca/... ./internal/policy/... ./internal/store/... ./internal/safe/...

race: ## the rooms with concurrency under the race detector (needs a C compiler)
	@if command -v cc >/dev/null; then CGO_ENABLED=1 go test -race -short $(RACE); else echo "skipped: the race detector needs a C compiler (apt install gcc)"; fi

lint: ## gofmt, vet and staticcheck
	@test -z "$$(gofmt -l cmd internal test examples 2>/dev/null | tee /dev/stderr)" || { echo "gofmt: the files above are not formatted"; exit 1; }
	go vet ./...
	go tool staticcheck ./...

bench: build ## measures against the peers that are installed; results go to docs/benchmarks.md
	bash test/bench/run.sh

long: ## long loops: kills, fuzzing, soak
	POSTERN_LONG=1 go test -count=1 -timeout 60m ./internal/safe/... ./internal/ledger/... ./internal/change/... ./internal/setup/...
	$(MAKE) fuzz FUZZTIME=5m

FUZZTIME ?= 20s
fuzz: ## every fuzz target for FUZZTIME
	@for p in $$(grep -rl '^func Fuzz' --include=*_test.go internal | xargs -n1 dirname | sort -u); do \
	  for f in $$(grep -ho '^func Fuzz[A-Za-z0-9]*' $$p/*_test.go | sed 's/func //'); do \
	    go test ./$$p -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZTIME) || exit 1; done; done

gen: ## writes what is generated: the catalogue's JSON, its page, deps.txt
	go test -count=1 ./internal/catalog -run '^(TestDecodedFilesAreCurrent|TestPageIsCurrent)$$' -update
	go test -count=1 ./internal/arch -run '^TestDepsAreListed$$' -update

clean: ## removes what was built
	rm -rf bin build
