"""The tables, and the checksums by which a damaged row is noticed.

A released checksum never changes: later versions read the stores that hold it.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterable
from hashlib import blake2b
from typing import Any, ClassVar

from sqlalchemy import JSON, BigInteger, CheckConstraint, Double, ForeignKey, UniqueConstraint, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from lrwd_sweep.errors import StoreError

_WRAP = 1 << 64


class Base(DeclarativeBase):
    """All tables of the newest schema version; `migrations` creates them."""

    type_annotation_map: ClassVar[dict[Any, Any]] = {
        float: Double,
        dict[str, Any]: JSON,
        dict[str, float]: JSON,
        list[str]: JSON,
    }


def _checksum_column() -> Mapped[int]:
    return mapped_column(BigInteger, server_default=text("0"))  # 0: written by another program


class StudyRow(Base):
    """A study with its complete specification."""

    __tablename__ = "studies"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    spec: Mapped[dict[str, Any]]  # StudySpec.to_dict()
    created: Mapped[str]  # ISO 8601, UTC
    version: Mapped[str] = mapped_column(server_default="")  # lrwd-sweep that created it; "" before schema 3
    lanes: Mapped[int] = mapped_column(server_default=text("0"))  # number of its trials
    lanes_checksum: Mapped[int] = _checksum_column()  # sum of the checksums of its trials
    checksum: Mapped[int] = _checksum_column()


class TrialRow(Base):
    """The outcome of one lane; α and λ are canonical doubles, which SQLite keeps and compares bit by bit."""

    __tablename__ = "trials"
    __table_args__ = (
        UniqueConstraint("study_id", "lr", "weight_decay", "seed", name="one_trial_per_lane"),
        CheckConstraint("lr > 0", name="positive_lr"),
        CheckConstraint("weight_decay >= 0", name="no_negative_weight_decay"),
        CheckConstraint("status IN ('complete', 'diverged', 'failed')", name="known_status"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)  # ascending in the order of storing
    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id", ondelete="CASCADE"))
    lr: Mapped[float]
    weight_decay: Mapped[float]
    seed: Mapped[int]
    status: Mapped[str]
    metrics: Mapped[dict[str, float]]
    detail: Mapped[str]
    snapshots: Mapped[dict[str, Any]] = mapped_column(server_default="{}")  # metrics by epoch
    curves_checksum: Mapped[int] = _checksum_column()
    checksum: Mapped[int] = _checksum_column()


class CurveRow(Base):
    """A learning curve of a trial."""

    __tablename__ = "curves"

    trial_id: Mapped[int] = mapped_column(ForeignKey("trials.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    values: Mapped[bytes]  # float64, little-endian, one per epoch: holds float32 and float64 without loss


class ComparisonRow(Base):
    """The studies that one command worked on together (one name for a single study), newest last."""

    __tablename__ = "comparisons"

    id: Mapped[int] = mapped_column(primary_key=True)
    names: Mapped[list[str]]
    checksum: Mapped[int] = _checksum_column()


class DriverRow(Base):
    """The process that trains a study; it has no checksum, as no result depends on it."""

    __tablename__ = "drivers"

    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id", ondelete="CASCADE"), primary_key=True)
    host: Mapped[str]
    pid: Mapped[int]
    boot: Mapped[str]
    started: Mapped[int] = mapped_column(BigInteger)
    since: Mapped[str]  # ISO 8601, UTC
    seen: Mapped[float]  # Unix time


class Unreadable(StoreError):
    """A study that this version cannot interpret; other studies can be read."""


class Damaged(StoreError):
    """A stored value that differs from what was written; the text names it and the remedy."""


def study_checksum(key: int, lanes: int, lanes_checksum: int, *texts: bytes) -> int:
    """Return the checksum of a row of `studies`; the texts are name, spec, created and version."""
    return _checksum(struct.pack("<3q", key, lanes, lanes_checksum), *texts)


def trial_checksum(
    key: int, study: int, lr: float, weight_decay: float, seed: int, curves: int, *texts: bytes
) -> int:
    """Return the checksum of a row of `trials`; the texts are status, metrics, detail and snapshots."""
    return _checksum(struct.pack("<2q2d2q", key, study, lr, weight_decay, seed, curves), *texts)


def curves_checksum(curves: Iterable[tuple[bytes, bytes]]) -> int:
    """Return the checksum of a trial's curves, each a name and its values, in the order of their names."""
    return _checksum(b"", *itertools.chain.from_iterable(sorted(curves)))


def comparison_checksum(key: int, names: bytes) -> int:
    """Return the checksum of a row of `comparisons`."""
    return _checksum(struct.pack("<q", key), names)


def checksum_sum(checksums: Iterable[int]) -> int:
    """Add a study's trial checksums modulo 2⁶⁴, so that their order does not matter."""
    return (sum(checksums) + _WRAP // 2) % _WRAP - _WRAP // 2


def _checksum(numbers: bytes, *texts: bytes) -> int:
    """Return 64 bits of BLAKE2b over packed numbers and texts, each with its length, as a signed integer."""
    whole = b"".join((struct.pack(f"<{len(texts)}q", *map(len, texts)), numbers, *texts))
    return int.from_bytes(blake2b(whole, digest_size=8).digest(), "little", signed=True)
