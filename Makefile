# Tasks for people who work on clayer. `make` lists them.
.DEFAULT_GOAL := help
.PHONY: help build lint quick test long bench release clean

help: ## list the tasks
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

build: ## build bin/clayer
	@bash -c 'mapfile -t flags <internal/buildflags/flags; CGO_ENABLED=0 go build "$${flags[@]}" -o bin/clayer ./cmd/clayer'

lint: ## formatting, vet for Linux and macOS, staticcheck
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { gofmt -l $$(git ls-files '*.go'); exit 1; }
	go vet ./...
	GOOS=darwin GOARCH=arm64 go vet ./...
	go tool staticcheck ./...

# Three tiers of tests. Each prints how long it took. The quick one leaves out the
# packages that run the built program, or make roots.
slow = /cmd/clayer$$|/cmd/clayer/internal/(e2e|oracle|storm)|/solver/(rootfs|sandbox|internal)($$|/)
quick: ## tests without root, network or real packages: about a minute
	@bash -c 'time go test -short $$(go list ./... | grep -vE "$(slow)")'

test: ## all tests, with the race detector; most need Linux and root
	@bash -c 'time go test -race -timeout 30m ./...'

long: ## random rounds and fuzzing (FUZZTIME=30s per target)
	@bash -c 'time bash .ci/long'

bench: ## paired benchmarks against other tools; see docs/performance.md
	bash testdata/bench/run

release: ## every package of a release in dist/release (VERSION=1.2.3)
	@test -n "$(VERSION)" || { echo 'usage: make release VERSION=1.2.3'; exit 2; }
	rm -rf dist/release
	go run ./cmd/pack -version $(VERSION) -out dist/release

clean: ## remove what the tasks built
	rm -rf bin dist
