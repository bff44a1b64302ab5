# `make repro` and `make test` set up what they need; nothing but Python 3.11 to 3.13, git and make has to be there.
PYTHON ?= python3
PROFILE ?=
FIGURES ?=
ARGS ?=

BIN := .venv/bin
# Recipes and what they start (DVC starts `python`) find the environment first.
export PATH := $(CURDIR)/$(BIN):$(PATH)
# A foreign environment's variables would win over ours.
unexport PYTHONHOME
unexport VIRTUAL_ENV
# Every stage is a new process: what is compiled once starts in half the time.
export UV_COMPILE_BYTECODE := 1
unexport PYTHONDONTWRITEBYTECODE

UV := $(BIN)/uv
SYNCED := .venv/.core-stamp
SYNCED_DEV := .venv/.dev-stamp
PIP_INSTALL := $(UV) pip install --python $(BIN)/python
COMPILE := $(UV) pip compile --universal --generate-hashes --no-emit-index-url --no-header --python-version 3.11

.PHONY: help repro git test test-all lint format bench ui figures screens docs lock clean

help:
	@echo 'make repro [PROFILE=full|published|tiny]  environment, then the pipeline'
	@echo 'make test | test-all                      fast tests | all tests'
	@echo 'make lint | format                        checks of style, types and layers | formatter'
	@echo 'make bench | ui                          speed | runs in the browser'
	@echo 'make figures | screens | docs            pictures of plots, of the browser, and pages of the docs'
	@echo 'make figures FIGURES=figures             every picture for print: PDF and PNG of 300 dpi'
	@echo 'make lock | clean                         pins anew | caches removed'

repro: git $(SYNCED)
ifeq ($(strip $(PROFILE)),)
	$(BIN)/dvc repro
else
	@changed=$$(git status --porcelain --untracked-files=no) && if [ -n "$$changed" ]; then \
	  echo "PROFILE=$(PROFILE) rewrites params, metrics and plots in place, and these files have changes:"; \
	  echo "$$changed"; echo 'Commit them, or take them back with `git restore .`, then run this again;'; \
  echo 'what an interrupted run had finished, stages and epochs, is kept.'; exit 1; fi
	flags=$$($(BIN)/sonolens params flags '$(PROFILE)') && eval "$(BIN)/dvc exp run $$flags $(ARGS)"
	@echo 'To keep the figures: sonolens record NAME --study STUDY --command "make repro PROFILE=$(PROFILE)"'
	@echo 'To go back:          git restore . && dvc checkout'
endif
	@echo
	@echo 'Done. In a shell with the environment active (. .venv/bin/activate):'
	@echo '  dvc metrics show      figures, also in metrics/'
	@echo '  dvc plots show        curves, also in plots/; pictures in plots/*/pages/'
	@echo '  make ui               runs and parameters in the browser'
	@echo '  docs/                 what the figures mean; README.md names the pages'

# A downloaded archive has no repository; DVC's own message says no more than that.
git:
	@git rev-parse --git-dir >/dev/null 2>&1 || grep -qsi 'no_scm *= *true' .dvc/config .dvc/config.local || { \
	  echo 'Found no git repository in $(CURDIR), which DVC needs. One of the two:'; \
	  echo '  git init && git add -A && git commit -m start                     everything works'; \
	  echo '  (echo "[core]"; echo "no_scm = true") >> .dvc/config.local        make repro works, profiles and experiments do not'; \
	  exit 1; }

test: $(SYNCED_DEV)
	$(BIN)/python -m pytest -m 'not slow and not pipeline' $(ARGS)

test-all: $(SYNCED_DEV)
	$(BIN)/python -m pytest $(ARGS)

lint: $(SYNCED_DEV)
	$(BIN)/pre-commit run --all-files --show-diff-on-failure

format: $(SYNCED_DEV)
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

bench: $(SYNCED_DEV)
	$(BIN)/python bench/run.py $(ARGS)

ui: $(SYNCED)
	$(BIN)/sonolens ui $(ARGS)

figures: $(SYNCED)
	$(BIN)/sonolens figures $(if $(FIGURES),--output-dir '$(FIGURES)') $(ARGS)

screens: $(SYNCED_DEV)
	$(BIN)/python docs/screens.py

docs: $(SYNCED)
	$(BIN)/sonolens docs render

# The lock files name no index, so that every mirror serves; hashes keep it honest.
lock: $(UV)
	$(COMPILE) pyproject.toml --extra tokens --extra vocoder --group build -o requirements.txt $(ARGS)
	$(COMPILE) pyproject.toml --extra tokens --extra vocoder --extra bench --extra cluster --extra s3 \
	  --group build --group dev --constraint requirements.txt -o requirements-dev.txt $(ARGS)
	echo 'uv>=0.9' | $(COMPILE) - -o requirements-uv.txt $(ARGS)
	echo 'quantus==0.6.0 scikit-image>=0.25 lazy-loader>=0.4' | tr ' ' '\n' | $(COMPILE) - --no-deps \
	  --constraint requirements-dev.txt -o requirements-parity.txt $(ARGS)

clean:
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache dist dvc_plots
	find src tests bench -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(None if (3, 11) <= sys.version_info[:2] < (3, 14) else \
	  f"found Python {sys.version.split()[0]}, need 3.11, 3.12 or 3.13; run `make PYTHON=python3.12 ...` with one of them")'
	@$(PYTHON) -m venv .venv || { rm -rf .venv; \
	  echo 'python -m venv failed; on Debian and Ubuntu its package is python3-venv'; exit 1; }

$(UV): requirements-uv.txt | $(BIN)/python
	@[ -x $(UV) ] || echo 'Installing uv into .venv'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-uv.txt
	@touch $(UV)

# The package itself is installed without isolation: its build tool is in the lock.
$(SYNCED): requirements.txt pyproject.toml $(UV)
	@echo 'Installing packages: about 6 GB on disk, a minute or more'
	$(PIP_INSTALL) --require-hashes -r requirements.txt
	$(PIP_INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

# Quantus names opencv-python, which would overwrite the headless build: it comes without what it names.
$(SYNCED_DEV): requirements-dev.txt requirements-parity.txt $(SYNCED)
	$(PIP_INSTALL) --require-hashes -r requirements-dev.txt
	$(PIP_INSTALL) --require-hashes --no-deps -r requirements-parity.txt
	@touch $@
