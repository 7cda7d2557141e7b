# make demo   install what is needed into .venv, learn prompts in minutes, show what they gained
# make test   the same environment plus test tools: lint, format, the whole suite
#
# make test-full      the suite where mmcv's operators are compiled, in .venv-full: MMDetection's detectors
#                     and MMPretrain's backbones too. Wants g++; the compilation (ten minutes on two cores)
#                     is done once: the wheel stays in .wheels, which `make clean` leaves alone
# make test-official  the same beside OpenMMLab's own last releases (mmcv 2.1.0, torch 2.1.2), in
#                     .venv-official; Python 3.10 or 3.11
#
# make nano   repeat the pre-training of seem-nano (over an hour); see configs/seem/
#
# PYTHON=python3.12   the interpreter to build the environment with (3.10 or later; default python3)
# TORCH="..."         another torch, as pip arguments, remembered until `make clean`. The build without
#                     CUDA is a tenth of the download:
#   make demo TORCH="torch==2.12.1+cpu torchvision==0.27.1+cpu --index-url https://download.pytorch.org/whl/cpu"
# PYTEST_ARGS="..."   more arguments for pytest, for example PYTEST_ARGS="-x tests/test_registry.py"
# MAX_JOBS=1          how many files are compiled at once (default: all cores, some 2 GB each)

# One set of rules builds every environment: `make test-full` is `make suite STACK=full`.
STACK := free
# Each stack: its folder, family of OpenMMLab libraries, mmcv, pins, interpreters.
ifeq ($(STACK),free)
VENV := .venv
FAMILY := onedl
endif
ifeq ($(STACK),full)
VENV := .venv-full
FAMILY := onedl
endif
ifeq ($(STACK),official)
VENV := .venv-official
FAMILY := official
endif

ifeq ($(FAMILY),onedl)
MMCV := onedl-mmcv
PINS := requirements/constraints.txt
PYTHON ?= python3
PYTHONS := 3.10 or later
FITS := (3, 10) <= sys.version_info
else ifeq ($(FAMILY),official)
MMCV := mmcv
PINS := requirements/constraints-official.txt
PYTHON ?= $(or $(firstword $(foreach p,python3 python3.11 python3.10,$(shell \
  $p -c 'import sys; $(FITS) and print("$p")' 2>/dev/null))),python3)
PYTHONS := 3.10 or 3.11
FITS := (3, 10) <= sys.version_info < (3, 12)
else
$(error STACK is free, full or official, not $(STACK))
endif

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
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
TORCH_DONE := $(VENV)/.torch-done
MMCV_DONE := $(VENV)/.mmcv-done
RUNTIME_DONE := $(VENV)/.runtime-done
TESTS_DONE := $(VENV)/.tests-done

# What every run sees: this folder (even after it was moved), no user site, output as it comes.
export PYTHONPATH := $(CURDIR)
export PYTHONNOUSERSITE := 1
export PYTHONUNBUFFERED := 1
# Threads that spin while they wait take the time of whatever else runs, data workers included.
export OMP_WAIT_POLICY := PASSIVE

.PHONY: help demo test test-full test-official suite nano install clean FORCE
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

test-full test-official:
	@$(MAKE) --no-print-directory suite STACK=$(@:test-%=%)

# Apart from the others and by name, so that a log shows which drop-ins ran.
DROP_IN := tests/methods/spm/test_drop_in.py tests/methods/spm/test_drop_in_backbones.py
suite: $(TESTS_DONE)
	@echo '== tests'
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q $(DROP_IN:%=--ignore=%) $(PYTEST_ARGS)
	@echo '== drop-in tests'
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -v -rs $(DROP_IN)
	@echo '== make test-$(STACK): tests and drop-in tests passed'

clean:
	rm -rf .venv .venv-full .venv-official build dist *.egg-info

$(VENV_DONE):
	@$(PYTHON) -c 'import sys; sys.exit(not $(FITS))' || { \
	  echo 'error: $(VENV) needs Python $(PYTHONS), and $(PYTHON) is' \
	    "$$($(PYTHON) --version 2>&1)." 'Name another: make PYTHON=python3.11' >&2; exit 2; }
	@echo '== [1/4] virtual environment $(VENV)'
	@$(PYTHON) -m venv --clear $(VENV) || { \
	  echo 'error: $(PYTHON) has no working venv module. On Debian and Ubuntu:' \
	    'sudo apt install python3-venv' >&2; exit 2; }
	$(PIP) install -q -c $(PINS) pip setuptools wheel
	@touch $@

