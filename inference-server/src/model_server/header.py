"""The head of an ONNX file: who made it, for which version of ONNX.

ONNX Runtime does not tell the opsets of a model that it loaded, and parsing the whole file for them
would have its weights in memory twice. So only the outermost fields are read, and the graph is
skipped: https://protobuf.dev/programming-guides/encoding, `ModelProto` in onnx.proto.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from io import SEEK_CUR, BytesIO
from pathlib import Path
from typing import BinaryIO

DEFAULT_DOMAIN = "ai.onnx"

_IR_VERSION, _OPSET_IMPORT = 1, 8
# Its name and its version.
_PRODUCER = (2, 3)
_DOMAIN, _VERSION = 1, 2
_VARINT, _LENGTH = 0, 2
# Bytes of the wire types of fixed length.
_FIXED = {1: 8, 5: 4}
_MAX_VARINT_BITS = 70
_MAX_UINT64 = (1 << 64) - 1
_MORE_FOLLOWS = 0x80
# What is longer is no name and no version. The graph and the documentation are skipped unread.
_MAX_BYTES = 4096


@dataclass(frozen=True, slots=True)
class OpsetImport:
    """Operators that a model uses: those of a domain as they were in one version."""

    domain: str
    version: int


@dataclass(frozen=True, slots=True)
class Header:
    """What a model says of itself.

    Attributes:
        ir_version: Version of the file format; 0 when it is not told.
        producer: Name and version of the tool that wrote it, empty when it is not told.
        opset_imports: By domain; ONNX's own is `ai.onnx`.
    """

    ir_version: int = 0
    producer: str = ""
    opset_imports: tuple[OpsetImport, ...] = ()


def read_header(path: Path) -> Header:
    """Return the head of the ONNX file at `path`.

    What cannot be read is left out: it only describes a model, and whether that can run is for
    ONNX Runtime to say.
    """
    ir_version = 0
    producer: dict[int, str] = {}
    opsets: dict[str, int] = {}
    try:
        with path.open("rb") as file:
            for number, value in _fields(file):
                if number == _IR_VERSION and isinstance(value, int):
                    ir_version = value
                elif number in _PRODUCER and isinstance(value, bytes):
                    producer[number] = value.decode(errors="replace")
                elif number == _OPSET_IMPORT and isinstance(value, bytes):
                    opset = _opset_import(value)
                    opsets[opset.domain] = opset.version
    except (OSError, EOFError, ValueError):
        pass
    return Header(
        ir_version=ir_version,
        producer=" ".join(filter(None, (producer.get(number) for number in _PRODUCER))),
        opset_imports=tuple(OpsetImport(*item) for item in sorted(opsets.items())),
    )


def _opset_import(message: bytes) -> OpsetImport:
    domain, version = "", 0
    for number, value in _fields(BytesIO(message)):
        if number == _DOMAIN and isinstance(value, bytes):
            domain = value.decode(errors="replace")
        elif number == _VERSION and isinstance(value, int):
            version = value
    return OpsetImport(domain or DEFAULT_DOMAIN, version)


def _fields(file: BinaryIO) -> Iterator[tuple[int, int | bytes]]:
    """Yield number and value of each field of a message up to its end; long values are skipped.

    Raises:
        EOFError: The message is cut off.
        ValueError: It is no protobuf message.
    """
    while head := file.read(1):
        tag = _varint(file, head)
        number, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            yield number, _varint(file, file.read(1))
        elif kind == _LENGTH:
            size = _varint(file, file.read(1))
            if size <= _MAX_BYTES:
                yield number, file.read(size)
            else:
                file.seek(size, SEEK_CUR)
        elif kind in _FIXED:
            file.seek(_FIXED[kind], SEEK_CUR)
        else:
            raise ValueError(f"wire type {kind}")


def _varint(file: BinaryIO, byte: bytes) -> int:
    """Return the number that begins with `byte`: seven bits in each, the lowest first."""
    value = 0
    for shift in range(0, _MAX_VARINT_BITS, 7):
        if not byte:
            raise EOFError
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < _MORE_FOLLOWS:
            return value & _MAX_UINT64
        byte = file.read(1)
    raise ValueError("a number that does not end")
