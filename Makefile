# Everything a person or a CI machine does with this tree. `make help` lists it.

VENV ?= .venv
BIN := $(VENV)/bin
BYTECODE := $(BIN)/python -m compileall -q -j 0 -x '/tests?/'
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input --quiet
MODEL ?= examples/digits
ARGS ?=
JOBS ?= auto

# The first interpreter that works, is new enough and can make virtual environments (Debian packages that apart).
USABLE := import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(firstword $(foreach p,python3.13 python3.12 python3.11 python3 python,\
            $(shell $(p) -c '$(USABLE)' 2>/dev/null && echo $(p))))

PYTEST := $(BIN)/pytest -n $(JOBS) --maxprocesses 4 --dist loadfile --no-loadscope-reorder
# What has to be covered to the last branch, by its own tests.
COVERED_TESTS := tests/policy tests/wire

COMPILED := $(CURDIR)/build/compiled
BUILT_FROM := pyproject.toml setup.py $(shell find src -name '*.py')
# Those of what is compiled (setup.py says what that is), each module at least once: over pipes and sockets of their own,
# and a few on whole platforms. The rest is as it is in `make test`.
INTERPRETED := $(addprefix tests/gateway/test_,$(addsuffix .py,accept imports job_runner once processes shared_cache))
COMPILED_TESTS := $(filter-out $(INTERPRETED),$(wildcard tests/gateway/test_*.py)) tests/wire \
    tests/cli/test_loadgen.py tests/runner/test_loop.py tests/telemetry/test_metrics.py \
    $(addprefix tests/policy/test_,$(addsuffix .py,access admission batching breaker brownout cache_worth constraints \
    fairness fallback hedge latency rate_limit retry)) \
    $(addprefix tests/e2e/test_,$(addsuffix .py,grpc_transport hostile http_routes tritonclient))
INSTALLED := $(if $(wildcard $(VENV)/.dev),$(VENV)/.dev,$(VENV)/.core)

.DEFAULT_GOAL := help
.PHONY: help serve install dev test test-covered compiled test-compiled lint format coverage test-all-pythons docs bench lock clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 26

serve: $(INSTALLED) ## install what serving needs and serve the example model (ARGS="--port 9000", MODEL=path)
	@exec $(BIN)/hyperion serve $(MODEL) $(ARGS)

install: $(INSTALLED) ## install what serving needs into .venv

dev: $(VENV)/.dev ## install everything for development into .venv

test: $(VENV)/.dev ## run the whole test suite (ARGS="tests/wire -k frame" narrows it)
	$(PYTEST) $(ARGS)

test-covered: $(VENV)/.dev ## the tests of policies and codecs, which have to cover all of these
	$(BIN)/coverage erase
	$(PYTEST) --cov --cov-report= $(COVERED_TESTS)
	$(BIN)/coverage report --fail-under=100 --include='src/hyperion/policy/*,src/hyperion/wire/*'

compiled: $(COMPILED)/.built ## build the compiled form into build/compiled

test-compiled: $(VENV)/.dev $(COMPILED)/.built ## run the tests of the hot path on its compiled form
	PYTHONPATH=$(COMPILED) HYPERION_EXPECT_COMPILED=1 $(PYTEST) $(or $(ARGS),$(COMPILED_TESTS))

lint: $(VENV)/.dev ## style, types and the import contract
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy src
	$(BIN)/lint-imports --no-logo

format: $(VENV)/.dev ## put the code into the house's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

coverage: $(VENV)/.dev ## run the whole suite with every process traced, and check what it covers (half as long again)
	$(BIN)/coverage erase
	$(PYTEST) --cov --cov-report=
	$(BIN)/coverage report --fail-under=90 --skip-covered
	$(BIN)/coverage report --fail-under=100 --include='src/hyperion/policy/*,src/hyperion/wire/*'

test-all-pythons: ## run the suite on each Python from 3.11 to 3.13 that is found
	@bash tests/all_pythons.sh

docs: $(VENV)/.dev ## regenerate the reference pages from the code
	$(BIN)/python docs/generate_reference.py

bench: $(COMPILED)/.built ## run the benchmarks beside the peers (ARGS="run --quick --workload small"; installs what they need)
	PYTHONPATH=$(COMPILED) $(BIN)/python -m bench $(or $(ARGS),--help)

lock: ## resolve requirements/*.txt again (needs uv)
	bash requirements/lock.sh

clean: ## remove what these targets made
	rm -rf $(VENV) .venv-py* .hyperion .coverage* htmlcov build dist *.egg-info src/*.egg-info
	rm -rf .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find src tests examples bench docs -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	$(if $(PYTHON),,$(error Hyperion needs Python 3.11 or newer with venv; on Debian and Ubuntu: apt-get install python3-venv))
	$(PYTHON) -m venv $(VENV)

$(VENV)/.needs: requirements/core.txt | $(BIN)/python
	@echo "Installing what Hyperion needs into $(VENV) (about a minute, once)"
	@$(PIP) install --no-compile --require-hashes -r requirements/core.txt
	@$(BYTECODE) $(VENV)/lib || true # twice as fast as pip's; failing costs only the first start
	@touch $@

# The package as users get it, with its hot path compiled where there is a C compiler.
$(VENV)/.core: $(VENV)/.needs $(BUILT_FROM)
	@echo "Building Hyperion (up to a minute with a C compiler, once)"
	@$(PIP) install --no-deps --no-build-isolation --force-reinstall .
	@touch $@

# The source tree itself, interpreted: what is edited is what runs.
$(VENV)/.dev: requirements/dev.txt $(VENV)/.needs pyproject.toml
	@echo "Installing the development tools and every model format into $(VENV) (a few minutes, once)"
	@$(PIP) install --no-compile --require-hashes -r requirements/dev.txt
	@$(PIP) install --no-deps --no-build-isolation -e .
	@$(BYTECODE) $(VENV)/lib src || true
	@touch $@

# The package as users get it, beside the source tree of a developer.
$(COMPILED)/.built: $(VENV)/.needs $(BUILT_FROM)
	@echo "Building Hyperion into $(COMPILED)"
	@rm -rf $(COMPILED)
	@HYPERION_COMPILE=1 $(PIP) install --no-deps --no-build-isolation --target $(COMPILED) .
	@touch $@
