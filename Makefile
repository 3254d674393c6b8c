# Every target needs nothing before it: what it wants installed, it installs.
#   PYTHON=/path/to/python   which Python to make .venv with (3.11, 3.12 or 3.13; default: the first one found)
#   PORT=8080                where `make demo` serves
#   ONCE=1                   `make demo` ends after the stream
#   QUICK=1                  `make bench` takes about 4 minutes instead of 22

SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help install demo test browser test-all conformance bench lint format clean

BIN := .venv/bin
PORT ?= 8080
export PYTHON

help:  ## say what there is to make
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install:  ## make .venv with everything in it; leaves .venv/bin/dialback
	@scripts/install

demo: install  ## stream examples/chunks.py to this terminal, then keep serving until Ctrl-C
	@$(BIN)/python scripts/demo --port $(PORT) $(if $(ONCE),--once)

test: install  ## the tests to run on every edit
	@$(BIN)/python -m pytest

browser: install  ## the tests in a real browser, which it installs where there is none
	@scripts/install-browser
	@$(BIN)/python -m pytest -m browser tests/browser

test-all: install  ## every test: also the slow ones, fuzzing, containers, a browser, the other Pythons, the compiled gateway
	@scripts/install-browser || true
	@$(BIN)/python -m pytest -m ""
	@scripts/check-pythons --all
	@scripts/check-compiled
	@$(BIN)/python scripts/check-compose

bench: install  ## Dialback beside nginx and others: benchmarks/RESULTS.md; QUICK=1: a look, about 4 minutes
	@scripts/bench $(if $(QUICK),--quick)

conformance: install  ## compare ASGI apps here and on uvicorn, write docs/conformance.md; fails on what is unexplained
	@$(BIN)/python -m tests.conformance

lint: install  ## ruff and mypy --strict
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/mypy --python-version 3.10 protocol lambda_client

format: install  ## rewrite the code as `make lint` wants it
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

clean:  ## remove what the other targets made
	@rm -rf .venv .venv-* build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage htmlcov
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
