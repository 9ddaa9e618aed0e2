# `make demo` and `make test` need only Python >= 3.11, pip and make; each creates .venv by itself.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Check only the project's folders, not files that a user keeps beside them (such as the README's mynet.py).
CODE := service workers search hw_profiles compress netlathe tests benchmarks

# Two test processes, each with whole files; most tests wait for child processes or use one core. In the order of
# tests/conftest.py: by itself, --dist would begin with the files of most tests and end with those of the longest.
PARALLEL := -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: install demo test test-all check clean

install: $(VENV)/installed

# --no-deps would omit the extras; the constraints pin torch, so that no CUDA build is installed.
$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: install
	$(BIN)/netlathe demo

check: install
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/mypy

test: check
	$(BIN)/python -m pytest $(PARALLEL)

test-all: check
	NETLATHE_TEST_ALL=1 $(BIN)/python -m pytest $(PARALLEL) -m ''

clean:
	rm -rf $(VENV) build dist *.egg-info
