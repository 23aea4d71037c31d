"""Requests/s of the inference server, beside a bare ASGI callable around the same session.

Both run the same model on the same uvicorn, one at a time and in turns, so that a busy machine
slows both. The bare callable runs the model on the event loop and checks nothing: the difference is
what validation, threads, admission and metrics cost.

    python -m benchmarks.server_rest --rounds 5 --seconds 2 --connections 16
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import uvicorn
import uvloop
from onnx import TensorProto, helper

from model_server.digest import digest_of
from model_server.model import Run, SessionSettings, load_model

NAME = "mlp"
PATH = f"/v2/models/{NAME}/infer"
FEATURES = 64


def write_model(path: Path) -> None:
    """Write a classifier of 64 features with two hidden layers of 128."""
    rng = np.random.default_rng(0)
    sizes = [FEATURES, 128, 128, 10]
    nodes, weights, value = [], [], "x"
    for layer, shape in enumerate(itertools.pairwise(sizes)):
        array = rng.standard_normal(shape).astype(np.float32)
        name = f"w{layer}"
        weights.append(
            helper.make_tensor(name, TensorProto.FLOAT, shape, array.tobytes(), raw=True)
        )
        nodes.append(helper.make_node("MatMul", [value, name], [f"m{layer}"]))
        nodes.append(helper.make_node("Relu", [f"m{layer}"], [f"r{layer}"]))
        value = f"r{layer}"
    graph = helper.make_graph(
        nodes,
        "mlp",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", FEATURES])],
        [helper.make_tensor_value_info(value, TensorProto.FLOAT, ["N", 10])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    path.write_bytes(model.SerializeToString())


def serve_bare(path: Path, port: int) -> None:
    """Serve the model with nothing around it."""
    model = load_model(path, SessionSettings())
    outputs = model.signature.outputs

    async def app(scope: Any, receive: Any, send: Any) -> None:
        body = b""
        more = scope["method"] == "POST"
        while more:
            message = await receive()
            body += message["body"]
            more = message["more_body"]
        answer = b"{}"
        if body:
            tensor = orjson.loads(body)["inputs"][0]
            array = np.array(tensor["data"], np.float32).reshape(tensor["shape"])
            (result,) = model.run(outputs, {"x": array}, Run())
            answer = orjson.dumps({"outputs": result}, option=orjson.OPT_SERIALIZE_NUMPY)
        length = str(len(answer)).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", length)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    config = uvicorn.Config(
        app, port=port, http="httptools", loop="uvloop", access_log=False, log_config=None
    )
    uvicorn.Server(config).run()


class Client(asyncio.Protocol):
    """One connection that sends the next request when it has the answer to the last."""

    def __init__(self, request: bytes, deadline: float) -> None:
        self.latencies_s: list[float] = []
        self.failures = 0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._request = request
        self._deadline = deadline
        self._buffer = b""

    def connection_made(self, transport: Any) -> None:
        """Send the first request."""
        self._transport = transport
        self._send()

    def data_received(self, data: bytes) -> None:
        """Note the answer once it is complete, and send the next request."""
        self._buffer += data
        head, separator, body = self._buffer.partition(b"\r\n\r\n")
        if not separator:
            return
        if len(body) < int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]):
            return
        now = time.perf_counter()
        self.latencies_s.append(now - self._sent)
        self.failures += not head.startswith(b"HTTP/1.1 200")
        self._buffer = b""
        if now < self._deadline:
            self._send()
        else:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Count a connection that broke as a failure."""
        self.failures += exc is not None
        if not self.done.done():
            self.done.set_result(None)

    def _send(self) -> None:
        self._sent = time.perf_counter()
        self._transport.write(self._request)


