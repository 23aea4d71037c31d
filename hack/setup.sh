#!/usr/bin/env bash
# Installs uv and the locked environment. Quick when nothing changed.
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p build
stamp=.venv/.installed
want=$(cat requirements/dev.txt operator/pyproject.toml inference-server/pyproject.toml | sha256sum)
[ -f "$stamp" ] && [ "$(cat "$stamp")" = "$want" ] && exit 0

tools="${XDG_CACHE_HOME:-$HOME/.cache}/model-operator/uv"
uv=$(command -v uv || echo "$tools/bin/uv")
missing=()
for command in git make python3; do command -v $command > /dev/null || missing+=("$command"); done
# uv is installed into a virtual environment, and Debian keeps what makes those in a package of its own.
[ -x "$uv" ] || python3 -c 'import ensurepip' 2> /dev/null || missing+=(python3-venv)
if [ ${#missing[@]} -gt 0 ]; then
    if [ "$(id -u)" = 0 ] && [ -f /etc/debian_version ]; then
        apt-get update -qq && apt-get install -y -qq --no-install-recommends "${missing[@]}" > /dev/null
    else
        echo "setup: install ${missing[*]} first" >&2
        exit 1
    fi
fi

if [ ! -x "$uv" ]; then
    echo "setup: installing uv"
    python3 -m venv "$tools"
    "$tools/bin/pip" install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt
fi

echo "setup: installing the Python environment into .venv"
[ -x .venv/bin/python ] || "$uv" venv --quiet --python 3.11 .venv
"$uv" pip sync --quiet --require-hashes requirements/dev.txt
"$uv" pip install --quiet --no-deps --no-build-isolation -e operator -e inference-server
echo "$want" > "$stamp"
