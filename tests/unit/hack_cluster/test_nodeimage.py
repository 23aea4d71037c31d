"""The names under which the built images stand in for upstream's."""

from __future__ import annotations

import pytest

from hack.cluster.nodeimage import kubeadm_binary, release_of_prometheus_module, sandbox_image


@pytest.mark.parametrize(
    ("image", "binary"),
    [
        ("registry.k8s.io/kube-apiserver:v1.36.3", "kube-apiserver"),
        ("registry.k8s.io/coredns/coredns:v1.14.2", "coredns"),
        ("localhost:5000/etcd:3.6.8-0", "etcd"),
    ],
)
def test_the_program_of_an_image_is_the_last_word_of_its_name(image: str, binary: str) -> None:
    assert kubeadm_binary(image) == binary


@pytest.mark.parametrize(
    ("module", "release"),
    [("v0.316.0", "v3.16.0"), ("v0.305.2", "v3.5.2")],
)
def test_the_release_of_prometheus_is_told_from_its_module(module: str, release: str) -> None:
    assert release_of_prometheus_module(module) == release


def test_a_module_of_prometheus_2_is_refused() -> None:
    with pytest.raises(ValueError, match=r"v0\.55\.1"):
        release_of_prometheus_module("v0.55.1")


def test_the_pause_image_is_the_one_that_the_runtime_names() -> None:
    config = '[plugins]\n  # sandbox_image = "no"\n  sandbox_image = "registry.k8s.io/pause:3.10"\n'

    assert sandbox_image(config) == "registry.k8s.io/pause:3.10"
    with pytest.raises(ValueError, match="no sandbox image"):
        sandbox_image("version = 2")
