"""A real Kubernetes API on loopback: etcd, kube-apiserver and, when asked, its controllers.

There are no nodes, so pods never run: a test that needs ready pods writes their status.
"""

from __future__ import annotations

import ctypes
import json
import os
import random
import signal
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from hack.cluster.gotools import module_source
from hack.cluster.layout import cache_root
from hack.cluster.process import Runner

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

REPOSITORY: Final = Path(__file__).resolve().parents[2]
_START_TIMEOUT_S: Final = 60.0
_STOP_TIMEOUT_S: Final = 20.0
_POLL_S: Final = 0.05
_PORTS: Final = range(20_000, 30_000)
_ADMIN_TOKEN: Final = "admin"  # noqa: S105 -- for one server on loopback
_PR_SET_PDEATHSIG: Final = 1
_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_CONTROLLERS: Final = (
    "deployment-controller",
    "replicaset-controller",
    "garbage-collector-controller",
    "namespace-controller",
    "serviceaccount-controller",
    "disruption-controller",
)


def tool(name: str) -> Path:
    """Return one of the built binaries.

    It is looked for in the folder that `MODEL_OPERATOR_TOOLS` names, then where
    `python -m hack.cluster tools` puts it.

    Raises:
        FileNotFoundError: It is not built. Never a reason to skip a test.
    """
    folder = os.environ.get("MODEL_OPERATOR_TOOLS")
    path = (Path(folder) if folder else cache_root() / "bin") / name
    if not path.exists():
        raise FileNotFoundError(f"{path} is not there: `make test-apiserver` builds it")
    return path


