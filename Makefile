# breakerd: `sudo make demo` shows it at work, `sudo make test` proves it.

SHELL := /bin/bash
.DEFAULT_GOAL := build

# sudo's PATH does not have Go where go.dev's archive puts it.
GO      ?= $(firstword $(shell command -v go) $(wildcard /usr/local/go/bin/go /usr/lib/go-1.*/bin/go /snap/bin/go))
VERSION ?= $(shell git -c safe.directory='*' describe --tags --always --abbrev=12 --dirty 2>/dev/null || echo devel)
export PATH := $(dir $(GO)):$(PATH)

PROGRAMS := breakerd breaker-enforcer breakerctl
ARCHES   ?= amd64 arm64

.PHONY: build demo test check race kernel bench accuracy campaign fuzz generate man check-generated deb rpm clean

build: ## the three programs, into bin/
	@test -n "$(GO)" || { echo "make: Go 1.26 or later is needed and was not found: install it from https://go.dev/dl/"; exit 1; }
	CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=$(VERSION)" -o bin/ $(PROGRAMS:%=./cmd/%)

demo: build ## watch breakerd catch a fork storm and a CPU fight on this machine (as root)
	@bin/breakerctl drill

test: build ## everything: needs root, installs what it needs on Debian and Ubuntu
	@scripts/test

bench: ## what the kernel programs and the policies cost
	@scripts/bench

accuracy: ## is breakerd right about who? labelled loads against the real thing; needs root and a quiet machine
	$(GO) run ./bench/accuracy

campaign: ## is anything left behind? kills and stops both programs 1,000 times and more; needs root
	$(GO) run ./bench/campaign

fuzz: ## every parser, ten minutes each
	@scripts/fuzz

generate: ## the eBPF objects again; needs clang 14
	@scripts/install clang-14 llvm-14 libbpf-dev linux-libc-dev
	$(GO) generate ./bpf ./bench/...

man: ## manual pages, completions, the schema of policies and commented configuration again, from the commands, the structs and docs/
	$(GO) generate ./policy
	$(GO) test ./cmd/... -run 'TestTheManual|TestTheDefaultFilesAre|TestTheCompletions' -args -update

check-generated: generate man ## fails if what is committed is not what the sources give
	@git -c safe.directory='*' diff --exit-code --stat -- bpf bench packaging policy docs || { echo "the generated files differ from the committed ones: run make generate man and commit"; exit 1; }

deb: ## dist/breakerd_*.deb for each of ARCHES; the same commit gives the same bytes
	@packaging/build deb $(ARCHES)

rpm: ## dist/breakerd-*.rpm likewise
	@packaging/build rpm $(ARCHES)

clean:
	rm -rf bin dist
