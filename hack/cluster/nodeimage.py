"""kind's node image, and the images of what runs in it, made from built parts.

The images carry upstream's names, so that manifests (kubeadm's, kind's and ours) are the same
where a registry has the real ones.
"""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from pathlib import Path

from hack.cluster.archive import ImageConfig, write_image, write_layer
from hack.cluster.gotools import kubernetes_version, module_source, pinned_version
from hack.cluster.layout import SOURCES
from hack.cluster.parts import Build, Lane, Part
from hack.cluster.process import ClusterError, wait_for

PODNET_IMAGE = "localhost/podnet:dev"
_CNI_MANIFEST = SOURCES / "manifests" / "podnet.yaml"
_CONTAINERD_CONFIG = "images/base/files/etc/containerd/config.toml"
_CONTAINERD_START_S = 20.0

# The archive's name for the node image, whose own name has the key that it is built under.
UNNAMED = "localhost/kind-node:unnamed"

# Images are only stored here, so the store and the metadata are all that has to run.
_IMPORTER_CONFIG = """\
version = 3
disabled_plugins = [
  "io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime",
  "io.containerd.internal.v1.opt", "io.containerd.nri.v1.nri",
]
"""


def traefik_image() -> str:
    """Return upstream's name for the gateway's image."""
    return f"docker.io/library/traefik:{pinned_version('traefik', 'github.com/traefik/traefik/v3')}"


def prometheus_image() -> str:
    """Return upstream's name for Prometheus' image; as a Go module, v3.16.0 is v0.316.0."""
    module = pinned_version("prometheus", "github.com/prometheus/prometheus")
    return f"docker.io/prom/prometheus:{release_of_prometheus_module(module)}"


def release_of_prometheus_module(version: str) -> str:
    """Turn the version of Prometheus' Go module into that of the release.

    Raises:
        ValueError: the module's version does not follow Prometheus' scheme for releases from 3 on.
    """
    found = re.fullmatch(r"v0\.(\d)(\d\d)\.(\d+)", version)
    if not found:
        raise ValueError(f"not a version of Prometheus' Go module: {version}")
    return f"v{found[1]}.{int(found[2])}.{found[3]}"


def kubeadm_binary(image: str) -> str:
    """Return the program that an image of kubeadm's list runs: the last word of its name."""
    return image.rsplit("/", 1)[-1].split(":", 1)[0]


def _build_components(build: Build) -> None:
    binaries = {
        path.name: path
        for need in ("etcd", "kube-api", "kube-node", "coredns", "lite", "traefik", "prometheus")
        for path in build.needs[need].iterdir()
    }
    # The versions in kubeadm's names of etcd, CoreDNS and pause are not those of our builds, but
    # kubeadm accepts no others without more configuration.
    listed = build.run.output(
        *(binaries["kubeadm"], "config", "images", "list"),
        *("--kubernetes-version", kubernetes_version()),
    )
    for image in listed.split():
        if kubeadm_binary(image) != "pause":
            _single_binary_image(build, image, binaries[kubeadm_binary(image)])
    # As in kind's own build, the runtime's word on the pause image counts, not kubeadm's.
    runtime = module_source("kind", "sigs.k8s.io/kind", build.run) / _CONTAINERD_CONFIG
    _single_binary_image(build, sandbox_image(runtime.read_text()), binaries["pause"])
    _single_binary_image(build, PODNET_IMAGE, binaries["podnet"])
    _single_binary_image(build, traefik_image(), binaries["traefik"], user="65532")
    _single_binary_image(build, prometheus_image(), binaries["prometheus"], "/bin", user="65534")


def _single_binary_image(
    build: Build, reference: str, binary: Path, folder: str = "/usr/local/bin", user: str = ""
) -> None:
    layer = build.out / "layer.tar"
    # kubeadm's CoreDNS manifest names no command: the image has to start the program by itself.
    write_layer(layer, files={f"{folder}/{binary.name}": binary})
    layers = [layer]
    if binary.name == "kube-proxy":  # it calls iptables
        layers.insert(0, build.needs["proxy-root"] / "root.tar")
    config = ImageConfig(entrypoint=(f"{folder}/{binary.name}",), user=user)
    name = re.sub(r"[/:]", "_", reference)
    write_image(build.out / f"{name}.tar", reference, layers, config)
    layer.unlink()


