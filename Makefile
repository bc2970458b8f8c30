.DEFAULT_GOAL := help
.PHONY: help run build test browser web screenshots verify lint proto generate bench chaos fuzz release

GO ?= go

# The tools have a module of their own, so that the gateway's stays small.
tool := $(GO) tool -modfile=tools/go.mod

# Code that is generated and committed.
generated := 'proto/coven/*.pb.go' web/dist

# The race detector needs a C compiler, which nothing else here does. It also checks conversions of
# pointers, of which SQLite, as translated from C, has more than anything else: half of all the time.
race := $(if $(shell command -v $$($(GO) env CC)),-race -gcflags=modernc.org/...=-d=checkptr=0)

chromium := $(shell command -v chromium || command -v chromium-browser || command -v google-chrome)

sources := $(wildcard cmd e2e examples internal proto sdk web)

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "%-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: ## start a gateway with a demo agent
	$(GO) run ./cmd/coven-gateway demo

build: ## build the programs into bin/
	$(GO) build -o bin/ $(addprefix ./,$(wildcard cmd/coven-gateway cmd/coven-admin))

test: ## run go vet and all tests
	$(GO) vet ./...
	$(if $(race),,@echo 'no C compiler: testing without the race detector')
	$(GO) test $(race) $$($(GO) list ./... | grep -v /gatewaytest$$)
	$(GO) test ./internal/gatewaytest # in bubbles that restart gateways the race detector itself crashes now and then
	cd web/build && $(GO) vet . && $(GO) test -count=1 . # what it compares is outside of its module
	$(MAKE) --no-print-directory browser

web: ## bundle the pages: web/src becomes web/dist
	$(GO) generate ./web

browser: ## run the tests that need a browser or programs from npm; installs Chromium where apt can
	$(if $(chromium),,@{ apt-get update && apt-get install -y --no-install-recommends chromium; } >/dev/null 2>&1 || \
		echo 'no Chromium, and it cannot be installed: the tests with a browser are skipped')
	@command -v npm >/dev/null || echo 'no npm: the tests with MCP servers from npm are skipped'
	@if command -v npm >/dev/null; then cd e2e/upstream && npm ci --silent --no-fund --no-audit --ignore-scripts; fi
	cd e2e && $(GO) vet ./... && $(GO) test ./...

screenshots: ## take pictures of every page into e2e/screenshots
	cd e2e && COVEN_SCREENSHOTS=screenshots $(GO) test -count=1 -run TestScreenshots .

verify: generate ## check that generated code, go.mod and formatting are up to date
	git diff --exit-code -- $(generated)
	@new=$$(git ls-files --others --exclude-standard -- $(generated)); \
		if [ -n "$$new" ]; then echo "generated, but not known to git:"; echo "$$new"; exit 1; fi
	$(GO) mod tidy -diff
	cd e2e && $(GO) mod tidy -diff
	cd web/build && $(GO) mod tidy -diff
	@bad=$$(gofmt -l $(sources)); \
		if [ -n "$$bad" ]; then echo "not formatted:"; echo "$$bad"; exit 1; fi

lint: ## run the linters
	$(tool) golangci-lint run
	@if command -v npm >/dev/null; then npm exec --yes --package=typescript@7.0.2 -- tsc --noEmit -p web/src; \
		else echo 'no npm: the types of web/src are not checked'; fi
	$(tool) buf lint
	$(tool) buf format --diff --exit-code

generate: proto ## regenerate all generated code
	$(GO) generate ./...

proto: ## regenerate proto/coven from the schema
	$(tool) buf generate

bench: ## measure the gateway, and run the benchmarks of packages
	$(GO) run ./cmd/coven-gateway bench
	@pkgs=$$(grep -rl --include='*_test.go' '^func Benchmark' $(sources) | xargs -r dirname | sort -u | sed 's,^,./,'); \
		if [ -z "$$pkgs" ]; then echo 'no benchmarks'; exit 0; fi; \
		$(GO) test -run '^$$' -bench . -benchmem $$pkgs

chaos: ## break a gateway for three minutes and check that nothing is lost
	$(GO) run ./cmd/coven-gateway chaos --duration 3m $(if $(SEED),--seed $(SEED))

fuzz: ## run each fuzz target for 30 seconds
	@grep -ro --include='*_test.go' '^func Fuzz[A-Za-z0-9_]*' $(sources) | sort | sed 's,/[^/]*:func , ,' | \
		while read -r dir target; do \
			echo "$$dir $$target"; \
			$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime 30s "./$$dir" || exit 1; \
		done

release: ## build archives for all systems into dist/; the same commit gives the same bytes
	$(GO) run ./internal/release
