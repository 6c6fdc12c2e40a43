# The one entry. `make help` lists what there is.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
CARGO ?= cargo
export CARGO_TARGET_DIR ?= $(CURDIR)/target
VENV := $(CARGO_TARGET_DIR)/venv
BINARIES := -p apiserver -p allocator -p agent -p lab -p ipam-file
T ?= 60

.PHONY: help demo test interop bench fuzz lint crds chart image docs

help: ## what can be made
	@grep -E '^[a-z]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | expand -t 10

demo: ## three nodes, two routers, a client: the main job, shown and verified (KEEP=1 leaves it up)
	@tests/tools/install.sh rust lab
	$(CARGO) build $(BINARIES)
	@$(CARGO_TARGET_DIR)/debug/lab demo $(if $(filter 1,$(KEEP)),--keep)

test: ## everything: chart, documentation examples, unit, simulation, interop, end to end
	@tests/tools/install.sh rust nextest lab interop
	$(MAKE) --no-print-directory chart
	$(CARGO) build $(BINARIES)
	$(CARGO) test --doc --workspace --quiet
	$(CARGO) nextest run --workspace --no-fail-fast

interop: ## the speaker against the routers of other projects, as a matrix (written to docs/interop.md)
	@tests/tools/install.sh rust nextest lab interop
	INTEROP_WRITE=1 $(CARGO) nextest run -p interop --no-fail-fast --test-threads 4

bench: ## the bars of the specification, measured (ONLY=name runs one)
	@tests/tools/install.sh rust lab bench
	$(CARGO) build --release $(BINARIES) -p bench
	@$(CARGO_TARGET_DIR)/release/bench $(if $(ONLY),--only $(ONLY))

fuzz: ## every decoder fed with hostile bytes (T=seconds in all)
	@tests/tools/install.sh rust
	@fuzz/run.sh $(T)

lint: ## format, clippy, the dependency rule, licences and sources of what is linked
	@tests/tools/install.sh rust nextest
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --quiet -- -D warnings
	$(CARGO) check --quiet -p bgp --no-default-features
	$(CARGO) check --quiet -p heartbeat --no-default-features
	$(CARGO) nextest run -p house

crds: ## write the chart's CRD files from crates/api
	$(CARGO) run --quiet -p api --bin crds -- charts/purelb/crds

chart: ## lint and render the chart with Helm
	@tests/tools/venv.sh $(VENV) helm-python-sdk pyyaml
	@$(VENV)/bin/python charts/check.py charts/purelb

image: ## a container image from static binaries, in target/image
	@tests/tools/install.sh rust image
	@tests/tools/image.sh
