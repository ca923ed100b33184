# Everything a developer or CI does. Each target sets up what it needs: the servers of the tests come
# from tests/servers/spicedb, which builds or installs what is missing.

PREFIX ?= /usr/local
STATE = $(CURDIR)/target/test-servers
TEST_THREADS ?= 6
NEXTEST_VERSION = 0.9.128
MDBOOK_VERSION = 0.5.4
MDBOOK = target/tools/mdbook-$(MDBOOK_VERSION)/bin/mdbook
NEXTEST = target/tools/nextest-$(NEXTEST_VERSION)/bin/cargo-nextest
CARGO_DEB_VERSION = 3.8.0
CARGO_DEB = target/tools/cargo-deb-$(CARGO_DEB_VERSION)/bin/cargo-deb
CYCLONEDX_VERSION = 0.5.9
CYCLONEDX = target/tools/cargo-cyclonedx-$(CYCLONEDX_VERSION)/bin/cargo-cyclonedx
# Where cargo builds.
BUILT = $(or $(CARGO_TARGET_DIR),target)
RUST_VERSION = $(shell sed -n 's/^rust-version = "\(.*\)"/\1.0/p' Cargo.toml)

.PHONY: build test check msrv soak versions bench bench-check demo docs install uninstall dist dist-test clean servers

build:
	cargo build --release

# The real parts that the tests need, before a test waits for them in silence.
servers:
	tests/servers/spicedb binary
	tests/servers/spicedb binary v1.30.0
	tests/servers/spicedb binary v1.45.4
	tests/servers/spicedb toxiproxy
	tests/oracle/run --help >/dev/null
	tests/servers/shells

# Tools of the build are built once, quickly.
BUILD_TOOL = CARGO_PROFILE_DEV_DEBUG=0 CARGO_PROFILE_DEV_OPT_LEVEL=0 CARGO_INCREMENTAL=0 \
	cargo install --quiet --locked --debug

# The test runner: about 4 minutes of one core. Its features leave out what updates it.
$(NEXTEST):
	$(BUILD_TOOL) --no-default-features --features default-no-update \
		--root target/tools/nextest-$(NEXTEST_VERSION) --version $(NEXTEST_VERSION) cargo-nextest </dev/null

$(CARGO_DEB):
	$(BUILD_TOOL) --root target/tools/cargo-deb-$(CARGO_DEB_VERSION) --version $(CARGO_DEB_VERSION) cargo-deb </dev/null

$(CYCLONEDX):
	$(BUILD_TOOL) --root target/tools/cargo-cyclonedx-$(CYCLONEDX_VERSION) --version $(CYCLONEDX_VERSION) \
		cargo-cyclonedx </dev/null

# .config/nextest.toml says how. TESTS selects: make test TESTS=apply::
TESTS ?=
test: servers $(NEXTEST)
	SPICEDB_STATE="$(STATE)" $(NEXTEST) nextest run --workspace --test-threads $(TEST_THREADS) $(TESTS) && \
	cargo test --quiet --workspace --doc; \
	status=$$?; SPICEDB_STATE="$(STATE)" tests/servers/spicedb remove --all || true; exit $$status

# The same tests with the long repetitions; results go into docs/reliability.md by hand.
soak: servers $(NEXTEST)
	SPICE_SOAK=1 SPICEDB_STATE="$(STATE)" $(NEXTEST) nextest run --profile soak --test-threads $(TEST_THREADS) \
		--package fuzz --package spice-pipes $(TESTS); \
	status=$$?; SPICEDB_STATE="$(STATE)" tests/servers/spicedb remove --all || true; exit $$status

# The table of docs/versions.md: builds and tries each SpiceDB in it, a quarter of an hour.
versions: servers $(NEXTEST)
	SPICE_VERSIONS=1 SPICEDB_STATE="$(STATE)" $(NEXTEST) nextest run --profile soak --test-threads 1 \
		--package spice-pipes cutover::versions; \
	status=$$?; SPICEDB_STATE="$(STATE)" tests/servers/spicedb remove --all || true; exit $$status

check:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --all-features -- -D warnings
	cargo clippy -p authzed -p spice-record --no-default-features -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --document-private-items
	cargo run -q -p xtask -- protos --check
	cargo run -q -p xtask -- pages --help-to docs/help --check
	cargo run -q -p xtask -- messages --check
	cargo run -q -p xtask -- pictures --check
	cargo run -q -p xtask -- prose --check
	if command -v cargo-deny >/dev/null; then cargo deny check; fi
	if command -v shellcheck >/dev/null; then shellcheck scripts/demo scripts/copy scripts/follow scripts/cutover scripts/repair scripts/kafka-send scripts/kafka-apply scripts/install scripts/dist tests/servers/spicedb tests/servers/kafka tests/servers/shells tests/oracle/run tests/servers/*.sh tests/docs/prelude.sh .ci/run; fi

$(MDBOOK):
	CARGO_PROFILE_DEV_DEBUG=0 CARGO_PROFILE_DEV_OPT_LEVEL=0 CARGO_INCREMENTAL=0 \
		cargo install --quiet --locked --debug --no-default-features \
		--root target/tools/mdbook-$(MDBOOK_VERSION) --version $(MDBOOK_VERSION) mdbook </dev/null

# The book, in target/book. Links between README.md and docs/ stay as they are, so the pages are gathered with
# their folders. A warning is a failure, and so is anything that a page would load from the network.
docs: $(MDBOOK)
	rm -rf target/book-src target/book
	mkdir -p target/book-src/docs
	cp docs/book.toml README.md CONTRIBUTING.md SECURITY.md CHANGELOG.md target/book-src/
	cp -r docs/*.md docs/*.svg docs/*.json docs/pictures target/book-src/docs/
	sed -e 's#](\([a-z]\)#](docs/\1#' -e 's#](\.\./#](#' docs/SUMMARY.md >target/book-src/SUMMARY.md
	rm target/book-src/docs/SUMMARY.md
	mv target/book-src/README.md target/book-src/index.md
	sed -i 's#](\(\(\.\./\)*\)README\.md#](\1index.md#' target/book-src/*.md target/book-src/docs/*.md
	$(MDBOOK) build target/book-src 2>target/book.log || { cat target/book.log >&2; exit 1; }
	cat target/book.log >&2
	! grep -E 'WARN|ERROR' target/book.log
	! grep -rlE '(src|<link[^>]*href)="(https?:)?//' target/book --include='*.html'

# Compiles the programs with the oldest Rust that Cargo.toml names. `make check` has a lint for it (clippy's
# incompatible_msrv), and a test looks at the dependencies.
msrv:
	@cargo "+$(RUST_VERSION)" --version || \
		rustup toolchain install "$(RUST_VERSION)" --profile minimal --no-self-update || \
		{ echo "msrv: Rust $(RUST_VERSION) cannot be installed here: rustup toolchain install $(RUST_VERSION)" >&2; exit 1; }
	cargo "+$(RUST_VERSION)" check --quiet --locked --workspace --bins

bench: build
	cargo build --release -p xtask -p floor
	scripts/bench $(BENCH)

# Fails where a ratio is 15 % worse than in docs/benchmarks.json, which was measured with these sizes, and no round
# reached that one. BENCH replaces them: make bench-check BENCH="slow --slow 12000"
STORED = alone catchup slow --relationships 500000 --transactions 120000 --slow 12000
bench-check: build
	cargo build --release -p xtask -p floor
	scripts/bench --check $(or $(BENCH),$(STORED))

demo: build
	cargo build --release -p xtask
	scripts/demo

install:
	cargo build --release
	rm -rf target/pages
	cargo run -q --release -p xtask -- pages target/pages
	scripts/install "$(BUILT)/release" target/pages "$(DESTDIR)$(PREFIX)"

# What `make install` of this version has installed.
uninstall:
	scripts/install --remove "$(BUILT)/release" target/pages "$(DESTDIR)$(PREFIX)"

# What is released: docs/install.md.
dist: $(CARGO_DEB) $(CYCLONEDX)
	PATH="$(CURDIR)/$(dir $(CARGO_DEB)):$(CURDIR)/$(dir $(CYCLONEDX)):$$PATH" scripts/dist

# Installs each package in an empty root and runs it there; needs root, for chroot.
dist-test: dist servers $(NEXTEST)
	PATH="$(CURDIR)/$(dir $(CARGO_DEB)):$(CURDIR)/$(dir $(CYCLONEDX)):$$PATH" \
		SPICE_DIST=target/dist SPICEDB_STATE="$(STATE)" \
		$(NEXTEST) nextest run --package spice-pipes --test-threads 2 install::; \
	status=$$?; SPICEDB_STATE="$(STATE)" tests/servers/spicedb remove --all || true; exit $$status

clean:
	-SPICEDB_STATE="$(STATE)" tests/servers/spicedb remove --all
	-tests/servers/spicedb remove --all
	cargo clean
