"""Scalars of TensorBoard event files: TFRecords of protobuf messages, read without TensorBoard."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def read_events(path: str) -> Iterator[dict[str, float]]:
    """Yield the scalars of a TensorBoard event file; a record that is being written ends it."""
    data, at = Path(path).read_bytes(), 0
    while at + 12 <= len(data):
        (size,) = struct.unpack_from("<Q", data, at)
        if at + 12 + size > len(data):
            return
        event = dict(_fields(data[at + 12 : at + 12 + size]))
        at += size + 16  # the length, its checksum, and the checksum of the message
        for number, value in _fields(event.get(5, b"")):  # Summary
            if number == 1 and isinstance(value, bytes) and (found := _scalar(value)) is not None:
                yield {"step": float(event.get(2, 0)), found[0]: found[1]}


def _scalar(message: bytes) -> tuple[str, float] | None:
    """Read a Summary.Value: its tag, and simple_value or a tensor of one float."""
    parts: dict[int, Any] = dict(_fields(message))
    tag = parts.get(1, b"").decode(errors="replace")
    if len(parts.get(2, b"")) == 4:
        return tag, struct.unpack("<f", parts[2])[0]
    tensor: dict[int, Any] = dict(_fields(parts.get(8, b"")))
    content = tensor.get(5) or tensor.get(4) or b""  # float_val, tensor_content
    return (tag, struct.unpack("<f", content)[0]) if tensor.get(1) == 1 and len(content) == 4 else None


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """Yield the fields of a protobuf message: its number, and an int or the bytes."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        if key & 7 == 0:
            value, at = _varint(message, at)
            yield key >> 3, value
            continue
        size = {1: 8, 5: 4}.get(key & 7)
        if size is None:
            size, at = _varint(message, at)
        yield key >> 3, message[at : at + size]
        at += size


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
