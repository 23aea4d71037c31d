"""The programs that are built from pinned Go modules, one module each under ``go/``."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from hack.cluster.layout import SOURCES
from hack.cluster.parts import Build, Lane, Part
from hack.cluster.process import ClusterError, Runner

GO_SOURCES = SOURCES / "go"

# Static and without paths of this machine, so that any root file system can hold them.
_ENVIRONMENT = {"CGO_ENABLED": "0", "GOWORK": "off", "GOFLAGS": "-buildvcs=false"}


@dataclass(frozen=True, slots=True)
class GoTool:
    """Programs of one Go module that are built together.

    Attributes:
        name: of the part.
        module: folder under ``go/``.
        packages: import path of each program, to the name its binary gets.
        tags: build tags.
        stamped: whether the programs say a version that Kubernetes' variables give them.
    """

    name: str
    module: str
    packages: dict[str, str]
    tags: str = ""
    stamped: bool = False

    def arguments(self) -> tuple[str, ...]:
        """Return the arguments of ``go build`` that all packages share."""
        flags = ["-s", "-w"]
        if self.stamped:
            version = kubernetes_version()
            major, minor = version.lstrip("v").split(".")[:2]
            for package in ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version"):
                flags += ["-X", f"{package}.gitVersion={version}"]
                flags += ["-X", f"{package}.gitMajor={major}", "-X", f"{package}.gitMinor={minor}"]
        tags = ("-tags", self.tags) if self.tags else ()
        return ("-trimpath", *tags, "-ldflags", " ".join(flags))

    def part(self) -> Part:
        """Return the part that builds these programs."""
        return Part(
            name=self.name,
            lane=Lane.GO,
            build=self._build,
            recipe=(*self.arguments(), json.dumps(self.packages)),
            sources=(GO_SOURCES / self.module,),
        )

    def _build(self, build: Build) -> None:
        if not shutil.which("go"):
            raise ClusterError("Go 1.26 or newer is needed: see https://go.dev/doc/install")
        go = Runner(build.run.log, _ENVIRONMENT)
        folder = GO_SOURCES / self.module
        # One call for all packages shares their compilation; the binaries take the packages' names.
        go.run("go", "build", *self.arguments(), "-o", f"{build.out}/", *self.packages, cwd=folder)
        for package, binary in self.packages.items():
            built = build.out / package.removesuffix("/v3").rsplit("/", 1)[-1]
            if built.name != binary:
                built.rename(build.out / binary)


_KUBERNETES = "k8s.io/kubernetes/cmd/"

# What tests against the API alone need comes first, so that they need not wait for a whole cluster.
GO_TOOLS = (
    GoTool("etcd", "etcd", {"go.etcd.io/etcd/server/v3": "etcd"}),
    GoTool(
        "kube-api",
        "kubernetes",
        {
            _KUBERNETES + name: name
            for name in ("kube-apiserver", "kube-controller-manager", "kubectl")
        },
        stamped=True,
    ),
    GoTool("helm", "helm", {"helm.sh/helm/v4/cmd/helm": "helm"}),
    GoTool("kind", "kind", {"sigs.k8s.io/kind": "kind"}),
    GoTool("lite", "lite", {"./pause": "pause", "./runc-lite": "runc-lite"}),
    GoTool(
        "kube-node",
        "kubernetes",
        {
            "./podnet": "podnet",
            **{
                _KUBERNETES + name: name
                for name in ("kubeadm", "kubelet", "kube-proxy", "kube-scheduler")
            },
        },
        stamped=True,
    ),
    GoTool(
        "containerd",
        "containerd",
        {
            f"github.com/containerd/containerd/v2/cmd/{name}": name
            for name in ("containerd", "containerd-shim-runc-v2", "ctr")
        },
    ),
    GoTool("crictl", "crictl", {"sigs.k8s.io/cri-tools/cmd/crictl": "crictl"}),
    GoTool("coredns", "coredns", {"github.com/coredns/coredns": "coredns"}),
    GoTool(
        "prometheus",
        "prometheus",
        {"github.com/prometheus/prometheus/cmd/prometheus": "prometheus"},
        # One kind of service discovery: the others bring the clients of every cloud.
        tags="remove_all_sd,enable_kubernetes_sd",
    ),
    GoTool("traefik", "traefik", {"github.com/traefik/traefik/v3/cmd/traefik": "traefik"}),
)

API_TOOLS = ("etcd", "kube-api", "helm", "prometheus")


def required_version(go_mod: str, module: str) -> str:
    """Return the version at which a ``go.mod`` requires a module.

    Raises:
        KeyError: it does not require it.
    """
    found = re.search(rf"^(?:require)?\s+{re.escape(module)} (v\S+)", go_mod, re.MULTILINE)
    if not found:
        raise KeyError(module)
    return found[1]


def pinned_version(folder: str, module: str) -> str:
    """Return the version of a module that the project's tool module in ``folder`` pins."""
    return required_version((GO_SOURCES / folder / "go.mod").read_text(), module)


def kubernetes_version() -> str:
    """Return the version of Kubernetes, such as ``v1.36.3``."""
    return pinned_version("kubernetes", "k8s.io/kubernetes")


def module_source(folder: str, module: str, run: Runner) -> Path:
    """Return the verified source of a module that ``folder`` pins, downloading it if need be."""
    go = Runner(run.log, _ENVIRONMENT)
    go.run("go", "mod", "download", module, cwd=GO_SOURCES / folder)
    found = go.output("go", "list", "-m", "-f", "{{.Dir}}", module, cwd=GO_SOURCES / folder)
    return Path(found.strip())
