# make demo   install what is needed into .venv, learn prompts in minutes, show what they gained
# make test   the same environment plus test tools: lint, format, the whole suite
#
# make nano   repeat the pre-training of seem-nano (over an hour); see configs/seem/
#
# PYTHON=python3.12   the interpreter to build .venv with (3.10 or later; default python3)
# TORCH="..."         another torch, as pip arguments, remembered until `make clean`. The build without
#                     CUDA is a tenth of the download:
#   make demo TORCH="torch==2.12.1+cpu torchvision==0.27.1+cpu --index-url https://download.pytorch.org/whl/cpu"
# PYTEST_ARGS="..."   more arguments for pytest, for example PYTEST_ARGS="-x tests/test_registry.py"

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
PINS := requirements/constraints.txt
# The pins again, but with the torch that was really installed.
LOCK := $(VENV)/constraints.txt
CHOICE := $(VENV)/torch-choice

ifeq ($(origin TORCH),undefined)
TORCH := $(shell cat $(CHOICE) 2>/dev/null || echo default)
endif
ifeq ($(TORCH),default)
TORCH_ARGS := torch torchvision -c $(PINS)
else
TORCH_ARGS := $(TORCH)
endif

# A stamp is touched after the last step of its rule, so an interrupted installation is taken up again.
VENV_DONE := $(VENV)/.venv-done
RUNTIME_DONE := $(VENV)/.runtime-done
TESTS_DONE := $(VENV)/.tests-done

# What every run sees: this folder (even after it was moved), no user site, output as it comes.
export PYTHONPATH := $(CURDIR)
export PYTHONNOUSERSITE := 1
export PYTHONUNBUFFERED := 1
# Threads that spin while they wait take the time of whatever else runs, data workers included.
export OMP_WAIT_POLICY := PASSIVE

.PHONY: help demo test nano install clean FORCE
.DELETE_ON_ERROR:

help:
	@sed -n '/^$$/q;s/^# \{0,1\}//p' Makefile

demo: $(RUNTIME_DONE)
	$(BIN)/python tools/demo.py

# Both trainings resume where they were stopped.
STREETS := $(BIN)/python tools/make_streets.py --out data/streets/clear --condition clear --seed 0
nano: $(RUNTIME_DONE)
	$(STREETS) --split train --num 3000
	$(STREETS) --split val --num 100
	$(BIN)/python tools/train.py configs/seem/seem-nano_streets-clear.py --resume
	$(BIN)/python tools/train.py configs/seem/seem-nano_streets-clear_full.py --resume

install: $(RUNTIME_DONE)

test: $(TESTS_DONE)
	@echo '== lint'
	$(BIN)/ruff check .
	@echo '== format'
	$(BIN)/ruff format --check .
	@echo '== tests'
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q $(PYTEST_ARGS)
	@echo '== make test: lint, format and tests passed'

clean:
	rm -rf $(VENV) build dist *.egg-info

$(VENV_DONE):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	  echo 'error: mmprompt needs Python 3.10 or later, and $(PYTHON) is' \
	    "$$($(PYTHON) --version 2>&1)." 'Name a newer one: make PYTHON=python3.12' >&2; exit 2; }
	@echo '== [1/4] virtual environment $(VENV)'
	@$(PYTHON) -m venv --clear $(VENV) || { \
	  echo 'error: $(PYTHON) has no working venv module. On Debian and Ubuntu:' \
	    'sudo apt install python3-venv' >&2; exit 2; }
	$(PIP) install -q -c $(PINS) pip setuptools wheel
	@touch $@

# Rewritten only when the choice changes: then torch and all that follows are installed again.
$(CHOICE): $(VENV_DONE) FORCE
	@echo '$(TORCH)' | cmp -s - $@ || echo '$(TORCH)' > $@

$(RUNTIME_DONE): $(CHOICE) $(PINS) requirements/runtime.txt requirements/onedl.txt setup.py
	@echo '== [2/4] PyTorch: $(TORCH_ARGS)'
	@echo '   (with CUDA about 3 GB; "make help" names a smaller build)'
	$(PIP) install -c $(PINS) numpy pillow
	$(PIP) install $(TORCH_ARGS)
	@{ grep -vE '^torch(vision)?==' $(PINS); \
	   $(PIP) freeze | grep -E '^torch(vision)?==' || true; } > $(LOCK)
	@echo '== [3/4] OpenMMLab libraries without compiled operators, and what mmprompt imports'
# pip builds mmcv in an environment without torch, so it has no operators and needs no compiler. From
# pip's cache it might come with operators that were compiled against another torch.
	MMCV_WITH_OPS=0 $(PIP) install --no-cache-dir -c $(LOCK) onedl-mmcv
	$(PIP) install -c $(LOCK) -r requirements/runtime.txt -r requirements/onedl.txt
# Both OpenCV builds get pulled and share one folder. The last one wins: the one without libGL.
	$(PIP) install -q --force-reinstall --no-deps -c $(LOCK) opencv-python-headless
	PYTHONWARNINGS=ignore $(PIP) install -q --no-deps --no-build-isolation -e .
	@echo '== [4/4] what the doctor says'
	$(BIN)/python mmprompt_doctor.py
	@touch $@

$(TESTS_DONE): $(RUNTIME_DONE) requirements/tests.txt
	$(PIP) install -c $(LOCK) -r requirements/tests.txt
	@touch $@
