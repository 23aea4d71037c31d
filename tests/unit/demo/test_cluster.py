import re
from pathlib import Path

import pytest

from hack.demo.cluster import ClusterError, connect, install_operator, kubectl


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for the project's tools, and nothing else on the PATH."""
    monkeypatch.setenv("MODEL_OPERATOR_TOOLS", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def script(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def test_kubectl_gives_what_it_prints(tools: Path) -> None:
    script(tools / "kubectl", 'echo "ran $*"')

    assert kubectl("get", "mdep") == "ran get mdep\n"


def test_kubectls_own_words_are_in_the_error(tools: Path) -> None:
    script(tools / "kubectl", 'echo "the server has no resource type mdep" >&2; exit 1')

    with pytest.raises(ClusterError, match="kubectl get mdep: the server has no resource type"):
        kubectl("get", "mdep")


def test_without_kubectl_it_says_how_to_get_one(tools: Path) -> None:
    with pytest.raises(ClusterError, match=f"neither in {re.escape(str(tools))}.*make tools"):
        kubectl("get", "mdep")


@pytest.mark.parametrize(("disabled", "value"), [(True, "true"), (False, "false")])
def test_the_test_switch_is_set_each_time(tools: Path, *, disabled: bool, value: str) -> None:
    script(tools / "helm", f'echo "$*" > {tools}/called')
    script(tools / "kubectl", "true")

    install_operator(disable_rollback=disabled)

    assert f"testing.disableRollback={value}" in (tools / "called").read_text()


def test_without_a_cluster_it_says_how_to_start_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "missing"))

    with pytest.raises(ClusterError, match="make cluster-up"):
        connect()
