"""Rates that differ by a rounding are one rate: 0.1 and 0.10000000149011612, which went through float32."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import groupby, pairwise

from lrwd_sweep.science.lattice import canonical
from lrwd_sweep.store.csv_text import some

FLOAT32 = 1e-6  # some float32 steps of 1.2e-7, relative
DIGITS = 4  # a value with at least as many digits can be another one's rounding; 0.1 is none of 0.12
NEAR = 0.02  # relative; no lattice is as fine, but float16, bfloat16 and two or three digits are as coarse


def equal_but_for_rounding(low: float, high: float) -> bool:
    """Whether two positive values are one in float32, or one is the other at its own 4 or more digits.

    >>> equal_but_for_rounding(0.1, 0.10000000149), equal_but_for_rounding(0.0003162, 0.000316227766)
    (True, True)
    >>> equal_but_for_rounding(0.1, 0.1001), equal_but_for_rounding(0.12, 0.123)
    (False, False)
    """
    return high - low <= FLOAT32 * high or _rounds_to(low, high) or _rounds_to(high, low)


def one_for_each(values: Iterable[float]) -> dict[float, float]:
    """The rate to read for each of the canonical `values` that is another one's rounding.

    Of a group it is the value that the others are roundings of, then the one that comes most often.
    """
    counts = Counter(value for value in values if value > 0)
    groups: list[list[float]] = []
    for value in sorted(counts):
        if groups and equal_but_for_rounding(groups[-1][-1], value):
            groups[-1].append(value)
        else:
            groups.append([value])
    return {
        value: kept
        for group in groups
        for kept in [min(group, key=lambda value: _rank(value, group, counts))]
        for value in group
        if value != kept
    }


def grouped(values: Iterable[float]) -> dict[float, float]:
    """For each positive value the least one that it is within `NEAR` of."""
    firsts: dict[float, float] = {}
    first = 0.0
    for value in sorted({value for value in values if value > 0}):
        if value > first * (1 + NEAR):
            first = value
        firsts[value] = first
    return firsts


def near_pairs(values: Iterable[float]) -> list[str]:
    """Neighbours that `grouped` takes together, in words."""
    return [
        f"{low!r} and {high!r}"
        for _, group in groupby(sorted(grouped(values).items()), key=lambda item: item[1])
        for (low, _), (high, _) in pairwise(group)
    ]


def told(axis: str, kept: Mapping[float, float]) -> str:
    """What was done to an axis, in words."""
    return f"{axis} equal but for rounding: " + some((f"{a!r} is read as {b!r}" for a, b in kept.items()), 3)


def _rounds_to(rough: float, exact: float) -> bool:
    digits = _digits(rough)
    return digits >= DIGITS and float(f"{exact:.{digits}g}") == rough


def _digits(value: float) -> int:
    return len(repr(value).partition("e")[0].replace(".", "").strip("0"))


def _float32(value: float) -> float:
    return canonical(struct.unpack("f", struct.pack("f", value))[0]) if value < 3e38 else value


def _rank(value: float, group: list[float], counts: Mapping[float, int]) -> tuple[bool, bool, int, int]:
    others = [other for other in group if other != value]
    return (
        any(value == _float32(other) for other in others),
        any(_rounds_to(value, other) for other in others),
        -counts[value],
        _digits(value),
    )
