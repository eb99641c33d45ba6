# Each target sets up what it needs in .venv; CI runs these same commands.
PYTHON ?= python3.11
BIN := .venv/bin
VERSION := $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' deerfield/__init__.py)
BASE ?= $(shell sed -n 's/^ARG BASE=//p' pipelines/Dockerfile)
TORCH ?= cpu
IMAGES := aggregator client pipelines tracking
$(foreach each,$(IMAGES),$(eval TAG_$(each) := $(REGISTRY:%=%/)deerfield-$(each):$(VERSION)))
TAG_client := $(TAG_client)$(if $(filter-out cpu,$(TORCH)),-$(TORCH))
OPTIONS_client := --build-arg TORCH=$(TORCH)
PROTO := protos/deerfield/wire/federation.proto
.DEFAULT_GOAL := help
.PHONY: help quickstart browser podman images $(IMAGES:%=image-%) test check e2e stores chaos format proto benchmarks

help:
	@echo "make quickstart   three hospitals train together on this machine, about a minute after installation"
	@echo "make test         unit, contract, integration and golden tests (10 minutes on 2 cores at most)"
	@echo "make check        format, lint, types, imports, protocol and documentation drift"
	@echo "make e2e          the tests on real data and whole federations; says what it cannot run here"
	@echo "make images       the images of a cluster, by podman; on another BASE=, with more IMAGE_FLAGS= (docs/images.md)"
	@echo "make stores       the aggregator's tests over every combination of database and blob store"
	@echo "make chaos        kills aggregator and sites at every point, cuts links and stores off; prints a table (an hour at most)"
	@echo "make benchmarks   prints the tables of docs/benchmarks.md (hours)"

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt \
		--editable '.[aggregator,client,pipelines,tracking,examples,dev]'
	@touch $@

quickstart: .venv/.installed
	$(BIN)/deerfield run examples/quickstart.yaml

# For the tests that look at pages: Debian's Chromium, where it is missing and may be installed. Without a browser they
# are skipped, and say what to install; nothing here fails a build.
browser:
	@for each in chromium chromium-browser google-chrome; do command -v $$each > /dev/null && exit 0; done; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null; then \
		echo "installing chromium, for the tests that look at pages"; \
		{ timeout 120 apt-get update -qq && timeout 300 apt-get install -y -qq --no-install-recommends chromium; } \
			> /dev/null 2>&1 || echo "chromium could not be installed; tests that need a browser are skipped"; \
	fi; exit 0

# For the tests that run containers: Debian's podman, with what it takes to make an image where no registry can be reached.
podman:
	@for each in podman runc mmdebstrap; do command -v $$each > /dev/null || missing="$$missing $$each"; done; \
	if [ -n "$$missing" ] && [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null; then \
		echo "installing$$missing, for the tests that run containers"; \
		{ timeout 120 apt-get update -qq && timeout 300 apt-get install -y -qq --no-install-recommends podman runc \
			netavark aardvark-dns catatonit mmdebstrap iptables nftables; } \
			> /dev/null 2>&1 || echo "podman could not be installed; tests that run containers are skipped"; \
	fi; exit 0

images: $(IMAGES:%=image-%)
	@printf '%-32s %9s %14s\n' image size 'over the base'; base=$$(podman image inspect --format '{{.Size}}' $(BASE)); \
	for each in $(foreach each,$(IMAGES),$(TAG_$(each))); do size=$$(podman image inspect --format '{{.Size}}' $$each); \
		printf '%-32s %6d MB %11d MB\n' $$each $$((size / 1000000)) $$(((size - base) / 1000000)); \
	done

# Docker's form of an image, since the other one has no place for a health command
$(IMAGES:%=image-%): image-%:
	podman build --format docker --file $(firstword $(wildcard services/$*/Dockerfile) pipelines/Dockerfile) \
		--tag $(TAG_$*) --build-arg BASE=$(BASE) --build-arg VERSION=$(VERSION) \
		--build-arg REVISION=$(shell git rev-parse --verify --quiet HEAD) $(OPTIONS_$*) $(IMAGE_FLAGS) .

test: .venv/.installed browser
	$(BIN)/python -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder -m "not e2e" \
		tests/unit tests/contract tests/integration tests/golden tests/chaos/test_short.py

stores: .venv/.installed
	DEERFIELD_STORES=all $(BIN)/python -m pytest --numprocesses 2 --dist loadfile tests/contract/test_blobs.py \
		tests/integration/aggregator

check: .venv/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/buf lint protos
	$(BIN)/python -m pytest -q tests/golden/test_drift.py

e2e: .venv/.installed podman
	$(BIN)/python -m pytest tests/e2e
	$(BIN)/python -m pytest -m e2e tests/integration

chaos: .venv/.installed
	$(BIN)/python -m pytest tests/chaos

format: .venv/.installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

proto: .venv/.installed
	$(BIN)/python -m grpc_tools.protoc -Iprotos --python_out=. --pyi_out=. --grpc_python_out=. $(PROTO)

benchmarks: .venv/.installed
	$(BIN)/python -m benchmarks.dp_step
	$(BIN)/python -m benchmarks.ingest
	$(BIN)/python -m benchmarks.real_data brain-mri
	$(BIN)/python -m benchmarks.real_data medquad
