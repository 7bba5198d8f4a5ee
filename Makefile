# GNU make 4.3 or newer, Go and a C compiler (for the NVML probe and the fake
# NVML library of the tests). `make help` lists the targets.

SHELL       := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := build
MAKEFLAGS   += --no-builtin-rules

GO       ?= go
PREFIX   ?= /usr/local
# Where systemd looks for the settings is written into its units.
SYSCONFDIR ?= /etc
DESTDIR  ?=
FUZZTIME ?= 10s
# Extra flags for `make test`, for instance TESTFLAGS='-v -run MIG'.
TESTFLAGS ?=
# How many runs of each program `make bench-pairs` measures.
BENCHRUNS ?= 21
COVER_MIN ?= 85

# A source archive may lie inside somebody else's repository, hence the test
# for .git; a repository of another owner makes git describe fail.
VERSION ?= $(shell { test -e .git && git describe --tags --always --dirty 2>/dev/null; } || echo devel)

# The date of everything that is packaged.
SOURCE_DATE_EPOCH ?= $(shell { test -e .git && git log -1 --format=%ct 2>/dev/null; } || stat -c %Y CHANGELOG.md)

LDFLAGS =

# The version comes from -ldflags, so the go command need not ask git as well
# (it refuses to build in a checkout that belongs to another user).
BUILD = $(GO) build -trimpath -buildvcs=false $(TAGS) -ldflags '-s -w -X main.version=$(VERSION) $(LDFLAGS)' -o $@

# The go command's own flags, and no warnings about what NVML has deprecated:
# go-nvml wraps all of it.
export CGO_CFLAGS ?= -O2 -g -Wno-deprecated-declarations

GOLANGCI_LINT_VERSION := v2.15.0
GOLANGCI_LINT := build/tools/golangci-lint-$(GOLANGCI_LINT_VERSION)
NVIDIA_CTK_VERSION := v1.20.2
NVIDIA_CTK := build/tools/nvidia-ctk-$(NVIDIA_CTK_VERSION)
NVIDIA_CDI_HOOK := build/tools/nvidia-cdi-hook

RUNC_VERSION := v1.5.2
RUNC := build/tools/runc-$(RUNC_VERSION)

NFPM_VERSION := v2.45.2
NFPM := build/tools/nfpm-$(NFPM_VERSION)
APIDIFF_VERSION := v0.0.0-20261113113407-e3970619a1a4
APIDIFF := build/tools/apidiff-$(APIDIFF_VERSION)
CYCLONEDX_VERSION := v1.10.0
CYCLONEDX := build/tools/cyclonedx-gomod-$(CYCLONEDX_VERSION)

ACTIONLINT_VERSION := v1.7.12
ACTIONLINT := build/tools/actionlint-$(ACTIONLINT_VERSION)
GOVULNCHECK_VERSION := v1.9.0

# For another architecture: GOARCH=arm64 CC=aarch64-linux-gnu-gcc BIN=…
BIN ?= bin
MANUAL ?= build/manual
BINARIES := $(BIN)/cdigen $(BIN)/cdigen-nvml $(BIN)/cdigen-hook

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-15s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

.PHONY: build
build: binaries manual ## Build the three programs into bin/ and the manual into build/manual

.PHONY: binaries
binaries: $(BINARIES)

# The go command knows better than make what is out of date.
.PHONY: $(BINARIES)
$(BIN)/cdigen $(BIN)/cdigen-hook: export CGO_ENABLED = 0
$(BIN)/cdigen-nvml: export CGO_ENABLED = 1
# It has no use for the C library's resolver and users.
$(BIN)/cdigen-nvml: TAGS = -tags netgo,osusergo
# Functions of NVML that the installed library lacks must not matter until they
# are called, which no distribution's default of -z now may change.
$(BIN)/cdigen-nvml: LDFLAGS = "-extldflags=-Wl,-z,lazy $(OLD_GLIBC)"
# The first versions of glibc's symbols (cmd/cdigen-nvml/glibc_linux.c), some of which
# were in these libraries before 2.34. musl has no versions.
OLD_GLIBC = $(if $(findstring musl,$(shell $(CC) -dumpmachine)),,-Wl,--no-as-needed -l:libdl.so.2 -l:libpthread.so.0 \
  $(shell sed -n 's/^FIRST.\([a-z_]*\),.*/-Wl,--wrap=\1/p' cmd/cdigen-nvml/glibc_linux.c) -Wl,--wrap=__libc_start_main)
