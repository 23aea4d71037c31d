"""Asks an inference server about its model, in the words of the Open Inference Protocol."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final

import aiohttp
import msgspec
from yarl import URL

from model_operator.adapters.http import TooLargeError, read_limited
from model_operator.api.types import OpsetImport, Signature, Tensor

_MAX_BYTES: Final = 256 * 1024
"""What is longer has no room in a record."""
_MAX_TENSORS, _MAX_RANK, _MAX_OPSETS = 1024, 64, 64
_MAX_VERSION: Final = 2**31
_CONNECTIONS: Final = 16
_OPSET: Final = "opset."


class UnreadableError(Exception):
    """A server does not tell its model's signature; the message says why."""


class _Tensor(msgspec.Struct):
    name: str
    datatype: str
    shape: tuple[int, ...]


class _Metadata(msgspec.Struct):
    """A model's metadata; what goes beyond the protocol is in `parameters`."""

    inputs: tuple[_Tensor, ...]
    outputs: tuple[_Tensor, ...]
    versions: tuple[str, ...] = ()
    parameters: dict[str, Any] = {}


class InferenceClient:
    """Reads model metadata from pods."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    async def signature(
        self, host: str, port: int, *, model: str, revision: str, timeout_s: float
    ) -> Signature:
        """Read what the model behind `host` takes and gives.

        Args:
            host: The pod's IP address.
            port: Its port of the inference protocol.
            model: The model's name.
            revision: Whose pod it should be: an address may have got another pod by now.
            timeout_s: For the whole answer.

        Raises:
            UnreadableError: It does not answer, it is another revision's, or the answer has no
                room in a record.
        """
        url = URL.build(scheme="http", host=host, port=port) / "v2" / "models" / model
        body = await self._get(url, timeout_s)
        try:
            metadata = msgspec.json.decode(body, type=_Metadata)
        except msgspec.DecodeError as error:
            raise UnreadableError(f"it answers no model metadata: {error}") from error
        if revision not in metadata.versions:
            raise UnreadableError(f"it serves {', '.join(metadata.versions) or 'no revision'}")
        return Signature(
            inputs=_tensors(metadata.inputs),
            outputs=_tensors(metadata.outputs),
            opset_imports=_opset_imports(metadata.parameters),
            producer=str(metadata.parameters.get("producer", "")),
        )

    async def _get(self, url: URL, timeout_s: float) -> bytes:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=_CONNECTIONS, force_close=True)
            )
        timeout = aiohttp.ClientTimeout(total=timeout_s)
        try:
            async with self._session.get(url, timeout=timeout, allow_redirects=False) as response:
                if response.status != HTTPStatus.OK:
                    raise UnreadableError(f"it answers {response.status}")
                return await read_limited(response, _MAX_BYTES)
        except TimeoutError as error:
            raise UnreadableError(f"no answer within {timeout_s:g} s") from error
        except (aiohttp.ClientError, OSError, TooLargeError) as error:
            raise UnreadableError(str(error) or type(error).__name__) from error


def _tensors(described: tuple[_Tensor, ...]) -> tuple[Tensor, ...]:
    """The tensors, as long as a record has room for them.

    Raises:
        UnreadableError: It has not: the API server would refuse the record for ever.
    """
    names = {tensor.name for tensor in described}
    if len(described) > _MAX_TENSORS or any(len(one.shape) > _MAX_RANK for one in described):
        raise UnreadableError("it has more inputs, outputs or dimensions than are recorded")
    if len(names) != len(described):
        raise UnreadableError("two of its inputs or outputs have the same name")
    return tuple(Tensor(name=t.name, datatype=t.datatype, shape=t.shape) for t in described)


def _opset_imports(parameters: dict[str, Any]) -> tuple[OpsetImport, ...]:
    found = tuple(
        OpsetImport(domain=name.removeprefix(_OPSET), version=version)
        for name, version in sorted(parameters.items())
        if name.startswith(_OPSET) and isinstance(version, int) and 0 <= version < _MAX_VERSION
    )
    return found[:_MAX_OPSETS]
