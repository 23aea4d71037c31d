"""Versions come from the go.mod files alone."""

from __future__ import annotations

import pytest

from hack.cluster import gotools
from hack.cluster.gotools import GO_SOURCES, GO_TOOLS, GoTool, pinned_version, required_version

GO_MOD = """\
module tools/x

require example.org/single v1.2.3

require (
	example.org/listed v0.4.0 // indirect
	example.org/listed/extra v0.5.0
)
"""


@pytest.mark.parametrize(
    ("module", "version"),
    [
        ("example.org/single", "v1.2.3"),
        ("example.org/listed", "v0.4.0"),
        ("example.org/listed/extra", "v0.5.0"),
    ],
)
def test_a_version_is_read_from_either_form_of_require(module: str, version: str) -> None:
    assert required_version(GO_MOD, module) == version


def test_a_module_that_is_not_required_is_an_error() -> None:
    with pytest.raises(KeyError, match=r"example\.org/extra"):
        required_version(GO_MOD, "example.org/extra")


@pytest.mark.parametrize("tool", GO_TOOLS, ids=lambda tool: tool.name)
def test_every_tool_has_a_module_with_pinned_sums(tool: GoTool) -> None:
    folder = GO_SOURCES / tool.module

    assert (folder / "go.mod").is_file()
    for package in tool.packages:
        if package.startswith("./"):
            assert (folder / package / "main.go").is_file()
        else:
            assert (folder / "go.sum").is_file()
            assert package in (folder / "go.mod").read_text()


def test_programs_of_kubernetes_say_the_pinned_version() -> None:
    [tool] = [tool for tool in GO_TOOLS if tool.name == "kube-api"]
    version = pinned_version("kubernetes", "k8s.io/kubernetes")
    major, minor, _ = version.removeprefix("v").split(".")

    flags = tool.arguments()[-1].split()

    assert f"k8s.io/component-base/version.gitVersion={version}" in flags
    assert f"k8s.io/client-go/pkg/version.gitMajor={major}" in flags
    assert f"k8s.io/client-go/pkg/version.gitMinor={minor}" in flags


def test_a_newer_kubernetes_is_another_part(monkeypatch: pytest.MonkeyPatch) -> None:
    [tool] = [tool for tool in GO_TOOLS if tool.name == "kube-api"]
    before = tool.part().recipe

    monkeypatch.setattr(gotools, "kubernetes_version", lambda: "v1.99.0")

    assert tool.part().recipe != before
