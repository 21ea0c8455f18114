# make build | check | test | soak | bench | clean
SHELL       := /bin/bash
.SHELLFLAGS := -euo pipefail -c

VERSION  := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS  := -s -w -X main.version=$(VERSION)

# The linter's version is in its file name: a new one in tools/go.mod is built,
# an old one is not used by mistake.
LINT_VERSION := $(shell awk '$$1 == "github.com/golangci/golangci-lint/v2" { print $$2 }' tools/go.mod)
LINT         := bin/golangci-lint-$(LINT_VERSION)

# A hanging test must show its goroutines before a job's own limit of an hour ends it.
TEST_TIMEOUT ?= 40m
# How many cases soak compares with rsync, how long it fuzzes each target, and how
# often it then runs every test.
DIFF_CASES   ?= 5000
FUZZ_TIME    ?= 2m
SOAK_COUNT   ?= 10
# Further flags of the benchmark, such as BENCH_FLAGS='-files 2000 -rows 5000 -repeats 1'.
BENCH_FLAGS  ?=

.PHONY: build check gofmt vet lint test deps soak bench clean

build:
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o bin/drsync ./cmd/drsync

check: gofmt vet lint

gofmt:
	@unformatted=$$(gofmt -l .); \
	if [ -n "$$unformatted" ]; then echo "gofmt would change:"; echo "$$unformatted"; exit 1; fi

vet:
	go vet ./...

lint: $(LINT)
	$(LINT) run ./...

$(LINT): tools/go.mod tools/go.sum
	CGO_ENABLED=0 go build -C tools -trimpath -ldflags '-s -w' -o ../$@ github.com/golangci/golangci-lint/v2/cmd/golangci-lint
	@touch $@

# Everything that must hold, with every server: a missing one is a failure here.
test: deps check
	DRSYNC_TEST_ALL=1 CGO_ENABLED=1 go test -race -timeout $(TEST_TIMEOUT) ./...

deps:
	@tools/test-deps

soak: deps
	tools/soak $(FUZZ_TIME) $(DIFF_CASES)
	DRSYNC_TEST_ALL=1 CGO_ENABLED=1 go test -race -count $(SOAK_COUNT) -timeout 0 ./...

bench: deps build
	go test ./internal/bench -count 1 -timeout 0 -run '^TestSuite$$' -v -args \
		-files 100000 -large 2048 -rows 500000 -repeats 3 -drsync $(CURDIR)/bin/drsync $(BENCH_FLAGS)

clean:
	rm -rf bin
