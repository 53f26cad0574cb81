# The README's commands. On a machine with only python3 and make, each makes the virtual
# environment first; it is made anew when the dependencies change.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
ARGS ?=

.PHONY: run test slow lint check clean
.DEFAULT_GOAL := run

$(READY): pyproject.toml constraints.txt
	@echo "Making the virtual environment $(VENV); this takes some minutes."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

run: $(READY)  ## train on CarRacing; ARGS="seed=1 iterations=50" to change it
	$(BIN)/python run.py agent=es env=CarRacing $(ARGS)

test: $(READY)  ## the tests, without the slow ones
	$(BIN)/python -m pytest -n auto -m "not slow" $(ARGS)

slow: $(READY)  ## the slow tests
	$(BIN)/python -m pytest -n auto -m slow $(ARGS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

check: lint test  ## everything that must hold before a commit

clean:
	rm -rf $(VENV) build dist *.egg-info