# Rewritten only when the choice changes: then torch and all that follows are installed again.
$(CHOICE): $(VENV_DONE) FORCE
	@echo '$(TORCH)' | cmp -s - $@ || echo '$(TORCH)' > $@

$(TORCH_DONE): $(CHOICE) $(PINS)
	@echo '== [2/4] PyTorch: $(TORCH_ARGS)'
	@echo '   (with CUDA about 3 GB; "make help" names a smaller build)'
	$(PIP) install -c $(PINS) numpy pillow
	$(PIP) install $(TORCH_ARGS)
	@{ grep -vE '^torch(vision)?==' $(PINS); \
	   $(PIP) freeze | grep -E '^torch(vision)?==' || true; } > $(LOCK)
	@touch $@

ifeq ($(STACK),free)
$(MMCV_DONE): $(TORCH_DONE)
	@echo '== [3/4] OpenMMLab libraries without compiled operators, and what mmprompt imports'
# pip builds mmcv in an environment without torch, so it has no operators and needs no compiler. From
# pip's cache it might come with operators that were compiled against another torch.
	MMCV_WITH_OPS=0 $(PIP) install --no-cache-dir -c $(LOCK) $(MMCV)
	@touch $@
else
# Compiled once, and kept in a folder that is named by all that operators are compiled against: pip's own
# cache cannot tell one such wheel from another. From an unpacked source, so that ninja goes on where it was
# interrupted.
AGAINST := import sys, torch; cuda = torch.cuda.is_available(); \
  print(f"torch-{torch.__version__}_{sys.implementation.cache_tag}" + "_cuda" * cuda)
$(MMCV_DONE): $(TORCH_DONE)
	@echo '== [3/4] OpenMMLab libraries with compiled operators, and what mmprompt imports'
	$(PIP) install -c $(LOCK) ninja setuptools wheel
	@set -e; against=$$($(BIN)/python -c '$(AGAINST)'); \
	wheel=.wheels/$(MMCV)-$$(sed -n 's/^$(MMCV)==//p' $(PINS))_$$against; \
	if [ ! -d $$wheel ]; then \
	  c++ --version >/dev/null || { \
	    echo "error: mmcv's operators need a C++ compiler. On Debian and Ubuntu:" \
	      'sudo apt install g++ python3-dev' >&2; exit 2; }; \
	  echo "   compiling $$wheel: ten minutes on two cores"; \
  rm -rf $$wheel.part; \
  if [ ! -d $$wheel.src ]; then \
    mkdir -p $$wheel.part; \
    $(PIP) download --no-cache-dir --no-build-isolation --no-deps --no-binary :all: -c $(LOCK) \
      -d $$wheel.part $(MMCV); \
    tar xzf $$wheel.part/*.tar.gz -C $$wheel.part --strip-components 1; mv $$wheel.part $$wheel.src; \
  fi; \
  MMCV_WITH_OPS=1 $(PIP) wheel --no-cache-dir --no-build-isolation --no-deps -w $$wheel.part ./$$wheel.src; \
  mv $$wheel.part $$wheel; rm -rf $$wheel.src; \
fi; \
	$(PIP) install --no-cache-dir --force-reinstall --no-deps $$wheel/*.whl
	@touch $@
endif

COMPILED := $(filter-out free,$(STACK))
REQUIREMENTS := requirements/runtime.txt requirements/$(FAMILY).txt \
  $(COMPILED:%=requirements/mmpretrain-$(FAMILY).txt)
$(RUNTIME_DONE): $(MMCV_DONE) $(REQUIREMENTS) setup.py
	$(PIP) install -c $(LOCK) $(REQUIREMENTS:%=-r %)
# Both OpenCV builds get pulled and share one folder. The last one wins: the one without libGL.
	$(PIP) install -q --force-reinstall --no-deps -c $(LOCK) opencv-python-headless
	PYTHONWARNINGS=ignore $(PIP) install -q --no-deps --no-build-isolation -e .
	$(COMPILED:%=$(BIN)/python -c 'import mmcv.ops, mmpretrain.models')
	@echo '== [4/4] what the doctor says'
	$(BIN)/python mmprompt_doctor.py
	@touch $@

TEST_REQUIREMENTS := requirements/tests.txt $(wildcard requirements/tests-$(STACK).txt)
$(TESTS_DONE): $(RUNTIME_DONE) $(TEST_REQUIREMENTS)
	$(PIP) install -c $(LOCK) $(TEST_REQUIREMENTS:%=-r %)
	@touch $@
