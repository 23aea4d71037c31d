"""Records a rollout while it happens: by three watches and a poll of the load generator."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Final, Self

import urllib3.exceptions
from kubernetes import client, watch

from hack.demo.cluster import ClusterError, LoadGenerator
from hack.demo.history import Applied, Fault, History, Journal
from model_operator.api.labels import GROUP, NAME, VERSION

POLL_INTERVAL_S: Final = 0.25
RETRY_INTERVAL_S: Final = 0.5
WATCH_TIMEOUT_S: Final = 60
GONE: Final = 410

Sink = Callable[[float, Mapping[str, Any]], None]

new_watch: Callable[[], Any] = watch.Watch
"""The client's watch, which has no types."""


class Recorder:
    """Follows one ModelDeployment, its route and its revisions, and the answers to the load.

    Used as a context manager. What a watch or a poll cannot reach is tried again until the end.
    """

    def __init__(
        self,
        api: client.ApiClient,
        *,
        namespace: str,
        name: str,
        journal: Journal,
        load: LoadGenerator | None = None,
    ) -> None:
        self._custom = client.CustomObjectsApi(api)
        self._namespace = namespace
        self._name = name
        self._journal = journal
        self._load = load
        self._next_window = 0
        self._polling = threading.Lock()
        self._changed = threading.Condition()
        self._stopped = threading.Event()
        self._failure: str | None = None
        self._watches: dict[str, Any] = {}
        own = {"field_selector": f"metadata.name={name}"}
        children = {"label_selector": f"{NAME}={name}"}
        gateway_group = ("gateway.networking.k8s.io", "v1")
        self._threads = [
            self._watching((GROUP, VERSION), "modeldeployments", own, journal.model_deployment),
            self._watching((GROUP, VERSION), "modelrevisions", children, journal.model_revision),
            self._watching(gateway_group, "httproutes", own, journal.route),
        ]
        if load is not None:
            self._threads.append(threading.Thread(target=self._poll_until_stopped, daemon=True))

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stopped.set()
        for stream in self._watches.values():
            stream.stop()
        for thread in self._threads:
            thread.join(timeout=2 * RETRY_INTERVAL_S)

    def history(self) -> History:
        """All that was recorded so far.

        Raises:
            ClusterError: Answers are lost.
        """
        with self._changed:
            if self._failure is not None:
                raise ClusterError(self._failure)
            return self._journal.history()

    def wait_for(self, condition: Callable[[History], bool], timeout_s: float) -> bool:
        """Waits until `condition` holds for the history; False when it does not in time.

        Raises:
            ClusterError: Answers are lost.
        """
        deadline_s = time.monotonic() + timeout_s
        while not condition(self.history()):
            remaining_s = deadline_s - time.monotonic()
            if remaining_s <= 0:
                return False
            self.wait_for_change(remaining_s)
        return True

    def wait_for_change(self, timeout_s: float) -> None:
        """Waits until something more was recorded, at most `timeout_s`."""
        with self._changed:
            self._changed.wait(timeout_s)

    def applied(self, applied: Applied) -> None:
        """Records that a version was applied."""
        with self._recording():
            self._journal.applied(applied)

    def fault(self, fault: Fault) -> None:
        """Records that something was broken or mended."""
        with self._recording():
            self._journal.fault(fault)

    def start_load(self, rate: float) -> None:
        """Starts the load generator at `rate` requests per second."""
        self._required_load().start(rate)
        with self._recording():
            self._journal.load(time.time(), rate)

    def stop_load(self) -> None:
        """Stops the load generator and reads what is left of its answers."""
        self._required_load().stop()
        with self._recording():
            self._journal.load(time.time(), 0)
        self._poll()

    def _required_load(self) -> LoadGenerator:
        if self._load is None:
            raise ValueError("this recorder has no load generator")
        return self._load

    @contextmanager
    def _recording(self) -> Iterator[None]:
        with self._changed:
            yield
            self._changed.notify_all()

    def _watching(
        self, api_version: tuple[str, str], plural: str, selector: Mapping[str, str], sink: Sink
    ) -> threading.Thread:
        def run() -> None:
            seen = _Seen()
            while not self._stopped.is_set():
                try:
                    self._watch_once(api_version, plural, selector, sink, seen)
                except client.ApiException as error:
                    if error.status == GONE:
                        seen.resource_version = None
                    self._stopped.wait(RETRY_INTERVAL_S)
                except (urllib3.exceptions.HTTPError, OSError):
                    self._stopped.wait(RETRY_INTERVAL_S)

        return threading.Thread(target=run, daemon=True, name=f"watch {plural}")

    def _watch_once(
        self,
        api_version: tuple[str, str],
        plural: str,
        selector: Mapping[str, str],
        sink: Sink,
        seen: "_Seen",
    ) -> None:
        stream = new_watch()
        self._watches[plural] = stream
        events = stream.stream(
            self._custom.list_namespaced_custom_object,
            *api_version,
            self._namespace,
            plural,
            **selector,
            resource_version=seen.resource_version,
            timeout_seconds=WATCH_TIMEOUT_S,
        )
        for event in events:
            if self._stopped.is_set():
                return
            at = time.time()
            manifest = event["raw_object"]
            if seen.is_new(manifest) and event["type"] in {"ADDED", "MODIFIED"}:
                with self._recording():
                    sink(at, manifest)

    def _poll_until_stopped(self) -> None:
        while not self._stopped.wait(POLL_INTERVAL_S):
            try:
                self._poll()
            except (client.ApiException, urllib3.exceptions.HTTPError, OSError):
                continue
            except ClusterError as error:
                with self._recording():
                    self._failure = str(error)
                return

    def _poll(self) -> None:
        with self._polling:
            windows = self._required_load().windows(self._next_window)
            while windows:
                with self._recording():
                    for window in windows:
                        self._journal.window(window)
                self._next_window = windows[-1].seq + 1
                windows = self._required_load().windows(self._next_window)


class _Seen:
    """What a watch delivered last, so that a new connection goes on there."""

    def __init__(self) -> None:
        self.resource_version: str | None = None
        self._versions: set[tuple[str, str]] = set()

    def is_new(self, manifest: Mapping[str, Any]) -> bool:
        metadata = manifest["metadata"]
        self.resource_version = metadata["resourceVersion"]
        version = (metadata["uid"], metadata["resourceVersion"])
        new = version not in self._versions
        self._versions.add(version)
        return new