def sandbox_image(containerd_config: str) -> str:
    """Return the pause image that a containerd configuration names.

    Raises:
        ValueError: it names none.
    """
    found = re.search(r'^\s*sandbox_image = "([^"]+)"', containerd_config, re.MULTILINE)
    if not found:
        raise ValueError("containerd's configuration names no sandbox image")
    return found[1]


def node_image(key: str) -> str:
    """Return the name of the node image that is built under a key."""
    return f"localhost/kind-node:{kubernetes_version()}-{key}"


def _build_node(build: Build) -> None:
    containerd = build.needs["containerd"]
    binaries = {
        **{f"/usr/local/bin/{path.name}": path for path in containerd.iterdir()},
        "/usr/local/bin/crictl": build.needs["crictl"] / "crictl",
        "/usr/bin/kubectl": build.needs["kube-api"] / "kubectl",
        "/usr/bin/kubeadm": build.needs["kube-node"] / "kubeadm",
        "/usr/bin/kubelet": build.needs["kube-node"] / "kubelet",
    }
    programs, images = build.out / "programs.tar", build.out / "images.tar"
    write_layer(
        programs,
        files=binaries,
        texts={
            "/kind/version": kubernetes_version(),
            "/kind/manifests/default-cni.yaml": _CNI_MANIFEST.read_text(),
            "/etc/containerd/cri-base.json": _base_runtime_spec(build),
        },
    )
    with tempfile.TemporaryDirectory(dir=build.out) as root:
        _preload_images(build, Path(root))
        write_layer(images, trees={"/var/lib/containerd": Path(root)})
    write_image(
        build.out / "node.tar",
        UNNAMED,
        [build.needs["node-root"] / "root.tar", programs, images],
        ImageConfig(
            entrypoint=("/usr/local/bin/entrypoint", "/sbin/init"),
            env=(*ImageConfig().env, "container=docker"),  # systemd looks for this
            stop_signal="SIGRTMIN+3",
        ),
    )
    programs.unlink()
    images.unlink()


def _base_runtime_spec(build: Build) -> str:
    """Return containerd's default with kind's hook, and with the limits that a node has."""
    spec = json.loads(build.run.output(build.needs["containerd"] / "ctr", "oci", "spec"))
    hooks = spec.setdefault("hooks", {}).setdefault("createContainer", [])
    hooks.append({"path": "/kind/bin/mount-product-files.sh"})
    spec["process"].pop("rlimits", None)
    return json.dumps(spec)


def _preload_images(build: Build, root: Path) -> None:
    """Put the component images into a containerd store, as ``kind build node-image`` does."""
    containerd = build.needs["containerd"]
    with tempfile.TemporaryDirectory() as scratch:
        config = Path(scratch) / "config.toml"
        config.write_text(_IMPORTER_CONFIG)
        socket = Path(scratch) / "containerd.sock"
        with build.run.log.open("ab") as log:
            daemon = subprocess.Popen(
                (
                    *(containerd / "containerd", "--config", config, "--root", root),
                    *("--state", Path(scratch) / "state", "--address", socket),
                ),
                stdout=log,
                stderr=log,
            )
        try:
            ctr = (containerd / "ctr", "--address", socket)
            if not wait_for(lambda: build.run.succeeds(*ctr, "version"), _CONTAINERD_START_S):
                raise ClusterError(f"containerd did not start; see {build.run.log}")
            for archive in sorted(build.needs["component-images"].glob("*.tar")):
                build.run.run(
                    *(*ctr, "--namespace", "k8s.io", "images", "import"),
                    *("--no-unpack", "--all-platforms", archive),
                )
        finally:
            daemon.terminate()
            daemon.wait()


NODE_PARTS = (
    Part(
        name="component-images",
        lane=Lane.ASSEMBLY,
        replaces=True,
        build=_build_components,
        sources=(Path(__file__), SOURCES / "archive.py", SOURCES / "go" / "kind"),
        needs=(
            *("etcd", "kube-api", "kube-node", "coredns", "lite", "traefik", "prometheus"),
            "proxy-root",
        ),
    ),
    Part(
        name="node-image",
        lane=Lane.ASSEMBLY,
        replaces=True,
        build=_build_node,
        recipe=(_IMPORTER_CONFIG,),
        sources=(Path(__file__), SOURCES / "archive.py", _CNI_MANIFEST),
        needs=(
            *("component-images", "containerd", "crictl", "kube-api", "kube-node", "node-root"),
        ),
    ),
)
