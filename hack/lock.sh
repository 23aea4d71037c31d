#!/usr/bin/env bash
# Locks every closure with hashes into requirements/; --check fails where a lock is not what its
# pyproject asks for. A new version comes in with `make lock UPGRADE=--upgrade`.
set -euo pipefail
cd "$(dirname "$0")/.."
uv=$(command -v uv || echo "${XDG_CACHE_HOME:-$HOME/.cache}/model-operator/uv/bin/uv")
out=requirements
if [ "${1:-}" = --check ]; then
    out=$(mktemp -d)
    trap 'rm -rf "$out"' EXIT
    cp requirements/*.txt "$out"
fi
lock() {
    "$uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
        --no-annotate --no-emit-index-url --no-emit-find-links ${UPGRADE:-} "$@"
}
lock operator/pyproject.toml -o "$out/operator.txt"
lock inference-server/pyproject.toml -o "$out/inference-server.txt"
lock pyproject.toml --group dev --group export operator/pyproject.toml \
    inference-server/pyproject.toml \
    -c "$out/operator.txt" -c "$out/inference-server.txt" -o "$out/dev.txt"
lock hack/demo/requirements.in -c "$out/dev.txt" -o "$out/demo.txt"
echo 'uv>=0.9' | lock - -o "$out/uv.txt"
[ "$out" = requirements ] || diff -rq "$out" requirements > /dev/null ||
    { echo "requirements/ is out of date: run 'make lock'" >&2; exit 1; }
