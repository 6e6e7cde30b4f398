# make book   install what is needed, run the experiments, build the book into _build/html
# make test   install what is needed, check the code, run the tests
# Both take variables: make book PROFILE=smoke, make book JOBS=4 (notebooks at a time, default 2),
# make test PYTHON=python3.12
PYTHON ?= python3
PROFILE ?= quick
JOBS ?= 2
VENV := .venv
BIN := $(VENV)/bin

.PHONY: book test format clean

book: $(VENV)/installed
	$(BIN)/study run --profile $(PROFILE) --jobs $(JOBS)
	$(BIN)/study book --profile $(PROFILE)

test: $(VENV)/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/nbstripout --verify notebooks/*.ipynb
	$(BIN)/python -m pytest

format: $(VENV)/installed-test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/nbstripout notebooks/*.ipynb

# The stamp is the last thing written, so an interrupted installation is made again.
$(VENV)/installed: constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info < (3, 14) else \
	"This study needs Python 3.11, 3.12 or 3.13, not %d.%d: make PYTHON=python3.12 ..." \
	% sys.version_info[:2])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/installed-test: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[test]"
	touch $@

clean:
	rm -rf $(VENV) _build runs
