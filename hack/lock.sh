#!/usr/bin/env bash
# Locks every closure with hashes. A new version comes in with `make lock UPGRADE=--upgrade`.
set -euo pipefail
cd "$(dirname "$0")/.."
lock() { uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
    --no-emit-index-url --no-emit-find-links ${UPGRADE:-} "$@"; }
lock operator/pyproject.toml -o requirements/operator.txt
lock inference-server/pyproject.toml -o requirements/inference-server.txt
lock pyproject.toml --group dev operator/pyproject.toml inference-server/pyproject.toml \
    -c requirements/operator.txt -c requirements/inference-server.txt -o requirements/dev.txt
lock pyproject.toml --group dev --group export operator/pyproject.toml inference-server/pyproject.toml \
    -c requirements/dev.txt -o requirements/export.txt
