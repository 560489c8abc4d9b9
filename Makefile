# make demo            train, evaluate and predict on scanned digits; leaves output/demo/report.json
# make serve           the web page and interface on the demo's bundle, at http://127.0.0.1:8000/; SERVE=... are more flags:
#                      CAIT_TOKEN=... make serve SERVE=--host=0.0.0.0 is for phones and other computers, too
# make test            the tests, JOBS=2 files at a time: at most 15 minutes on 2 cores; `make test-slow` runs what takes longer
# make check           lint, and the tests that start no process: at most 90 seconds on 2 cores
# make install PADDLE="paddlepaddle-gpu==2.6.2 numpy<2 setuptools<80 paddle2onnx<2"    another build of PaddlePaddle than the CPU one

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TESTS := not slow
JOBS := 2
REQUIREMENTS := requirements.txt $(foreach word,demo dev fast onnx serve,requirements-$(word).txt)

# What is installed stays what is meant, until PADDLE says otherwise.
INSTALLED := $(shell cat $(VENV)/installed 2>/dev/null)
PADDLE ?= $(or $(INSTALLED),paddlepaddle>=3.3.1)
CHANGED := $(if $(filter-out $(INSTALLED),$(PADDLE)),FORCE)

# `-i URL` in PADDLE is for PaddlePaddle alone: its own index has few of the other packages.
INDEX = $(filter http%,$(PADDLE))
BUILD = $(filter-out -i http%,$(PADDLE))

.PHONY: install demo serve test test-slow test-paddle26 test-gpu-wheel test-strides check lint docs FORCE

install: $(VENV)/installed

# Both builds of PaddlePaddle are the module `paddle`: one is never installed over the other.
$(VENV)/installed: $(REQUIREMENTS) $(CHANGED)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@found=$$($(BIN)/python -m pip list --format=freeze | sed -n 's/^\(paddlepaddle[a-z-]*\)=.*/\1/p'); \
	wanted=$$(echo '$(firstword $(PADDLE))' | sed 's/[^a-z-].*//'); \
	if [ -n "$$found" ] && [ "$$found" != "$$wanted" ]; then \
	    echo "error: $(VENV) holds $$found; remove the folder before installing $$wanted" >&2; exit 2; fi
	$(if $(INDEX),$(BIN)/python -m pip install --no-deps -i '$(INDEX)' '$(firstword $(BUILD))')
	$(BIN)/python -m pip install $(foreach word,$(BUILD),'$(word)')
	$(BIN)/python -m pip install $(foreach word,$(filter-out paddlepaddle%,$(BUILD)),'$(word)') \
	    $(addprefix -r ,$(REQUIREMENTS))
	@echo '$(PADDLE)' > $@

demo: install
	$(BIN)/python CaiT/demo.py

DEMO := output/demo/report.json

$(DEMO):
	$(MAKE) demo

serve: install $(DEMO)
	exec $(BIN)/python CaiT/serve.py --model_dir="$$(sed -n 's/^ *"run": "\(.*\)",$$/\1/p' $(DEMO))/inference" \
	    $$(test -d dataset/digits/val && echo --samples=dataset/digits/val) $(SERVE)

# COVERAGE=1 also measures which lines of the package the tests run in their own processes.
COVERED = $(if $(COVERAGE),--cov=CaiT/cait --cov-report=)

test: install
	$(BIN)/python -m pytest $(COVERED) -n $(JOBS) --dist loadfile --no-loadscope-reorder -m "$(TESTS)"
	$(if $(COVERAGE),$(BIN)/coverage report --skip-covered --sort=cover | tail -n 40)

test-slow: install
	$(BIN)/python -m pytest -m slow

# The tests that depend on PaddlePaddle with the newest whose GPU wheel is on the package index, in its own environment.
test-paddle26:
	$(MAKE) test TESTS="not slow and not any_paddle" VENV=.venv26 PADDLE='paddlepaddle==2.6.2 numpy<2 setuptools<80 paddle2onnx<2'

# The same with the GPU wheel that is on the package index, on a machine with or without a GPU.
test-gpu-wheel:
	$(MAKE) test TESTS="not slow and not any_paddle" VENV=.venvgpu PADDLE='paddlepaddle-gpu==2.6.2 numpy<2 setuptools<80 paddle2onnx<2'

# The same with transposes that are views, which PaddlePaddle has on GPUs and this project has not on CPUs.
test-strides:
	$(MAKE) test CAIT_TESTS_FLAGS=FLAGS_use_stride_kernel=1

# Lint, and the tests that start no process: for every change on the way.
check: lint
	CAIT_TESTS_NO_PROCESSES=1 $(BIN)/python -m pytest -q -n $(JOBS) --dist loadfile --no-loadscope-reorder -m "not slow" --disable-warnings -r fE

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/shellcheck -x test_tipc/*.sh tests/helpers/*.sh .ci/run

# The table of config keys, and the API reference as web pages: docs/api/index.html.
ROOMS := $(patsubst %,cait.%,$(filter-out __%,$(basename $(notdir $(wildcard CaiT/cait/*)))))
docs: install
	PYTHONPATH=CaiT $(BIN)/python -m cait.config > docs/config.md
	PYTHONPATH=CaiT $(BIN)/pdoc --docformat google --output-directory docs/api cait $(ROOMS)
