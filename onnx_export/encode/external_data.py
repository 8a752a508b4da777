"""Which other files an ONNX file would have the runtime read, found without the package onnx.

A tensor of an ONNX file may name a file that holds its values (``external_data``), by any path. Such a file has no
sha256 in `bundle.json` and is no part of the fingerprint, so graphs that name one are refused. The file is walked as
protobuf encodes it (https://protobuf.dev/programming-guides/encoding/), without recursion and each byte at most once.
"""

from __future__ import annotations

import mmap
from pathlib import Path

# Message → number of a field → the message in it: all the ways to a tensor, from the root.
FIELDS: dict[str, dict[int, str]] = {
    "ModelProto": {7: "GraphProto", 20: "TrainingInfoProto", 25: "FunctionProto"},
    "TrainingInfoProto": {1: "GraphProto", 2: "GraphProto"},
    "FunctionProto": {7: "NodeProto", 11: "AttributeProto"},
    "GraphProto": {1: "NodeProto", 5: "TensorProto", 15: "SparseTensorProto"},
    "NodeProto": {5: "AttributeProto"},
    "AttributeProto": {
        5: "TensorProto",
        6: "GraphProto",
        10: "TensorProto",
        11: "GraphProto",
        22: "SparseTensorProto",
        23: "SparseTensorProto",
    },
    "SparseTensorProto": {1: "TensorProto", 2: "TensorProto"},
    "TensorProto": {},
}
EXTERNAL_DATA, DATA_LOCATION = 13, 14  # fields of TensorProto

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_VARINT_BYTES = 10  # at most


def names_other_files(path: Path) -> bool:
    """Whether the graph in an ONNX file names another file for any of its tensors.

    Args:
        path: the file.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not an ONNX file.
    """
    with path.open("rb") as file:
        if not path.stat().st_size:
            raise ValueError("the file is empty")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _walk(data)


def _walk(data: mmap.mmap) -> bool:
    unread = [("ModelProto", 0, len(data))]
    while unread:
        message, at, end = unread.pop()
        within = FIELDS[message]
        while at < end:
            key, at = _varint(data, at, end)
            number, kind = key >> 3, key & 7
            if message == "TensorProto" and number in (EXTERNAL_DATA, DATA_LOCATION):
                location, after = _varint(data, at, end)
                if number == EXTERNAL_DATA or location:
                    return True
                at = after
                continue
            if kind == _VARINT:
                _, at = _varint(data, at, end)
                continue
            length = {_FIXED64: 8, _FIXED32: 4}.get(kind, -1)
            if kind == _BYTES:
                length, at = _varint(data, at, end)
            if length < 0 or at + length > end:
                raise ValueError(f"it is no ONNX file: byte {at} does not fit the format")
            if kind == _BYTES and number in within:
                unread.append((within[number], at, at + length))
            at += length
    return False


def _varint(data: mmap.mmap, at: int, end: int) -> tuple[int, int]:
    """A number and the position after it."""
    value = 0
    for place in range(_VARINT_BYTES):
        if at >= end:
            break
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return value, at
    raise ValueError(f"it is no ONNX file: byte {at} does not fit the format")
