"""The tables: what a study is, what its lanes gave, and what was asked for last."""

from __future__ import annotations

from typing import Any, ClassVar

from sqlalchemy import JSON, BigInteger, CheckConstraint, Double, ForeignKey, UniqueConstraint, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    """All tables of the newest schema version; `migrations` creates them."""

    type_annotation_map: ClassVar[dict[Any, Any]] = {
        float: Double,
        dict[str, Any]: JSON,
        dict[str, float]: JSON,
        list[str]: JSON,
    }


def _checksum() -> Mapped[int]:
    return mapped_column(BigInteger, server_default=text("0"))  # 0: not written by this program


class StudyRow(Base):
    """One study with its complete specification."""

    __tablename__ = "studies"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    spec: Mapped[dict[str, Any]]  # StudySpec.to_dict()
    created: Mapped[str]  # ISO 8601, UTC
    version: Mapped[str] = mapped_column(server_default="")  # of lrwd-sweep, which began it; "" before 3
    lanes: Mapped[int] = mapped_column(server_default=text("0"))  # how many trials there are
    lanes_checksum: Mapped[int] = _checksum()  # the sum of theirs
    checksum: Mapped[int] = _checksum()


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
    curves_checksum: Mapped[int] = _checksum()
    checksum: Mapped[int] = _checksum()


class CurveRow(Base):
    """One learning curve of one trial."""

    __tablename__ = "curves"

    trial_id: Mapped[int] = mapped_column(ForeignKey("trials.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    values: Mapped[bytes]  # float64, little-endian, one per epoch: holds float32 and float64 without loss


class ComparisonRow(Base):
    """The studies that one command worked on together (one name for a study alone), newest last."""

    __tablename__ = "comparisons"

    id: Mapped[int] = mapped_column(primary_key=True)
    names: Mapped[list[str]]
    checksum: Mapped[int] = _checksum()
