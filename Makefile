# Everything a person or CI does with this repository. Each recipe can be run by hand as it stands.
PREFIX ?= /usr/local
DESTDIR ?=
CARGO ?= cargo

ARCH := $(shell uname -m)
MUSL := $(ARCH)-unknown-linux-musl
# The target is asked for when it is used, and make expands a recipe when all it depends on is done: set-up is a
# prerequisite of each, since it may add the target. Without it glibc is linked statically.
HAVE_MUSL = $(shell d=$$(rustc --print target-libdir --target $(MUSL) 2>/dev/null) && [ -d "$$d" ] && echo yes)
TARGET = $(if $(HAVE_MUSL),$(MUSL),$(ARCH)-unknown-linux-gnu)
STATIC = $(if $(HAVE_MUSL),,RUSTFLAGS="-C target-feature=+crt-static")

SHIM := containerd-shim-hull-v1
SUITE := bin/hull-integration

.DEFAULT_GOAL := help
.PHONY: help set-up build build-tests demo test test-unit test-vm check validate docs bench install uninstall clean

help: ## show this list
	@sed -n 's/^\([a-z-]*\):[^#]*## */\1\t/p' $(MAKEFILE_LIST) | while IFS='	' read -r target text; do \
		printf '  make %-12s %s\n' "$$target" "$$text"; done

set-up:
	hack/setup build

build: set-up ## build the static binaries bin/hull and bin/containerd-shim-hull-v1
	HULL_COMMIT="$$(git describe --always --dirty 2>/dev/null || echo unknown)" $(STATIC) \
		$(CARGO) build --locked --release --target $(TARGET) -p hull -p $(SHIM)
	@mkdir -p bin
	@for b in hull $(SHIM); do install -m 755 target/$(TARGET)/release/$$b bin/.$$b && mv bin/.$$b bin/$$b; done
	@echo 'built for $(TARGET):'; wc -c bin/hull bin/$(SHIM) | sed '/total/d; s/^ *\([0-9]*\) /  \1 bytes  /'

build-tests: set-up ## build the integration tests: bin/hull-integration
	$(STATIC) $(CARGO) build --locked --target $(TARGET) -p hull-integration --bin hull-integration
	@mkdir -p bin
	@install -m 755 target/$(TARGET)/debug/hull-integration bin/.suite && mv bin/.suite $(SUITE)

demo: build ## build a container from an empty directory, use it, delete it (root)
	hack/setup demo
	hack/demo

# The last line is the suite's summary: N passed, N failed, N skipped.
test: build build-tests test-unit ## run unit tests, then integration tests (root, or they are skipped)
	hack/setup test
	RUNTIME=$(CURDIR)/bin/hull $(SUITE)

test-unit: set-up ## run unit tests only
	$(STATIC) $(CARGO) test --locked --workspace --exclude hull-integration --target $(TARGET)

test-vm: build build-tests ## run integration tests in a virtual machine with systemd and cgroup v2
	# The engines are tested on the host: an emulated machine takes half a minute for each of their calls.
	hack/vm run -- env RUNTIME=$(CURDIR)/bin/hull $(CURDIR)/$(SUITE) -docker:: -podman:: -buildah::

# crun refuses a hybrid host.
validate: build-tests ## run integration tests against runc, crun and the Go shim, to validate the tests
	hack/setup test
	RUNTIME=$$(command -v runc) $(SUITE)
	! command -v containerd-shim-runc-v2 || \
		SHIM=$$(command -v containerd-shim-runc-v2) RUNTIME=$$(command -v runc) $(SUITE) shim_
	RUNTIME=$$(command -v crun) hack/view pure $(SUITE)

check: build ## check format, lints, documentation, shell scripts, size
	hack/setup check
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS=-Dwarnings $(CARGO) doc --locked --workspace --no-deps --quiet
	shellcheck $$(grep -lE '^#!.*(ba|da)?sh$$' hack/* .ci/run)
	hack/size bin/hull
	LIMIT=2000000 hack/size bin/$(SHIM)

docs: ## generate manual pages and completion from the table of verbs and flags
	$(CARGO) run --locked --quiet -p hull --example man -- docs/man docs/completion

bench: build build-tests ## measure start-up time and memory, compared with runc and crun
	hack/setup test
	$(STATIC) $(CARGO) build --locked --release --target $(TARGET) -p hull-sys --example floor
	hack/bench

install: ## install binaries, manual pages and completion in $(DESTDIR)$(PREFIX)
	@[ -x bin/hull ] && [ -x bin/$(SHIM) ] || { echo "run 'make build' first" >&2; exit 1; }
	install -d $(DESTDIR)$(PREFIX)/bin
	install -m 755 bin/hull bin/$(SHIM) $(DESTDIR)$(PREFIX)/bin
	@for page in $(wildcard docs/man/*.[1-8]); do \
		install -D -m 644 -v "$$page" "$(DESTDIR)$(PREFIX)/share/man/man$${page##*.}/$${page##*/}"; done
	install -D -m 644 docs/completion/hull.bash $(DESTDIR)$(PREFIX)/share/bash-completion/completions/hull

uninstall: ## remove the installed files
	rm -f $(DESTDIR)$(PREFIX)/bin/hull $(DESTDIR)$(PREFIX)/bin/$(SHIM)
	@for page in $(wildcard docs/man/*.[1-8]); do \
		rm -fv "$(DESTDIR)$(PREFIX)/share/man/man$${page##*.}/$${page##*/}"; done
	rm -f $(DESTDIR)$(PREFIX)/share/bash-completion/completions/hull

clean: ## remove build results (for the virtual machine: 'hack/vm clean')
	rm -rf bin target
