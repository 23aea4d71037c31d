"""The process that holds a private Docker engine, and the way into it.

The engine lives in network, mount and process namespaces of its own. The network namespace has no
link to the machine's, so that no packet of the cluster can leave; the mount namespace hides the
machine's /run and /etc from the engine's writes; and because the engine's first process is the
init of its process namespace, everything in the cluster ends with it, whatever ended it.

Sockets stay in the namespace in which they were made: the listeners are opened on the machine's
loopback first, and what they accept is passed on from inside.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    _Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[None, None, None]]

_CLONE_NEWNS = 0x00020000
_CLONE_NEWIPC = 0x08000000
_CLONE_NEWPID = 0x20000000
_CLONE_NEWNET = 0x40000000
_PR_SET_PDEATHSIG = 1

_CHUNK_BYTES = 1 << 16
_LOOPBACK = "127.0.0.1"

_libc = ctypes.CDLL(None, use_errno=True)


def main() -> int:
    """Run the sandbox in the foreground until it is told to end, or its engine ends."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, action="append", default=[], help="loopback port")
    parser.add_argument("engine", nargs="+", help="the engine's command line")
    arguments = parser.parse_args()

    listeners = [_listen(port) for port in arguments.port]
    _unshare(_CLONE_NEWNET | _CLONE_NEWNS | _CLONE_NEWPID | _CLONE_NEWIPC)
    init = os.fork()
    if init == 0:
        for listener in listeners:
            listener.close()
        _run_init(arguments.engine)
    return asyncio.run(_forward_until_end(listeners, init))


def _listen(port: int) -> socket.socket:
    listener = socket.create_server((_LOOPBACK, port), backlog=512)
    listener.settimeout(0)
    return listener


async def _forward_until_end(listeners: list[socket.socket], init: int) -> int:
    servers = [
        await asyncio.start_server(connection(listener.getsockname()[1]), sock=listener)
        for listener in listeners
    ]
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[int] = loop.create_future()

    def reap() -> None:
        pid, status = os.waitpid(init, os.WNOHANG)
        if pid and not ended.done():
            ended.set_result(os.waitstatus_to_exitcode(status))

    loop.add_signal_handler(signal.SIGCHLD, reap)
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, os.kill, init, signal.SIGTERM)
    reap()  # it may have ended before the handler was there
    code = await ended
    for server in servers:
        server.close()
    return abs(code)


def connection(port: int) -> _Handler:
    """Return what passes a connection on to a loopback port of this process's namespace."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            inner_reader, inner_writer = await asyncio.open_connection(_LOOPBACK, port)
        except OSError:
            writer.close()  # nobody listens inside: say no more than that
            return
        try:
            await asyncio.gather(_copy(reader, inner_writer), _copy(inner_reader, writer))
        finally:
            for end in (inner_writer, writer):
                end.close()
            await asyncio.gather(
                inner_writer.wait_closed(), writer.wait_closed(), return_exceptions=True
            )

    return handle


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass on one direction; its end is passed on too, while the other direction goes on."""
    try:
        while chunk := await reader.read(_CHUNK_BYTES):
            writer.write(chunk)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
    except OSError:
        writer.transport.abort()


def _run_init(engine: list[str]) -> NoReturn:
    """Be the namespace's init: start the engine, reap orphans, end with the engine."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    try:
        _prepare_mounts()
        subprocess.run(("ip", "link", "set", "lo", "up"), check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"cannot prepare the engine's namespaces: {error}", flush=True)
        os._exit(1)
    # Not subprocess: waiting for any child below must not race with its waiting for this one.
    child = os.posix_spawnp(engine[0], engine, os.environ)
    # An init ignores every signal that it has no handler for.
    signal.signal(signal.SIGTERM, lambda *_: os.kill(child, signal.SIGTERM))
    while True:
        pid, status = os.waitpid(-1, 0)
        if pid == child:
            os._exit(abs(os.waitstatus_to_exitcode(status)))


def _prepare_mounts() -> None:
    """Give the engine a /proc of its own, and a /run and /etc whose changes end with it."""
    upper = "upperdir=/run/etc/upper,workdir=/run/etc/work"
    commands = (
        "mount --make-rprivate /",
        "mount -t proc proc /proc",
        "mount -t tmpfs -o mode=0755 tmpfs /run",
        "mkdir -p /run/etc/upper /run/etc/work",
        f"mount -t overlay -o lowerdir=/etc,{upper} overlay /etc",
    )
    for command in commands:
        subprocess.run(command.split(), check=True)


def _unshare(flags: int) -> None:
    if _libc.unshare(flags):
        error = ctypes.get_errno()
        raise OSError(error, f"unshare: {os.strerror(error)}")


def start(ports: list[int], engine: list[str | Path], log: Path, env: dict[str, str]) -> int:
    """Start a sandbox that outlives this process, and return its process id."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            (
                *(sys.executable, "-m", "hack.cluster.sandbox"),
                *(f"--port={port}" for port in ports),
                *("--", *map(str, engine)),
            ),
            cwd=Path(__file__).resolve().parents[2],
            env={**os.environ, **env},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    # It is meant to run on: without this Popen would warn that nobody waited for it.
    process.returncode = 0
    return process.pid


if __name__ == "__main__":
    sys.exit(main())
