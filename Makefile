# Two commands set everything up on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test slow benchmarks bench-unstructured lint format clean

demo: .venv/.installed
	$(BIN)/python -m examples.poisson --out results

test: .venv/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto -m "not slow"

slow: .venv/.installed
	$(BIN)/python -m pytest -m slow

benchmarks: bench-unstructured
	OMP_NUM_THREADS=1 $(BIN)/python -m examples.benchmarks.energies.assembly
	$(BIN)/python -m examples.benchmarks.energies.energy --first-calls 1 --out results
	$(BIN)/python -m examples.benchmarks.energies.energy --degree 2 --out results
	$(BIN)/python -m examples.benchmarks.energies.energy --degree 3 --out results
	$(BIN)/python -m examples.benchmarks.energies.energy --dim 3 --items 2 --nodes 129 --repeats 5 --out results
	$(BIN)/python -m examples.benchmarks.energies.training --out results
	$(BIN)/python -m examples.benchmarks.solves.solve --out results
	$(BIN)/python -m examples.benchmarks.solves.batch --out results
	$(BIN)/python -m examples.benchmarks.layers.nurbs --out results
	$(BIN)/python -m examples.benchmarks.layers.components --out results
	$(BIN)/python -m examples.benchmarks.layers.splines --out results
	$(BIN)/python -m examples.benchmarks.solves.adjoint --out results
	$(BIN)/python -m examples.benchmarks.solves.rough --out results
	$(BIN)/python -m examples.benchmarks.solves.saddle --out results
	$(BIN)/python -m examples.benchmarks.solves.isogeometric --out results
	$(BIN)/python -m examples.benchmarks.solves.small --out results
	$(BIN)/python -m examples.benchmarks.energies.throughput --out results
	$(BIN)/python -m examples.benchmarks.solves.scaling --square 256 512 1024 2048 --cube 32 64 96 128 --out results

bench-unstructured: .venv/.installed
	$(BIN)/python -m examples.benchmarks.solves.unstructured --out results

lint: .venv/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/python .ci/structure.py

format: .venv/.installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "ritz needs Python 3.11 or newer; name one with make PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,bench]'
	touch $@

clean:
	rm -rf .venv results .pytest_cache .ruff_cache