$(BINARIES): $(BIN)/%:
	@mkdir -p $(BIN)
	$(BUILD) ./cmd/$*

.PHONY: manual
manual: $(BIN)/cdigen ## Write the manual pages and shell completions into build/manual
	@rm -rf $(MANUAL) && mkdir -p $(MANUAL)
	$(GO) run -tags man -ldflags '-X main.version=$(VERSION)' ./cmd/cdigen $(MANUAL)
	$(BIN)/cdigen completion bash >$(MANUAL)/cdigen.bash
	$(BIN)/cdigen completion zsh >$(MANUAL)/_cdigen
	$(BIN)/cdigen completion fish >$(MANUAL)/cdigen.fish

.PHONY: test-packages
test-packages:
	@internal/e2e/packages.sh

# Not cached: the tests run programs and read files that go test cannot see.
.PHONY: test
test: test-packages ## Run all tests (as root: with real container runtimes)
	$(GO) test -count=1 -timeout=75m $(TESTFLAGS) ./...
	$(GO) -C packaging/helm test -count=1 $(TESTFLAGS) ./...
	$(GO) -C internal/site test -count=1 $(TESTFLAGS) ./...

# Where make e2e-browser puts pictures of the pages.
PICTURES ?=

# The engines of a run: names of docs/engines.md or their beginnings, separated by commas.
ENGINE ?= all

.PHONY: e2e
e2e: test-packages ## Run every container engine (ENGINE=podman,docker-28: these) and write docs/engines.md
	@status=0; CDIGEN_E2E_ENGINE='$(ENGINE)' $(GO) test -count=1 -timeout=90m $(TESTFLAGS) -run '^Test(Selection|Engines|CRIOLibrary|Kubernetes|IncusRunsTheHook|Cluster|DevicePlugin|DRA)$$' ./internal/e2e || status=$$?; \
	internal/e2e/table.sh '$(ENGINE)'; \
	exit $$status

.PHONY: e2e-packages
e2e-packages: test-packages ## Install, upgrade and remove the packages on every distribution that is available
	CDIGEN_E2E_PACKAGES=all $(GO) test -count=1 -timeout=90m $(TESTFLAGS) -run 'Package|Probe' ./internal/e2e

.PHONY: e2e-browser
e2e-browser: test-packages ## Look at the page of cdigen report and at the documentation's site in headless Chromium (PICTURES=DIR: keep pictures)
	CDIGEN_E2E_BROWSER=1 CDIGEN_E2E_PICTURES='$(abspath $(PICTURES))' $(GO) test -count=1 -timeout=20m $(TESTFLAGS) -run 'InABrowser$$' ./internal/e2e

.PHONY: demo
demo: build ## Show the GPUs, the device names and the spec of this or a simulated host
	@internal/demo/demo.sh

# What runs on a machine with a GPU needs nothing else there.
GPU_CHECK := build/gpu-check
# Its options, for instance GPU_CHECK_FLAGS=--allow-mig.
GPU_CHECK_FLAGS ?=

.PHONY: gpu-check
gpu-check: gpu-check-files ## Check cdigen on this machine's GPU, or go through it on a simulated host
	tar -C build -czf '$(GPU_CHECK).tar.gz' gpu-check
	@internal/gpucheck/run.sh $(GPU_CHECK_FLAGS)

