"""An earlier report: what its JSON document says of each study's best point, to compare with."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lrwd_sweep.errors import UsageError
from lrwd_sweep.science.trial import Direction


@dataclass(frozen=True, slots=True)
class EarlierBest:
    """A study's best point as an earlier report has it."""

    metric: str
    value: float | None  # seed mean; None when no point counted
    sem: float | None  # its standard error; None with fewer than two seeds
    direction: Direction = Direction.MINIMIZE  # which end of the metric was better


@dataclass(frozen=True, slots=True)
class EarlierReport:
    """What an earlier `report --format json` says, by study name."""

    source: str  # the file it was read from
    studies: Mapping[str, EarlierBest]


def read_earlier_report(path: Path) -> EarlierReport:
    """The report in a JSON file of schema_version 1. Raises UsageError naming the file and the remedy."""
    remedy = "name what report --format json wrote"
    try:
        document = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refused)
    except OSError as error:
        raise UsageError(f"--baseline {str(path)!r}: {error.strerror}; {remedy}") from None
    except (ValueError, RecursionError):
        raise UsageError(f"--baseline {str(path)!r} is not JSON; {remedy}") from None
    version = document.get("schema_version", 1) if isinstance(document, dict) else 1
    if version != 1:
        raise UsageError(
            f"--baseline {str(path)!r} has schema_version {version!r}, this program knows 1; write it again"
        )
    try:
        studies = {_text(study["study_name"]): _best(study) for study in document["studies"]}
    except (TypeError, KeyError, ValueError, OverflowError):
        raise UsageError(f"--baseline {str(path)!r} is no report; {remedy}") from None
    return EarlierReport(str(path), studies)


def _best(study: Mapping[str, Any]) -> EarlierBest:
    best, metric = study["best"], _text(study["metric"])
    direction = Direction(study.get("direction", Direction.MINIMIZE))
    if best is None:
        return EarlierBest(metric, None, None, direction)
    value, sem = _number(best["value"]), best["sem"]
    return EarlierBest(metric, value, None if sem is None else _number(sem), direction)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    return value


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise TypeError(value)
    return float(value)


def _refused(constant: str) -> None:
    raise ValueError(constant)  # JSON has no NaN and no Infinity
