# Portcullis: `make help` lists the targets.
SHELL := /bin/sh
BIN := .venv/bin

# Debian packages beyond Python: what the tests and the demo drive for real.
TEST_PACKAGES := chromium mariadb-server mariadb-backup haproxy tshark ffmpeg shellcheck
TEST_PACKAGES += prometheus prometheus-alertmanager softhsm2 opensc age faketime
TEST_PACKAGES += gcc libc6-dev wrk curl jq socat
TEST_PACKAGES += systemd prometheus-node-exporter prometheus-mysqld-exporter prometheus-blackbox-exporter
DEMO_PACKAGES := ffmpeg
IMAGE_PACKAGES := buildah debootstrap
BENCH_PACKAGES := mariadb-server openssl wrk gcc libc6-dev softhsm2

.DEFAULT_GOAL := help

.PHONY: help
help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | column -t -s '|'

.PHONY: setup
setup: ## Virtual environment and everything the tests drive
	@tools/setup.sh $(TEST_PACKAGES)
	@tools/setup_node.sh

.PHONY: test
test: setup ## Everything CI checks: lint, types, contracts, all tests
	@$(MAKE) --no-print-directory lint
	@$(MAKE) --no-print-directory audit
	$(BIN)/pytest

.PHONY: test-fast
test-fast: setup ## Unit and property tests only (under a minute)
	$(BIN)/pytest tests/unit

# Those that need both cores, or hold a time that another beside them would spoil.
PROOFS_ALONE := $(addprefix tests/faults/test_,rotation.py parts_away.py pairs.py)

.PHONY: test-faults
test-faults: setup ## The proofs of docs/reliability.md in full, and its table of figures: an hour
	FAULTS=full $(BIN)/pytest -n 0 $(PROOFS_ALONE)
	FAULTS=full $(BIN)/pytest tests/faults $(PROOFS_ALONE:%=--ignore %)
	$(BIN)/python -m tests.faults.figures

.PHONY: test-monitoring
test-monitoring: setup ## A head-end broken for real, until the right alert comes and goes: minutes
	$(BIN)/pytest -n 0 -m monitoring tests/system/test_monitoring.py

.PHONY: test-image
test-image: image ## The image held against the project, and run with a read-only root
	$(BIN)/pytest -n 0 -m image tests/delivery/test_image.py

.PHONY: test-integration
test-integration: setup ## Services against real databases and peers; the manifests and the pipeline
	$(BIN)/pytest tests/integration tests/delivery

.PHONY: test-system
test-system: setup ## The whole head-end with 200 boxes, watched, broken and mended: a quarter of an hour
	$(BIN)/pytest -n 0 -m system tests/system

.PHONY: test-services
test-services: setup ## Services together, the short forms of the proofs, the benchmarks' own checks
	$(BIN)/pytest tests/system tests/faults tests/bench

.PHONY: checkov
checkov: setup ## Manifests, Containerfile and workflows by checkov, in a tool environment of its own
	@tools/checkov.sh

.PHONY: deploy undeploy deploy-finish smoke
deploy: setup ## Roll out IMAGE by OVERLAY (docs/operations/delivery.md)
	@PATH="$$PWD/$(BIN):$$PATH" tools/deploy.sh roll-out "$$OVERLAY" "$$IMAGE"
undeploy: setup ## Back to the release before
	@PATH="$$PWD/$(BIN):$$PATH" tools/rollout.sh undo
deploy-finish: setup ## The last step of a roll-out: no way back after it
	@PATH="$$PWD/$(BIN):$$PATH" tools/deploy.sh finish "$$OVERLAY" "$$IMAGE"
smoke: setup ## The ledger check against a head-end that runs: CLIENT, BOXES, STREAM
	@$(BIN)/python -m demo.against --client "$$CLIENT" --boxes "$$BOXES" --stream "$$STREAM"

.PHONY: image
image: setup ## The container image of the services, and its bill of materials, in var/image
	@tools/setup.sh $(IMAGE_PACKAGES)
	@tools/image.sh build

.PHONY: sbom
sbom: setup ## The CycloneDX bill of materials of the locked packages: var/sbom.cdx.json
	@mkdir -p var && $(BIN)/python tools/sbom.py > var/sbom.cdx.json

.PHONY: lint
lint: setup ## ruff, mypy, import contracts, dependencies, spelling
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/deptry .
	$(BIN)/codespell

.PHONY: audit
audit: setup ## bandit, a scan for secrets, known vulnerabilities of packages
	$(BIN)/bandit --quiet --recursive --configfile pyproject.toml src
	$(BIN)/python tools/secret_scan.py
	tools/audit_packages.sh

.PHONY: format
format: setup ## Rewrite the code as the formatter has it
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.PHONY: demo
demo: ## A day of orders from REST to virtual boxes, checked
	@tools/setup.sh $(DEMO_PACKAGES)
	@$(BIN)/python -m demo

.PHONY: bench
bench: ## Measure everything beside its limit; writes docs/benchmarks.md (most of an hour)
	@tools/setup.sh $(BENCH_PACKAGES)
	@tools/setup_bench.sh
	@$(BIN)/python -m bench

bench-%: ## One benchmark, e.g. bench-envelope; writes var/bench/NAME.json
	@tools/setup.sh $(BENCH_PACKAGES)
	@tools/setup_bench.sh
	@$(BIN)/python -m bench $*

.PHONY: lock
lock: setup ## Pin the newest allowed versions into requirements/
	$(BIN)/uv pip compile pyproject.toml --universal --python-version 3.11 --upgrade \
	    --generate-hashes --no-emit-index-url --no-header --no-annotate -o requirements/runtime.txt
	$(BIN)/uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --upgrade \
	    --generate-hashes --no-emit-index-url --no-header --no-annotate -o requirements/dev.txt
	echo hatchling | $(BIN)/uv pip compile - --constraints requirements/dev.txt \
	    --universal --python-version 3.11 --upgrade \
	    --generate-hashes --no-emit-index-url --no-header --no-annotate -o requirements/build.txt
	echo checkov | $(BIN)/uv pip compile - --universal --python-version 3.11 --upgrade \
	    --generate-hashes --no-emit-index-url --no-header --no-annotate -o requirements/checkov.txt
	$(BIN)/uv pip compile pyproject.toml --extra bench --constraints requirements/dev.txt \
	    --universal --python-version 3.11 --upgrade \
	    --generate-hashes --no-emit-index-url --no-header --no-annotate -o requirements/bench.txt

.PHONY: proto
proto: setup ## Regenerate the gRPC code of the encryptor
	$(BIN)/python -m grpc_tools.protoc -I src --python_out=src --pyi_out=src --grpc_python_out=src \
	    src/portcullis/runtime/rpc/encryptor.proto

.PHONY: docs
docs: setup ## Regenerate the pages that are made from the code
	$(BIN)/python tools/metrics_page.py > docs/metrics.md
	$(BIN)/python deploy/grafana/make.py
	$(BIN)/python tools/operator_rules.py

.PHONY: site
site: setup ## The documentation as a site, in var/site; a page or link that is missing is an error
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going -d var/site-doctrees docs var/site

.PHONY: snapshot
snapshot: setup ## At a release: keep its code for the test that upgrades from it
	$(BIN)/python tools/snapshot.py

.PHONY: clean
clean: ## Remove what the targets made (not .venv)
	rm -rf var dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
