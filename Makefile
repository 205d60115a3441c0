# Needs make, a shell, and Python 3.9 or newer with its venv module. Everything lands in .venv;
# .venv-plugin is build.sh's and DevLake's, and none of this touches it.

PYTHON ?= python3
BIN := .venv/bin
PIP := scripts/pip_install.sh $(BIN)/python --constraint constraints.txt
SHELL_SCRIPTS := $(wildcard run.sh build.sh sdk/*.sh scripts/*.sh .ci/run)

# Compiled modules are kept (`make clean` removes them): tests start programs a thousand times.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help install run demo test test-quick test-cluster pictures soak check collector bench conformance reference constraints clean

help: ## say what there is
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile

install: .venv/installed ## make the virtual environment .venv (PYTHON=... for another Python)

run: install ## serve, on SQLite unless DB_URL says otherwise
	@$(BIN)/developer-telemetry serve

demo: export DB_URL :=
demo: export TELEMETRY_DATA_DIR := data/demo
demo: install ## serve a made-up fleet, made anew each time, on SQLite in data/demo
	@rm -rf data/demo
	@$(BIN)/developer-telemetry demo
	@$(BIN)/developer-telemetry serve

test: .venv/installed-dev ## run every test; as root on Debian, install MariaDB, PostgreSQL, nginx
	@scripts/install_servers.sh
	$(BIN)/python -m pytest $(if $(TESTS),$(TESTS),--numprocesses 4 --dist loadfile --no-loadscope-reorder)

test-quick: export TEST_QUICK := 1
test-quick: .venv/installed-dev ## run the tests that need no server, in less than a minute
	$(BIN)/python -m pytest --numprocesses 2 -m "not server and not slow and not cluster" $(TESTS)

test-cluster: .venv/installed-dev ## kill receivers and databases, promote standbys, for minutes
	@scripts/install_servers.sh
	$(BIN)/python -m pytest tests/cluster -m "" -s

pictures: .venv/installed-dev ## take the pictures of the page in docs/pictures anew
	@scripts/install_servers.sh
	TELEMETRY_PICTURES=docs/pictures $(BIN)/python -m pytest tests/receiver/web/test_browser.py -k pictures_for

soak: .venv/installed-dev ## break receiver and databases for minutes (SOAK="--memory 1000000")
	@scripts/install_servers.sh
	$(BIN)/python -m tests.soak.soak $(SOAK)
	$(BIN)/python -m tests.soak.endurance $(ENDURANCE)

check: .venv/installed-dev ## lint, types, what deploy/ has, and that it all works on Python 3.9
	@scripts/install_servers.sh check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python scripts/check_names.py
	$(BIN)/mypy collector developer_telemetry tests benchmarks conformance dashboards scripts conftest.py
	cd sdk && ../$(BIN)/mypy --config-file ../pyproject.toml pydevlake tests
	@if [ -x $(BIN)/lint-imports ]; then $(BIN)/lint-imports --no-cache; \
	else echo "NOT CHECKED: imports between rooms (import-linter wants Python 3.11)" >&2; [ "$$CI" != true ]; fi
	$(BIN)/vermin --quiet --no-tips --target=3.9- --violations developer_telemetry sdk scripts tests benchmarks conformance dashboards
	$(BIN)/vermin --quiet --no-tips --target=3.8- --violations collector
	$(BIN)/python scripts/pip_as.py 3.9.2 --quiet --no-build-isolation ./sdk .
	@if command -v shellcheck >/dev/null; then shellcheck $(SHELL_SCRIPTS); \
	else echo "NOT CHECKED: shell scripts (there is no shellcheck)" >&2; [ "$$CI" != true ]; fi
	@scripts/check_deploy.sh

collector: ## build the collector for developers' machines, the same bytes from the same sources
	@$(PYTHON) developer_telemetry/receiver/collector_archive.py dist/developer-telemetry-collector.pyz
	@ls -l dist/developer-telemetry-collector.pyz

bench: .venv/installed-dev ## measure receiver, runs, dashboards, page, conversions and collector; renews docs/benchmarks.md
	@scripts/install_servers.sh
	$(BIN)/python -m benchmarks.receiver
	$(BIN)/python -m benchmarks.runs
	$(BIN)/python -m benchmarks.panels
	$(BIN)/python -m benchmarks.page_views
	$(BIN)/python -m benchmarks.conversions
	$(BIN)/python -m benchmarks.collector

conformance: .venv/installed-dev ## try it with DevLake itself (DEVLAKE="checkouts" LAKE="servers")
	@scripts/install_servers.sh
	@$(BIN)/python -m conformance --devlake "$(DEVLAKE)" --lake "$(LAKE)" --go-plugins "$(GO_PLUGINS)" --mysql "$(MYSQL)"

reference: .venv/installed-dev ## write docs/settings.md and docs/commands.md from the code
	$(BIN)/python scripts/reference.py

constraints: .venv/installed-dev ## renew constraints.txt with today's versions
	$(BIN)/python scripts/constraints.py

clean: ## remove what make install, test and check made
	rm -rf .venv .pytest_cache .mypy_cache sdk/.mypy_cache .ruff_cache .hypothesis
	find . -name .venv-plugin -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

# The build tool goes into .venv itself and so a second run needs no network.
.venv/installed: pyproject.toml sdk/pyproject.toml constraints.txt
	@scripts/make_venv.sh "$(PYTHON)"
	$(PIP) pip hatchling editables
	$(PIP) --no-build-isolation --editable ./sdk
	$(PIP) --no-build-isolation --editable '.[receiver]'
	@touch $@

.venv/installed-dev: .venv/installed
	$(PIP) --no-build-isolation --editable '.[receiver,dev]'
	@touch $@
