#!/usr/bin/env bash
# Every check, then every test in one pytest run, so that its last line counts them all. The tests of
# the cluster wait most of the time, so all others run beside them.
# --full adds the tests that take real minutes or hours and keeps their result in docs/.
set -euo pipefail
cd "$(dirname "$0")/.."
select="not full"
[ "${1:-}" = --full ] && select=""
mkdir -p build
cluster() { .venv/bin/python -m hack.cluster "$@"; }
# Not what the environment says: the tests drain nodes and delete namespaces.
KUBECONFIG=$(cluster kubeconfig)
export KUBECONFIG

was_up=no
cluster status > /dev/null 2>&1 && was_up=yes
stop() { [ "$was_up" = yes ] || cluster down > build/cluster-down.log 2>&1 || true; }
trap stop EXIT

make -s check
cluster tools > /dev/null
cluster up
cluster images

code=0
.venv/bin/python -m pytest -m "$select" -n 2 --dist loadscope --no-loadscope-reorder --durations=25 \
    --junit-xml=build/tests.xml tests 2>&1 |
    tee build/tests.log || code=$?
if [ -z "$select" ]; then .venv/bin/python hack/keep_full_result.py build/tests.xml docs/test-full.md; fi
exit $code