.PHONY: gpu-check-files
gpu-check-files: build $(RUNC)
	rm -rf '$(GPU_CHECK)'
	install -D -t '$(GPU_CHECK)/bin' $(BINARIES)
	install $(RUNC) '$(GPU_CHECK)/bin/runc'
	CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=false -ldflags '-s -w' -o '$(GPU_CHECK)/bin/gpucheck' ./internal/gpucheck/cmd/gpucheck
	for p in cudacheck nvmlevents; do $(CC) -O2 -o '$(GPU_CHECK)'/bin/$$p internal/gpucheck/programs/$$p.c -ldl; done
	install internal/gpucheck/gpu-check '$(GPU_CHECK)'
	install -m 0644 -D -t '$(GPU_CHECK)/programs' internal/gpucheck/programs/*.py
	install -m 0644 -D -t '$(GPU_CHECK)/licenses/cdigen' LICENSE
	! test -d $(RUNC)-licenses || install -m 0644 -D -t '$(GPU_CHECK)/licenses/runc' $(RUNC)-licenses/*

.PHONY: bench
bench: bench-pairs $(NVIDIA_CDI_HOOK) test-packages ## Measure generations and container starts, against nvidia-ctk
	$(GO) test -run '^$$' -bench . -benchmem ./discover/... ./edits/... ./spec/... ./internal/specwatch ./internal/transform ./internal/ldcache ./internal/hook ./cmd/cdigen-hook
	$(GO) test -run '^$$' -bench . -benchtime 500x ./cmd/cdigen
	NVIDIA_CTK='$(CURDIR)/$(NVIDIA_CTK)' NVIDIA_CDI_HOOK='$(CURDIR)/$(NVIDIA_CDI_HOOK)' $(GO) test -run '^$$' -bench . ./internal/e2e

.PHONY: bench-pairs
bench-pairs: build driver-roots $(NVIDIA_CTK) ## Compare times with nvidia-ctk, for docs/performance.md (as root; two minutes after the build)
	$(GO) run ./internal/bench/cmd/generatebench -runs $(BENCHRUNS) -cdigen bin/cdigen -driver-root '$(DRIVER_ROOTS)/550' \
	  -nvidia-ctk $(NVIDIA_CTK) -nvidia-ctk-version $(NVIDIA_CTK_VERSION)
	$(GO) -C internal/bench/plot run . '$(CURDIR)/docs/performance.json' '$(CURDIR)/docs/performance.svg'

.PHONY: fuzz
fuzz: ## Run every fuzz target for FUZZTIME (10s)
	@GO='$(GO)' internal/fuzz/fuzz.sh $(FUZZTIME)

SCRIPTS = .ci/run $(wildcard internal/*/*.sh packaging/*.sh packaging/scripts/deb.* packaging/scripts/apk.* packaging/enroot/*.sh packaging/lxc/*) internal/gpucheck/gpu-check

# Modules of their own, so that what they import is not in cdigen's go.mod.
# Of internal/e2e/dra that is the part without Kubernetes, whose packages take a minute to compile.
MODULES = internal/bench/plot internal/e2e/cri internal/e2e/deviceplugin internal/e2e/dra internal/site packaging/helm packaging/image

SERVICE_SCRIPTS = packaging/openrc/cdigen.in $(wildcard packaging/runit/*.in packaging/runit/log/*.in) packaging/s6/run.in

.PHONY: lint
lint: $(GOLANGCI_LINT) $(ACTIONLINT) ## Check the format, go vet, golangci-lint, shellcheck, workflows
	@unformatted=$$(gofmt -l $$($(GO) list -f '{{.Dir}}' ./...) $(MODULES)); \
	if [ -n "$$unformatted" ]; then echo "not formatted with gofmt:" $$unformatted >&2; exit 1; fi
	$(GO) vet ./... && $(GO) vet -tags man ./cmd/cdigen && for m in $(MODULES); do $(GO) -C $$m vet .; done
	$(GOLANGCI_LINT) run
	$(GOLANGCI_LINT) run --build-tags man ./cmd/cdigen
	$(ACTIONLINT)
	@if command -v shellcheck >/dev/null; then shellcheck $(SCRIPTS) && shellcheck -s sh $(SERVICE_SCRIPTS); else [ "$${CI:-}" != true ] && echo "no shellcheck: scripts are not checked"; fi

# Where the vulnerability database is (docs/testing.md has another way to it).
VULNDB ?= https://vuln.go.dev

.PHONY: vulncheck
vulncheck: ## Look for known vulnerabilities in what the programs call
	$(GO) run golang.org/x/vuln/cmd/govulncheck@$(GOVULNCHECK_VERSION) -db '$(VULNDB)' ./cmd/...

.PHONY: api
api: $(APIDIFF) ## Compare the public Go packages with those of the last release
	internal/api/compare.sh '$(CURDIR)/$(APIDIFF)'

# What makes a spec of a host, from the public packages down. Their tests count together, since
# what was moved below a package is tested through it.
COVERED = ./discover ./discover/nvmlreport ./discover/simhost ./discover/simhost/fakenvml ./edits ./spec ./watch \
	$(addprefix ./internal/,driverfiles editset findings hosttree nvmlask nvmlprobe ownedits specdiff specdir specfile spectext transform)
comma = ,
space = $(subst ,, )

.PHONY: cover
cover: ## Test coverage of what makes a spec of a host; fails if a package is under COVER_MIN (85) percent
	@mkdir -p build
	@$(GO) test -coverprofile=build/cover.out -coverpkg=$(subst $(space),$(comma),$(strip $(COVERED))) $(COVERED) > build/cover.log || { cat build/cover.log; exit 1; }
	@awk -v min=$(COVER_MIN) ' \
	  NR > 1 { block[$$1] = $$2; if ($$3) run[$$1] = 1 } \
	  END { for (b in block) { p = b; sub(/\/[^\/]*$$/, "", p); all[p] += block[b]; if (b in run) covered[p] += block[b] } \
	    for (p in all) { share = 100 * covered[p] / all[p]; printf "%5.1f%%  %s\n", share, p; if (share < min) low = low " " p } \
	    if (low) { print "coverage below " min "%:" low; exit 1 } }' build/cover.out

.PHONY: golden
golden: ## Rewrite the golden files; review the difference like code
	$(GO) test -count=1 ./spec ./internal/runtimes ./internal/inject -update
	$(GO) -C packaging/helm test -count=1 . -update

.PHONY: docs
docs: ## Write the tables of the documentation from those in the code, and what the commands shown in the documentation print
	$(GO) run ./internal/contentsdoc
	$(GO) test -count=1 -run 'TestDocumentation|TestReadme|TestDoctor.*(Page|Healthy)' ./cmd/cdigen -update
	$(GO) run ./internal/demo/castsvg docs/session.cast docs/session.svg

.PHONY: site
site: ## Render the documentation as a web site in build/site, and check its links
	$(GO) -C internal/site run . '$(CURDIR)' '$(CURDIR)/build/site'

.PHONY: driver-roots
driver-roots: ## Unpack Debian's NVIDIA driver packages (390 to 555) into ~/.cache/cdigen
	@internal/driverroots/unpack.sh

# Where unpack.sh puts them.
DRIVER_ROOTS = $(or $(CDIGEN_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/cdigen)/driver-roots

.PHONY: parity
parity: build driver-roots $(NVIDIA_CTK) ## Compare with nvidia-ctk on real driver packages
	NVIDIA_CTK='$(CURDIR)/$(NVIDIA_CTK)' $(GO) test -count=1 ./internal/nvidiactk
	$(GO) run ./internal/parity -cdigen bin/cdigen -nvidia-ctk $(NVIDIA_CTK) $(addprefix $(DRIVER_ROOTS)/,390 470 535 550 555)

# systemd and udev read /usr/local/lib too.
unitdir      = $(DESTDIR)$(PREFIX)/lib/systemd/system
presetdir    = $(DESTDIR)$(PREFIX)/lib/systemd/system-preset
udevrulesdir = $(DESTDIR)$(PREFIX)/lib/udev/rules.d
mandir       = $(DESTDIR)$(PREFIX)/share/man/man1
# Directories in which bash-completion, zsh and fish look for what packages bring.
bashdir      = $(DESTDIR)$(PREFIX)/share/bash-completion/completions
zshdir       = $(DESTDIR)$(PREFIX)/share/zsh/site-functions
fishdir      = $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d
settingsdir  = $(DESTDIR)$(SYSCONFDIR)/cdigen
# Alerts for Prometheus and a dashboard for Grafana.
sharedir     = $(DESTDIR)$(PREFIX)/share/cdigen
# Of cdigen.service and cdigen-refresh.service, and of cdigen@k8s-device-plugin.service.
SETTINGS := cdigen.env k8s-device-plugin.env
UNITS := cdigen.service cdigen@.service cdigen-refresh.service cdigen-refresh.path cdigen-inject.service cdigen-inject.path

# Under sudo there may be no Go: then what was built before is installed.
.PHONY: install
install: $(if $(shell command -v '$(GO)'),build) install-files ## Install programs, manual, systemd units, udev rules below DESTDIR/PREFIX, settings in DESTDIR/etc

.PHONY: install-files
install-files:
	@test -e $(MANUAL)/cdigen.1 && test -e $(BIN)/cdigen-nvml || { echo "make install: nothing is built: run make first, as a user who has Go" >&2; exit 1; }
	install -d '$(DESTDIR)$(PREFIX)/bin' '$(unitdir)' '$(presetdir)' '$(udevrulesdir)' '$(settingsdir)' \
	  '$(mandir)' '$(bashdir)' '$(zshdir)' '$(fishdir)'
	install -m 0755 $(BINARIES) '$(DESTDIR)$(PREFIX)/bin'
	for unit in $(UNITS); do \
	  sed -e '/^@order@$$/{r packaging/systemd/order.conf' -e 'd}' -e '/^@hardening@$$/{r packaging/systemd/hardening.conf' -e 'd}' \
	    -e 's|@bindir@|$(PREFIX)/bin|; s|@sysconfdir@|$(SYSCONFDIR)|' packaging/systemd/$$unit.in >'$(unitdir)'/$$unit; \
	  chmod 0644 '$(unitdir)'/$$unit; \
	done
	install -m 0644 packaging/systemd/90-cdigen.preset '$(presetdir)'
	install -m 0644 packaging/udev/71-cdigen.rules '$(udevrulesdir)'
	install -m 0644 -D -t '$(sharedir)/prometheus' packaging/prometheus/cdigen.rules.yml
	install -m 0644 -D -t '$(sharedir)/grafana' packaging/grafana/*.json
	install -m 0755 -D -t '$(sharedir)/enroot' packaging/enroot/98-cdigen.sh
	install -m 0755 -D -t '$(sharedir)/lxc' packaging/lxc/nvidia
	sed -i 's|:/usr/local/bin:/usr/bin|:$(PREFIX)/bin|' '$(sharedir)/enroot/98-cdigen.sh' '$(sharedir)/lxc/nvidia'
	install -m 0644 $(MANUAL)/*.1 packaging/man/*.1 '$(mandir)'
	install -m 0644 $(MANUAL)/cdigen.bash '$(bashdir)/cdigen'
	install -m 0644 $(MANUAL)/_cdigen '$(zshdir)'
	install -m 0644 $(MANUAL)/cdigen.fish '$(fishdir)'
	@# Settings that somebody has changed stay.
	for file in $(SETTINGS); do \
	  test -e '$(settingsdir)'/$$file || install -m 0644 packaging/$$file '$(settingsdir)'; \
	done

# The service files of the other init systems: source, place below SYSCONFDIR.
openrc = openrc/cdigen:init.d/cdigen
runit  = runit/run:sv/cdigen/run runit/check:sv/cdigen/check runit/log/run:sv/cdigen/log/run
s6     = s6/run:s6/sv/cdigen/run runit/check:s6/sv/cdigen/data/check s6/notification-fd:s6/sv/cdigen/notification-fd

.PHONY: install-service
install-service: ## Install the service for INIT=openrc, runit or s6, beside what install installs
	@test -n '$(filter openrc runit s6,$(INIT))' || { echo 'make install-service: use INIT=openrc, INIT=runit or INIT=s6' >&2; exit 1; }
	for pair in $($(INIT)); do \
	  to='$(DESTDIR)$(SYSCONFDIR)'/$${pair#*:}; \
	  install -m 0755 -D packaging/$${pair%:*}.in "$$to"; \
	  sed -i -e 's|@bindir@|$(PREFIX)/bin|; s|@sysconfdir@|$(SYSCONFDIR)|' "$$to"; \
	done

.PHONY: uninstall
uninstall: ## Remove what install put there, but for settings that were changed
	rm -f $(foreach b,$(notdir $(BINARIES)),'$(DESTDIR)$(PREFIX)/bin/$(b)') $(foreach u,$(UNITS),'$(unitdir)/$(u)') \
	  '$(presetdir)/90-cdigen.preset' '$(udevrulesdir)/71-cdigen.rules' \
	  '$(mandir)'/cdigen.1 '$(mandir)'/cdigen-*.1 '$(bashdir)/cdigen' '$(zshdir)/_cdigen' '$(fishdir)/cdigen.fish'
	rm -rf '$(sharedir)' '$(DESTDIR)$(SYSCONFDIR)'/{init.d,sv,s6/sv}/cdigen
	for file in $(SETTINGS); do \
	  if cmp -s packaging/$$file '$(settingsdir)'/$$file; then rm '$(settingsdir)'/$$file; fi; \
	done
	! test -d '$(settingsdir)' || rmdir --ignore-fail-on-non-empty '$(settingsdir)'

# What make packages makes, and where.
PACKAGES ?= build/packages
ARCHS ?= amd64 arm64
FORMATS ?= deb rpm archlinux apk tar oci chart
# The name of the image in a registry.
IMAGE ?= ghcr.io/cdigen/cdigen

.PHONY: packages
packages: $(NFPM) $(CYCLONEDX) ## Make packages (deb, rpm, apk, Arch), tarballs, image, Helm chart, SBOMs and checksums in build/packages
	@export VERSION='$(VERSION)' SOURCE_DATE_EPOCH='$(SOURCE_DATE_EPOCH)' PACKAGES='$(PACKAGES)' ARCHS='$(ARCHS)' FORMATS='$(FORMATS)' \
	  NFPM='$(NFPM)' CYCLONEDX='$(CYCLONEDX)' IMAGE='$(IMAGE)'; packaging/packages.sh

.PHONY: image
image: ## Make the container image and the Helm chart in build/image, without a daemon
	@$(MAKE) --no-print-directory packages FORMATS='oci chart' PACKAGES=build/image

REPOSITORY ?= build/repository
# A name or fingerprint that gpg knows.
SIGN_KEY ?=

.PHONY: repository
repository: ## Make signed repositories (apt, dnf) of the packages in build/repository; SIGN_KEY=…
	@PACKAGES='$(PACKAGES)' REPOSITORY='$(REPOSITORY)' SIGN_KEY='$(SIGN_KEY)' packaging/repository.sh

.PHONY: release
release: ## Publish the packages, and the repository if there is one, as a release of VERSION with GitHub's gh, the image with skopeo
	@! test -d '$(REPOSITORY)' || tar -C '$(REPOSITORY)/..' -czf '$(PACKAGES)/cdigen-repository.tar.gz' '$(notdir $(REPOSITORY))'
	awk -v version='$(VERSION:v%=%)' '/^## / { shown = index($$2, version) == 2 } shown && !/^## /' CHANGELOG.md >build/release-notes
	@grep -q . build/release-notes || { echo 'make release: CHANGELOG.md has no section for $(VERSION:v%=%)' >&2; exit 1; }
	gh release create '$(VERSION)' --verify-tag --notes-file build/release-notes '$(PACKAGES)'/*
	skopeo copy --all oci-archive:"$$(echo '$(PACKAGES)'/*-oci.tar)" 'docker://$(IMAGE):$(VERSION)'

.PHONY: check
check: ## Do everything that CI does
	.ci/run

.PHONY: clean
clean: ## Remove what the other targets made here
	rm -rf bin build

$(GOLANGCI_LINT):
	@mkdir -p $(@D)/tmp
	GOBIN='$(CURDIR)/$(@D)/tmp' $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_LINT_VERSION)
	mv $(@D)/tmp/golangci-lint $@

$(NVIDIA_CTK):
	@mkdir -p $(@D)/tmp
	GOBIN='$(CURDIR)/$(@D)/tmp' $(GO) install github.com/NVIDIA/nvidia-container-toolkit/cmd/nvidia-ctk@$(NVIDIA_CTK_VERSION)
	mv $(@D)/tmp/nvidia-ctk $@

$(NFPM):
	@mkdir -p $(@D)/tmp
	GOBIN='$(CURDIR)/$(@D)/tmp' $(GO) install -trimpath github.com/goreleaser/nfpm/v2/cmd/nfpm@$(NFPM_VERSION)
	mv $(@D)/tmp/nfpm $@

$(APIDIFF):
	@mkdir -p $(@D)/tmp
	GOBIN='$(CURDIR)/$(@D)/tmp' $(GO) install golang.org/x/exp/cmd/apidiff@$(APIDIFF_VERSION)
	mv $(@D)/tmp/apidiff $@

$(ACTIONLINT):
	@mkdir -p $(@D)/tmp
	GOBIN='$(CURDIR)/$(@D)/tmp' $(GO) install github.com/rhysd/actionlint/cmd/actionlint@$(ACTIONLINT_VERSION)
	mv $(@D)/tmp/actionlint $@

# Its hash is in the SBOMs: it must be the same everywhere.
$(CYCLONEDX):
	@mkdir -p $(@D)/tmp
	GOBIN='$(CURDIR)/$(@D)/tmp' CGO_ENABLED=0 $(GO) install -trimpath github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod@$(CYCLONEDX_VERSION)
	mv $(@D)/tmp/cyclonedx-gomod $@

# Static, for machines of any distribution; without libseccomp, which would have to be
# linked too.
$(RUNC):
	@mkdir -p $(@D)/tmp
	GOBIN='$(CURDIR)/$(@D)/tmp' CGO_ENABLED=1 $(GO) install -trimpath -tags 'netgo osusergo' -ldflags '-s -w -extldflags -static' \
	  github.com/opencontainers/runc@$(RUNC_VERSION)
	install -m 0644 -D -t $@-licenses "$$($(GO) list -m -f '{{.Dir}}' github.com/opencontainers/runc@$(RUNC_VERSION))"/{LICENSE,NOTICE}
	mv $(@D)/tmp/runc $@

# Of the same version; its specs name it by this file name.
$(NVIDIA_CDI_HOOK):
	@mkdir -p $(@D)/tmp
	GOBIN='$(CURDIR)/$(@D)/tmp' $(GO) install github.com/NVIDIA/nvidia-container-toolkit/cmd/nvidia-cdi-hook@$(NVIDIA_CTK_VERSION)
	mv $(@D)/tmp/nvidia-cdi-hook $@