async def measure(port: int, seconds: float, connections: int) -> dict[str, float]:
    """Return requests/s and latencies of `connections` clients that never pause."""
    body = orjson.dumps(
        {
            "inputs": [
                {"name": "x", "datatype": "FP32", "shape": [1, FEATURES], "data": [0.5] * FEATURES}
            ]
        }
    )
    request = f"POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n".encode()
    loop = asyncio.get_running_loop()
    started = time.perf_counter()
    clients = [
        (
            await loop.create_connection(
                lambda: Client(request + body, started + seconds), "127.0.0.1", port
            )
        )[1]
        for _ in range(connections)
    ]
    await asyncio.gather(*(client.done for client in clients))
    elapsed_s = time.perf_counter() - started
    latencies_s = sorted(latency for client in clients for latency in client.latencies_s)
    return {
        "requests": len(latencies_s),
        "requests_per_s": len(latencies_s) / elapsed_s,
        "p50_ms": latencies_s[len(latencies_s) // 2] * 1000,
        "p99_ms": latencies_s[len(latencies_s) * 99 // 100] * 1000,
        "failures": sum(client.failures for client in clients),
    }


@contextlib.contextmanager
def process(args: list[str], port: int, cpu: int | None) -> Iterator[int]:
    """Run a server of ours on one CPU until the block ends; gives its process id."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    server = subprocess.Popen(
        [sys.executable, "-m", *args], stderr=subprocess.DEVNULL, env=environment
    )
    try:
        if cpu is not None:
            os.sched_setaffinity(server.pid, {cpu})
        wait_for(port, server)
        yield server.pid
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(timeout=30)


def wait_for(port: int, server: "subprocess.Popen[bytes]") -> None:
    """Wait until `server` answers that it is ready."""
    request = b"GET /v2/health/ready HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and server.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)) as probe:
            probe.sendall(request)
            if probe.recv(64).startswith(b"HTTP/1.1 200"):
                return
        time.sleep(0.1)
    raise SystemExit(f"the server on port {port} did not become ready")


def cpu_time_s(pid: int) -> float:
    """Return the CPU time of a process. Unlike requests/s it bears a busy machine."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def free_port() -> int:
    """Return a port of loopback that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def compare(rounds: int, seconds: float, connections: int) -> dict[str, Any]:
    """Measure both servers in turns and return the median, least and most of each figure."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        write_model(path)
        cpus = sorted(os.sched_getaffinity(0))
        server_cpu = cpus[-1] if len(cpus) > 1 else None
        if server_cpu is not None:
            os.sched_setaffinity(0, set(cpus[:-1]))
        ports = {"server": free_port(), "bare": free_port()}
        serve = [
            *("model_server", "serve", f"--model={path.as_uri()}", f"--digest={digest_of(path)}"),
            *(f"--name={NAME}", f"--revision={NAME}-1", "--host=127.0.0.1", "--drain-delay=0"),
            *(f"--http-port={ports['server']}", "--metrics-port=0", "--threads=1"),
            "--connection-max-age=1h",
        ]
        bare = ["benchmarks.server_rest", "--bare", str(path), str(ports["bare"])]
        samples: dict[str, list[dict[str, float]]] = {name: [] for name in ports}
        with (
            process(serve, ports["server"], server_cpu) as server_pid,
            process(bare, ports["bare"], server_cpu) as bare_pid,
        ):
            pids = {"server": server_pid, "bare": bare_pid}
            for _ in range(rounds):
                for name, port in ports.items():
                    before_s = cpu_time_s(pids[name])
                    sample = uvloop.run(measure(port, seconds, connections))
                    used_s = cpu_time_s(pids[name]) - before_s
                    sample["cpu_us_per_request"] = used_s / sample["requests"] * 1e6
                    samples[name].append(sample)
    return {name: summarise(runs) for name, runs in samples.items()}


def summarise(runs: list[dict[str, float]]) -> dict[str, Any]:
    """Return `[min, median, max]` of each figure."""
    return {
        figure: [
            round(function([run[figure] for run in runs]), 2)
            for function in (min, statistics.median, max)
        ]
        for figure in runs[0]
    }


def main() -> None:
    """Run the benchmark and print it as JSON and as a line."""
    if sys.argv[1:2] == ["--bare"]:
        serve_bare(Path(sys.argv[2]), int(sys.argv[3]))
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--connections", type=int, default=16)
    values = parser.parse_args()
    result = compare(values.rounds, values.seconds, values.connections)
    print(json.dumps({"server_rest": result}))
    ours, bare = (result[name]["requests_per_s"] for name in ("server", "bare"))
    cpu_us = [result[name]["cpu_us_per_request"][1] for name in ("server", "bare")]
    print(
        f"server_rest: {ours[1]:.0f} requests/s (min {ours[0]:.0f}, max {ours[2]:.0f}), "
        f"bare ASGI {bare[1]:.0f} ({ours[1] / bare[1]:.0%}), "
        f"CPU {cpu_us[0]:.0f} us a request, bare {cpu_us[1]:.0f}, "
        f"p50 {result['server']['p50_ms'][1]:.2f} ms, p99 {result['server']['p99_ms'][1]:.2f} ms"
    )


if __name__ == "__main__":
    main()
