#!/usr/bin/env bash
# Installs uv and the locked environment. Quick when nothing changed.
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p build
stamp=.venv/.installed
want=$(cat requirements/dev.txt operator/pyproject.toml inference-server/pyproject.toml | sha256sum)
[ -f "$stamp" ] && [ "$(cat "$stamp")" = "$want" ] && exit 0

missing=()
for command in git make python3; do command -v $command > /dev/null || missing+=("$command"); done
if [ ${#missing[@]} -gt 0 ]; then
    if [ "$(id -u)" = 0 ] && [ -f /etc/debian_version ]; then
        apt-get update -qq && apt-get install -y -qq --no-install-recommends "${missing[@]}" python3-venv > /dev/null
    else
        echo "setup: install ${missing[*]} first" >&2
        exit 1
    fi
fi

uv=$(command -v uv || true)
if [ -z "$uv" ]; then
    tools="${XDG_CACHE_HOME:-$HOME/.cache}/model-operator/uv"
    uv="$tools/bin/uv"
    if [ ! -x "$uv" ]; then
        echo "setup: installing uv"
        python3 -m venv "$tools" || { echo "setup: install uv (or python3-venv) first" >&2; exit 1; }
        "$tools/bin/pip" install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt
    fi
fi

echo "setup: installing the Python environment into .venv"
[ -x .venv/bin/python ] || "$uv" venv --quiet --python 3.11 .venv
"$uv" pip sync --quiet --require-hashes requirements/dev.txt
"$uv" pip install --quiet --no-deps --no-build-isolation -e operator -e inference-server
echo "$want" > "$stamp"
