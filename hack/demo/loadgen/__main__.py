"""Command line of the load generator: `python -m loadgen --url ... --host ... --requests FILE`."""

import argparse
import asyncio
import logging
from pathlib import Path

from aiohttp import web
from prometheus_client import start_http_server

from .app import make_app
from .sender import Target, read_requests


def main() -> None:
    """Serves the API until SIGTERM."""
    parser = argparse.ArgumentParser(prog="loadgen", description=__doc__)
    parser.add_argument("--url", required=True, help="inference endpoint")
    parser.add_argument("--host", required=True, help="Host header of the requests")
    parser.add_argument("--requests", required=True, type=Path, help="JSON file of labelled images")
    parser.add_argument("--timeout-s", type=float, default=10.0, help="default: 10")
    parser.add_argument("--port", type=int, default=8080, help="API; default: 8080")
    parser.add_argument("--metrics-port", type=int, default=9090, help="default: 9090")
    arguments = parser.parse_args()

    logging.basicConfig(level=logging.WARNING)
    target = Target(url=arguments.url, host=arguments.host, timeout_s=arguments.timeout_s)
    app = make_app(target, read_requests(arguments.requests))
    start_http_server(arguments.metrics_port)
    loop = asyncio.new_event_loop()
    web.run_app(app, port=arguments.port, access_log=None, loop=loop, print=None)


if __name__ == "__main__":
    main()
