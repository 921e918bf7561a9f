"""Rates that are equal but for rounding, and rates that are nearly equal."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterable, Mapping

from lrwd_sweep.science.lattice import canonical

FLOAT32 = 1e-6  # relative: a few float32 steps of 1.2e-7
DIGITS = 4  # a value with at least as many digits can be the rounding of another; 0.1 is not that of 0.12
NEAR = 0.02  # relative: finer than any lattice, as coarse as float16, bfloat16 and two or three digits
DERIVED = 1e-3  # relative: the rounding of a product or quotient of two rates of four or more digits


def equal_but_for_rounding(low: float, high: float) -> bool:
    """Return whether two positive values are one in float32, or one is the other at its own 4+ digits.

    >>> equal_but_for_rounding(0.1, 0.10000000149), equal_but_for_rounding(0.0003162, 0.000316227766)
    (True, True)
    >>> equal_but_for_rounding(0.1, 0.1001), equal_but_for_rounding(0.12, 0.123)
    (False, False)
    """
    return high - low <= FLOAT32 * high or _rounds_to(low, high) or _rounds_to(high, low)


def merged_rates(values: Iterable[float]) -> dict[float, float]:
    """Return the rate to read for each canonical value that is a rounding of another.

    Of a group, keep the value that the others are roundings of, else the most frequent one.
    """
    counts = Counter(value for value in values if value > 0)
    groups: list[list[float]] = []
    for value in sorted(counts):
        if groups and equal_but_for_rounding(groups[-1][-1], value):
            groups[-1].append(value)
        else:
            groups.append([value])
    kept = {value: min(group, key=lambda v: _rank(v, group, counts)) for group in groups for value in group}
    return {value: other for value, other in kept.items() if value != other}


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


def near_groups(values: Iterable[float], tolerance: float = NEAR) -> dict[float, float]:
    """Map each value to the least one that it is within a relative tolerance of."""
    groups: dict[float, float] = {}
    first = -1.0
    for value in sorted({*values}):
        if value > first * (1 + tolerance):
            first = value
        groups[value] = first
    return groups
