"""Checksums of what the store holds, so that a damaged byte is told instead of read as another number.

A released checksum never changes: stores that hold it are read by every later version.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterable
from hashlib import blake2b

from lrwd_sweep.errors import StoreError

_WRAP = 1 << 64


class Unreadable(StoreError):
    """A study that this program cannot make sense of; the others can be read."""


class Damaged(StoreError):
    """Something stored is not what was written; its text names what and the remedy."""


def checksum(numbers: bytes, *texts: bytes) -> int:
    """64 bits of BLAKE2b over packed numbers and texts, each with its length, as SQLite's signed integer."""
    whole = b"".join((struct.pack(f"<{len(texts)}q", *map(len, texts)), numbers, *texts))
    return int.from_bytes(blake2b(whole, digest_size=8).digest(), "little", signed=True)


def of_study(key: int, lanes: int, lanes_checksum: int, *texts: bytes) -> int:
    """The checksum of a row of `studies`; the texts are name, spec, created and version."""
    return checksum(struct.pack("<3q", key, lanes, lanes_checksum), *texts)


def of_trial(
    key: int, study: int, lr: float, weight_decay: float, seed: int, curves_checksum: int, *texts: bytes
) -> int:
    """The checksum of a row of `trials`; the texts are status, metrics, detail and snapshots."""
    numbers = struct.pack("<2q2d2q", key, study, lr, weight_decay, seed, curves_checksum)
    return checksum(numbers, *texts)


def of_curves(curves: Iterable[tuple[bytes, bytes]]) -> int:
    """The checksum of a trial's curves, each a name and its values, in the order of their names."""
    return checksum(b"", *itertools.chain.from_iterable(sorted(curves)))


def of_comparison(key: int, names: bytes) -> int:
    """The checksum of a row of `comparisons`."""
    return checksum(struct.pack("<q", key), names)


def total(checksums: Iterable[int]) -> int:
    """The sum of a study's trial checksums, wrapped to 64 bits: their order makes no difference."""
    return (sum(checksums) + _WRAP // 2) % _WRAP - _WRAP // 2
