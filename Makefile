# Everything sets itself up: `make demo` and `make test` need Python 3.11 and make, no more.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
TORCH := torch==2.13.0

.PHONY: demo test test-slow check docs bench bench-inference bench-ingest bench-search bench-adapt train-small lock models clean

demo: $(VENV)/.installed
	$(BIN)/mapper demo --out demo

test: check
	$(BIN)/python -m pytest -m "not slow" -n 2 --dist worksteal

test-slow: $(VENV)/.installed-test build/pgstac/.installed
	$(BIN)/python -m pytest -m slow

check: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python docs/generate.py --check

docs: $(VENV)/.installed-test
	$(BIN)/python docs/generate.py

$(VENV)/.installed: requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	# the lock is whole: what it depends on is in it, and torch comes on its own
	$(BIN)/python -m pip install --quiet --no-deps -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	touch $@

# torch first, so that nothing else asks for a newer one with CUDA packages
$(VENV)/.installed-test: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet $(TORCH)
	touch $@

# a STAC API on PostgreSQL, in an environment of its own; the test skips without PostGIS
build/pgstac/.installed: tests/catalog/requirements-pgstac.txt
	test -x build/pgstac/bin/python || $(PYTHON) -m venv build/pgstac
	build/pgstac/bin/python -m pip install --quiet -r tests/catalog/requirements-pgstac.txt
	touch $@

bench: $(VENV)/.installed-test
	$(BIN)/python -W ignore benchmarks/warp.py

# an hour and more; peers have an environment of their own
bench-inference: build/bench/.installed
	build/bench/bin/python -W ignore benchmarks/inference.py --networks cheap --repeats 3
	build/bench/bin/python -W ignore benchmarks/inference.py --networks segformer-b0 --append \
	  --sizes 4096x4096 --repeats 2
	build/bench/bin/python -W ignore benchmarks/blocks.py

build/bench/.installed: requirements.lock benchmarks/requirements-inference.txt
	test -x build/bench/bin/python || $(PYTHON) -m venv build/bench
	build/bench/bin/python -m pip install --quiet $(TORCH)
	build/bench/bin/python -m pip install --quiet --no-deps -r requirements.lock
	build/bench/bin/python -m pip install --quiet --no-deps \
	  -r benchmarks/requirements-inference.txt --editable .
	touch $@

bench-search: $(VENV)/.installed-test
	$(BIN)/python -W ignore benchmarks/search.py

# an hour; rivals have an environment of their own
bench-ingest: build/bench-ingest-env/.installed
	MAPPER_NETWORK__CHECK_BLOCKS=0 build/bench-ingest-env/bin/python -W ignore \
	  benchmarks/ingest.py --scenes 12 --repeats 2 --places disk,50 --memory 20 100

build/bench-ingest-env/.installed: requirements.lock benchmarks/requirements-ingest.txt
	test -x build/bench-ingest-env/bin/python || $(PYTHON) -m venv build/bench-ingest-env
	build/bench-ingest-env/bin/python -m pip install --quiet --no-deps -r requirements.lock \
	  -r benchmarks/requirements-ingest.txt --editable .
	touch $@

# an hour on two cores; --ship writes the weights into models/
train-small: $(VENV)/.installed-test
	$(BIN)/python -W ignore benchmarks/train_small.py

# an hour on two cores; real tasks need MAPPER_TEST_ARCHIVE
bench-adapt: $(VENV)/.installed-test
	$(BIN)/python -W ignore benchmarks/adapt.py

lock:
	rm -rf build/lock && $(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip install --quiet --upgrade pip
	build/lock/bin/python -m pip install --quiet $(TORCH)
	build/lock/bin/python -m pip install --quiet --editable ".[test]"
	( sed -n '/^#/p' requirements.lock; \
	  build/lock/bin/python -m pip freeze --exclude-editable \
	  | grep -v -i -E '^(torch|pip|setuptools|wheel)==' ) > build/requirements.lock
	mv build/requirements.lock requirements.lock

models: $(VENV)/.installed
	for build in models/*/build.py; do $(BIN)/python $$build; done

clean:
	rm -rf $(VENV) build demo out
