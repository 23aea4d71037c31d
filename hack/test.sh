#!/usr/bin/env bash
# Every check, then every test. The tests of the cluster wait most of the time, so all others run
# beside them. --full adds those that take real minutes or hours and keeps the result in docs/.
set -euo pipefail
cd "$(dirname "$0")/.."
full=no
[ "${1:-}" = --full ] && full=yes
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

# In one pytest run each, so that its last line counts them all.
code=0
run() { # name of the report, which tests
    .venv/bin/python -m pytest -m "$2" -n 2 --dist loadscope --no-loadscope-reorder --durations=25 \
        --junit-xml="build/$1.xml" tests 2>&1 |
        tee "build/$1.log" || code=$?
}
run tests "not full"
if [ "$full" = yes ]; then
    run full full
    .venv/bin/python hack/keep_full_result.py docs/test-full.md build/tests.xml build/full.xml
fi
exit $code
