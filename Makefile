# From a clone to green in two commands, each of which does all the set-up by itself:
#   make crosscheck   run the same weights through every framework and print the table
#   make test         ruff, the type checker and the whole test suite
# And for longer:
#   make fuzz         ten times as many damaged weight files as make test has
# And to read:
#   make docs         the manual, into site/: open site/index.html

PYTHON ?= python3.11
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: help crosscheck faults full test fuzz docs lint types format clean

help:
	@sed -n 's/^#   //p' Makefile

crosscheck: $(INSTALLED)
	$(BIN)/cbam check

faults: $(INSTALLED)
	$(BIN)/cbam check --faults

full: $(INSTALLED)
	$(BIN)/cbam check --full --dtype float64,float32,bfloat16,float16

test: lint types
	$(BIN)/python -m pytest -n 2 --dist worksteal

fuzz: $(INSTALLED)
	$(BIN)/python -m pytest -n 2 --dist worksteal tests/core/test_fuzz.py --fuzz 200000

docs: $(INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED)
	$(BIN)/mypy

format: $(INSTALLED)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The stamp is written last, so an installation that was cut off starts again.
$(INSTALLED): pyproject.toml setup.py constraints.txt $(wildcard cbam_core/native/*.cpp cbam_core/native/*.h)
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[test]"
	# It says that it needs torchvision, which it does not, and which would bring another torch.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps pytorchcv
	# In a folder of its own, which its tests alone look into: Triton and TensorFlow each bring an
	# LLVM, and end a process that loads both.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps --target .venv/triton triton
	touch $(INSTALLED)

clean:
	rm -rf .venv build site *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
