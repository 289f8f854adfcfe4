PYTHON ?= python3
PORT ?= 3000
BIN := .venv/bin
# There are 2.5 GB to unpack, for which pip takes minutes longer.
INSTALL := $(BIN)/uv pip install --quiet
DLT := dlt[parquet,sql_database]==1.31.0 connectorx==0.4.6 psycopg2-binary==2.9.13 "sqlalchemy<2.1"
# What executors of Spark need besides Python and the package.
EXECUTORS := boto3 duckdb isal numpy pyarrow pydantic pydantic-settings thrift
EMULATOR := bqemulator duckdb-extensions duckdb-extension-icu duckdb-extension-spatial numpy

.PHONY: install demo dev notebook test test-long bench spark-archive docs pictures image release release-check lint clean

install: .venv/installed .venv-bigquery/installed

.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 …")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt uv
	$(INSTALL) --compile-bytecode --constraint constraints.txt --editable '.[local,deploy,dev,spark]'
	touch $@

# The BigQuery emulator holds DuckDB back at 1.5, so it lives apart.
.venv-bigquery/installed: constraints-bigquery.txt | .venv/installed
	$(PYTHON) -m venv .venv-bigquery
	$(INSTALL) --python .venv-bigquery --compile-bytecode --constraint constraints-bigquery.txt $(EMULATOR)
	touch $@

demo: install
	$(BIN)/python -m mozagg2bq_assets.local.demo

dev: install
	$(BIN)/python -m mozagg2bq_assets.local.dev '$(PORT)'

notebook: install
	$(BIN)/mozagg2bq local up
	. .local/env && exec jupyter lab notebooks/explore.ipynb

test: install
	$(BIN)/pytest

test-long: install
	$(BIN)/pytest --hypothesis-profile=long -o faulthandler_timeout=7200

# SECTION=eras and the like run one part of it.
bench: install .venv-bench/installed .venv-dlt/installed
	.venv-bench/bin/python -m benchmarks.run $(SECTION)

# As on a server: nothing that only development needs. Google's client takes memory for pandas wherever that is.
.venv-bench/installed: pyproject.toml constraints.txt | .venv/installed
	$(PYTHON) -m venv .venv-bench
	$(INSTALL) --python .venv-bench --compile-bytecode --constraint constraints.txt --editable '.[local,deploy,spark]'
	touch $@

# What a user would pick instead, to compare with.
.venv-dlt/installed: | .venv/installed
	$(PYTHON) -m venv .venv-dlt
	$(INSTALL) --python .venv-dlt --compile-bytecode $(DLT)
	touch $@

# All that an executor with only Python needs: SPARK_ARCHIVE names it.
spark-archive: install
	rm -rf build dist/executors.zip
	$(INSTALL) --no-deps --target build/executors .
	$(INSTALL) --constraint constraints.txt --target build/executors $(EXECUTORS)
	mkdir -p dist && cd build/executors && $(CURDIR)/$(BIN)/python -m zipfile -c $(CURDIR)/dist/executors.zip *
	@ls -l dist/executors.zip

# Pages for people, in `site/`. A missing picture, page or anchor is an error.
docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# The pictures of the pages, made anew by the browser test.
pictures: install
	PICTURES=docs/pictures $(BIN)/pytest -n0 mozagg2bq_assets_tests/browser

# As root, on Debian; with Docker, `docker compose build` makes the same.
image: install
	deploy/build-image mozagg2bq
	IMAGE=mozagg2bq $(BIN)/pytest -n0 mozagg2bq_assets_tests/deploy/test_image.py

release: install
	rm -rf build dist/mozagg2bq-*
	$(BIN)/python -m build --installer uv --outdir dist

# The wheel as a user installs it: in an environment of its own, away from this folder.
release-check: release
	$(BIN)/python deploy/check_release.py dist '$(EXECUTORS)'

lint: install
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.compose-spec compose.yaml
	$(BIN)/lint-imports

clean:
	test ! -e .local || $(BIN)/mozagg2bq local down
	rm -rf .venv .venv-bench .venv-bigquery .venv-dlt .local
