"""The operator as a process of its own, to be killed, stopped and resumed."""

from __future__ import annotations

import asyncio
import ctypes
import json
import multiprocessing
import os
import signal
import sys
from collections.abc import Mapping
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any, Final

from model_operator.__main__ import main

_PR_SET_PDEATHSIG: Final = 1
_POLL_S: Final = 0.02
_LEADS: Final = "leads, term"

# importing takes seconds of processor time on a small machine; forking does not
_CONTEXT: Final = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["model_operator.__main__", __name__])


class OperatorProcess:
    """`python -m model_operator`, once it is started, and as often as it is started again."""

    def __init__(self, name: str, kubeconfig: Path, namespace: str, **settings: str) -> None:
        """Create it; nothing runs before `start`.

        Args:
            name: The pod's name.
            kubeconfig: Way to the API.
            namespace: Its own, and the one it looks after.
            settings: `MODEL_OPERATOR_*` variables, in lower case without the prefix.
        """
        self.name = name
        self._log = kubeconfig.with_suffix(".log")
        self._log.touch()
        variables = {
            "namespace": namespace,
            "namespaces": namespace,
            "server_image": "registry.example/model-server:1",
            "settle_seconds": "0.4",
            "health_host": "127.0.0.1",
            "health_port": "0",
            **settings,
        }
        self._environment = {
            "KUBECONFIG": str(kubeconfig),
            "POD_NAME": name,
            **{f"MODEL_OPERATOR_{key.upper()}": value for key, value in variables.items()},
        }
        self._process: ForkServerProcess | None = None

    def start(self) -> None:
        """Start it, as the kubelet does with a container."""
        self._process = _CONTEXT.Process(
            target=_run, args=(self._environment, str(self._log)), daemon=True
        )
        self._process.start()

    def kill(self) -> None:
        """End it at once, wherever it is."""
        self._signal(signal.SIGKILL)
        self._running.join()

    def stop(self) -> None:
        """Stop it, wherever it is; `resume` has it go on."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Have it go on."""
        self._signal(signal.SIGCONT)

    def terminate(self) -> None:
        """Ask it to end in order."""
        self._signal(signal.SIGTERM)

    def close(self) -> None:
        """End it, if it still runs."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process.close()
            self._process = None

    async def ended(self, timeout_s: float = 20.0) -> int:
        """Wait for its end; its exit code.

        Raises:
            TimeoutError: It goes on.
        """
        async with asyncio.timeout(timeout_s):
            while self._running.exitcode is None:  # noqa: ASYNC110 - another process
                await asyncio.sleep(_POLL_S)
        return self._running.exitcode

    async def logged(self, text: str, timeout_s: float = 20.0) -> str:
        """Wait until it has logged a message with this text; the message.

        Raises:
            TimeoutError: It has not.
        """
        async with asyncio.timeout(timeout_s):
            while True:
                for message in self.messages():
                    if text in message:
                        return message
                await asyncio.sleep(_POLL_S)

    async def leads(self, timeout_s: float = 20.0) -> None:
        """Wait until it leads."""
        await self.logged(_LEADS, timeout_s)

    def has_led(self) -> bool:
        """Whether it has ever led."""
        return any(_LEADS in message for message in self.messages())

    def messages(self) -> list[str]:
        """What it has logged, of all its runs."""
        lines = self._log.read_text().splitlines()
        return [_message(line) for line in lines]

    @property
    def _running(self) -> ForkServerProcess:
        assert self._process is not None
        return self._process

    def _signal(self, number: signal.Signals) -> None:
        assert self._running.pid is not None
        os.kill(self._running.pid, number)


def _message(line: str) -> str:
    try:
        parsed: Any = json.loads(line)
    except ValueError:  # a traceback, or half a line
        return line
    return f"{parsed['message']} {parsed.get('exception', '')}"


def _run(environment: Mapping[str, str], log: str) -> None:
    # a test run that is killed cannot end anything: the kernel does it then
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    with Path(log).open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ.update(environment)
    sys.exit(main())