class ControlPlane:
    """Runs while its `with` block does; its processes end with this process, however it ends.

    Attributes:
        kubeconfig: An administrator's credentials.
        folder: Everything it writes, with one log for each process.
    """

    def __init__(self, folder: Path, *, crds: bool = True) -> None:
        """Keep all data in `folder`, which exists and is empty.

        Args:
            folder: Where.
            crds: Whether to install the project's CRDs and Gateway API's.
        """
        self.folder = folder
        self._crds = crds
        self.kubeconfig = folder / "kubeconfig"
        self._running = ExitStack()
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        with ExitStack() as undo:
            undo.push(self.__exit__)
            self._start_api()
            if self._crds:
                self._install_crds()
            undo.pop_all()
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _value: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._running.close()

    @property
    def pids(self) -> list[int]:
        """Process ids of what it runs."""
        return [process.pid for process in self._processes.values()]

    def start_controllers(self) -> None:
        """Start kube-controller-manager with what a ModelDeployment's children need."""
        if "kube-controller-manager" in self._processes:
            return
        self._start(
            "kube-controller-manager",
            f"--kubeconfig={self.kubeconfig}",
            "--secure-port=0",
            "--leader-elect=false",
            "--use-service-account-credentials=false",
            f"--controllers={','.join(_CONTROLLERS)}",
            "--concurrent-gc-syncs=4",
        )

    @contextmanager
    def stopped(self, name: str) -> Iterator[None]:
        """Stop one of its processes, as on a node that hangs; it goes on after the block."""
        self._processes[name].send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._processes[name].send_signal(signal.SIGCONT)

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """Run kubectl as the administrator and return what it printed.

        Raises:
            KubectlError: It failed; the text is what it said.
        """
        done = subprocess.run(
            [tool("kubectl"), f"--kubeconfig={self.kubeconfig}", *arguments],
            env={**os.environ, "HOME": str(self.folder)},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=_START_TIMEOUT_S,
            check=False,
        )
        if done.returncode:
            raise KubectlError(done.stderr.strip())
        return done.stdout

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        content_type: str = "application/json",
        accept: str = "application/json",
    ) -> Any:
        """Send one request as the administrator and return the JSON answer.

        Raises:
            ApiError: It was refused.
        """
        request = urllib.request.Request(  # noqa: S310 -- our own server
            f"{self._server}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={
                "Accept": accept,
                "Authorization": f"Bearer {_ADMIN_TOKEN}",
                "Content-Type": content_type,
            },
        )
        trusted = ssl.create_default_context(cafile=str(self._certificate))
        try:
            with urllib.request.urlopen(request, context=trusted, timeout=10) as answer:  # noqa: S310 -- our own server
                return json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                raise ApiError(error.code, json.load(error)["message"]) from None

    def _start_api(self) -> None:
        client_port, peer_port, self._port = _free_ports(3)
        etcd, peer = f"http://127.0.0.1:{client_port}", f"http://127.0.0.1:{peer_port}"
        self._start(
            "etcd",
            f"--data-dir={self.folder / 'etcd'}",
            f"--listen-client-urls={etcd}",
            f"--advertise-client-urls={etcd}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            # nothing here outlives the tests
            "--unsafe-no-fsync",
        )
        self._write_credentials()
        self._start(
            "kube-apiserver",
            f"--etcd-servers={etcd}",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            f"--secure-port={self._port}",
            f"--cert-dir={self._certificate.parent}",
            f"--token-auth-file={self.folder / 'tokens.csv'}",
            "--authorization-mode=RBAC",
            "--service-cluster-ip-range=10.0.0.0/24",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={self.folder / 'service-accounts.pem'}",
            f"--service-account-signing-key-file={self.folder / 'service-accounts.pem'}",
            # A pod can be made where no controller has made its service account.
            "--disable-admission-plugins=ServiceAccount",
            # Endpoints must not be loopback addresses, and nobody here uses this Service.
            "--endpoint-reconciler-type=none",
        )
        self._wait_ready()

    @property
    def _server(self) -> str:
        return f"https://127.0.0.1:{self._port}"

    @property
    def _certificate(self) -> Path:
        return self.folder / "certificates" / "apiserver.crt"

    def _write_credentials(self) -> None:
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        (self.folder / "service-accounts.pem").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.TraditionalOpenSSL,
                serialization.NoEncryption(),
            )
        )
        (self.folder / "tokens.csv").write_text(f"{_ADMIN_TOKEN},admin,admin,system:masters\n")
        named = {"name": "test"}
        cluster = {"server": self._server, "certificate-authority": str(self._certificate)}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "contexts": [{**named, "context": {"cluster": "test", "user": "test"}}],
            "clusters": [{**named, "cluster": cluster}],
            "users": [{**named, "user": {"token": _ADMIN_TOKEN}}],
        }
        self.kubeconfig.write_text(yaml.safe_dump(config))

    def _install_crds(self) -> None:
        gateway_api = module_source(
            "traefik", "sigs.k8s.io/gateway-api", Runner(self.folder / "go.log")
        )
        standard = gateway_api / "config" / "crd" / "standard"
        kinds = ("gatewayclasses", "gateways", "httproutes")
        files = [
            REPOSITORY / "crds",
            *(standard / f"gateway.networking.k8s.io_{k}.yaml" for k in kinds),
        ]
        sources = [
            argument for file in (REPOSITORY / "crds", *files) for argument in ("-f", str(file))
        ]
        self.kubectl("apply", "--server-side", *sources)
        self.kubectl("wait", "crd", "--all", "--for=condition=Established", "--timeout=30s")

    def _start(self, name: str, *arguments: str) -> None:
        with self._log(name).open("wb") as log:
            process = subprocess.Popen(
                [tool(name), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                # A test run that is killed cannot stop anything: the kernel does it then.
                preexec_fn=_die_with_parent,  # noqa: PLW1509 -- calls prctl and nothing else
            )
        self._processes[name] = process
        self._running.callback(_stop, process)

    def _wait_ready(self) -> None:
        deadline = time.monotonic() + _START_TIMEOUT_S
        while time.monotonic() < deadline:
            for name, process in self._processes.items():
                if process.poll() is not None:
                    raise RuntimeError(f"{name} ended: {_tail(self._log(name))}")
            try:
                self.request("GET", "/api/v1/namespaces/default")
            except (OSError, ValueError, ApiError):  # not listening, no JSON yet, no namespace yet
                time.sleep(_POLL_S)
            else:
                return
        raise TimeoutError(f"kube-apiserver: {_tail(self._log('kube-apiserver'))}")

    def _log(self, name: str) -> Path:
        return self.folder / f"{name}.log"


class ApiError(Exception):
    """A refused request.

    Attributes:
        code: HTTP status code.
        message: What the API server said.
    """

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


class KubectlError(Exception):
    """What kubectl said when it failed."""


def _die_with_parent() -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, below those that the kernel gives to outgoing connections.

    A port of the kernel's choice could be taken by any client before its server listens.
    """
    free: list[int] = []
    for port in random.sample(_PORTS, len(_PORTS)):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            free.append(port)
        if len(free) == count:
            return free
    raise OSError(f"no {count} free ports from {_PORTS.start} to {_PORTS.stop}")


def _tail(log: Path, lines: int = 20) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
