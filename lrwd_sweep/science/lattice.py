"""The lattice: log-spaced values of the learning rate α and the weight decay λ, and their product.

A value's identity is its 12 significant digits: a lattice written as powers of two, as a range or as a list
of decimals has the same cells.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

from lrwd_sweep.errors import UsageError, arg, brief, shown

MAX_COUNT = 10_000  # values of one range
FIRST_SEEDS = 2  # of a refined lattice, in its coarse part


def canonical(value: float) -> float:
    """Round to the 12 significant digits that are a cell's identity.

    >>> canonical(0.1 + 0.2)
    0.3
    """
    return float(f"{value:.12g}") + 0.0  # −0 is 0


@dataclass(frozen=True, slots=True, order=True)
class Cell:
    """One (α, λ) point, canonical in both values."""

    lr: float
    weight_decay: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "lr", canonical(self.lr))
        object.__setattr__(self, "weight_decay", canonical(self.weight_decay))


@dataclass(frozen=True, slots=True)
class Lattice:
    """The product of two axes, each ascending and canonical; λ may begin with 0, the baseline column."""

    lr: tuple[float, ...]  # (I,)
    weight_decay: tuple[float, ...]  # (J,)

    def __post_init__(self) -> None:
        for name in ("lr", "weight_decay"):
            values = getattr(self, name)
            object.__setattr__(self, name, tuple(sorted({canonical(value) for value in values})))

    def cells(self) -> Iterator[Cell]:
        """Yield all I·J cells, row by row (α outside, λ inside)."""
        return (Cell(lr, weight_decay) for lr in self.lr for weight_decay in self.weight_decay)

    def __len__(self) -> int:
        return len(self.lr) * len(self.weight_decay)

    def union(self, other: Lattice) -> Lattice:
        """Return the smallest lattice with the cells of both."""
        return Lattice(self.lr + other.lr, self.weight_decay + other.weight_decay)


def coarse_indices(count: int) -> list[int]:
    """Return every second index below `count`, and the last.

    >>> coarse_indices(5), coarse_indices(6)
    ([0, 2, 4], [0, 2, 4, 5])
    """
    return sorted({*range(0, count, 2), *range(count - 1, count)} - {-1})


def coarse_count(lattice: Lattice) -> int:
    """Count the cells of the coarse lattice: every second α and λ > 0, with the ends, and λ = 0."""
    zero = lattice.weight_decay.count(0)
    columns = len(coarse_indices(len(lattice.weight_decay) - zero)) + zero
    return len(coarse_indices(len(lattice.lr))) * columns


class Timescales(tuple[float, ...]):
    """A decay axis given in averaging times τ = 1/λ, as shares of the run, ascending.

    A leading 0 is the baseline λ = 0, whose τ is infinite.
    """

    def decays(self, unit: float) -> tuple[float, ...]:
        """Return the numbers on the decay axis, ascending; `unit` is the τ of the number 1.

        >>> Timescales((0.0, 0.5, 5.0)).decays(1e-3)
        (0.0, 0.0002, 0.002)
        """
        return tuple(sorted(canonical(unit / tau) if tau else 0.0 for tau in self))


_POWER = re.compile(r"2\^([+-]?\d+(?:\.\d+)?)\Z")
_OR_RANGE = ", or a range as 2^-8:2^-4"
_TAU = re.compile(r"(0,)?(?:tau|τ):(.*)", re.DOTALL)


def plain_float(text: str) -> float:
    """Read a plain number: float() also reads "1_0", digits of any script, and 1e-400 as 0.

    Raises ValueError.
    """
    value = float(text) if text.isascii() and "_" not in text else float("")
    if value == 0 and any(digit in "123456789" for digit in text.lower().partition("e")[0]):
        raise ValueError(f"{shown(text)} is too small")
    return value


def parse_value(text: str, axis: str, further: str = "") -> float:
    """Read one value as an axis writes it, `1e-3` or `2^-7.5`. Raises UsageError that names `axis`.

    `further` is what else may stand in its place.
    """
    power = _POWER.match(text)
    try:
        value = 2.0 ** float(power[1]) if power else plain_float(text)
    except (ValueError, OverflowError):
        raise UsageError(
            f"{arg(axis, text)} is not a number; write 1e-3, 0.01 or a power of two such as 2^-7.5{further}"
        ) from None
    if not math.isfinite(value) or value < 0 or (value == 0 and (axis == "lr" or power)):
        remedy = "use values above 0" + (
            "" if axis == "lr" else "; 0 itself may stand in a list as a baseline"
        )
        raise UsageError(f"{arg(axis, text)} is not a positive number; {remedy}")
    return value


def _range(text: str, axis: str) -> list[float]:
    parts = text.split(":")
    if len(parts) not in (2, 3):
        raise UsageError(f"{arg(axis, text)} has too many ':'; write LOW:HIGH or LOW:HIGH:COUNT")
    low, high = parse_value(parts[0], axis), parse_value(parts[1], axis)
    if low == 0:
        raise UsageError(f"{arg(axis, text)} starts at 0, where a log axis has no step; write 0,LOW:HIGH")
    if low >= high:
        raise UsageError(f"{arg(axis, text)} is empty or reversed; write the smaller value first")
    start, stop = math.log2(low), math.log2(high)
    if len(parts) == 3:
        if not parts[2].isdecimal() or float(parts[2]) < 2:
            raise UsageError(
                f"{arg(axis, text)}: the count {shown(parts[2])} is not a whole number of at least 2"
            )
        if float(parts[2]) > MAX_COUNT:
            raise UsageError(
                f"{arg(axis, text)}: the count {brief(parts[2])} is too large; choose at most {MAX_COUNT}"
            )
        count = int(parts[2])
    else:
        if not all(_POWER.match(part) for part in parts[:2]):
            raise UsageError(
                f"{arg(axis, text)} has no count; write {text}:9 for nine log-spaced values, or powers of two"
            )
        octaves = round(stop - start)
        if abs(stop - start - octaves) > 1e-9:
            raise UsageError(
                f"{arg(axis, text)} is not a whole number of octaves; give a count as in {text}:9"
            )
        count = octaves + 1
    # The fraction comes first, so that a finer range rounds to the very same values where it meets this one.
    return [2.0 ** (start + (stop - start) * (k / (count - 1))) for k in range(count)]


def parse_axis(text: str, axis: str) -> tuple[float, ...]:
    """Read an axis, ascending: `2^-12:2^-2`, `1e-4:1e-1:9`, `0,1e-4,2^-3:2^1`.

    Messages name `axis`, "lr" or "weight_decay"; only the latter may have 0. Raises UsageError for an
    empty, reversed, duplicated or non-positive axis. `tau:0.05:5:7` gives the latter in averaging times.

    >>> parse_axis("2^-3:2^-1", "lr")
    (0.125, 0.25, 0.5)
    """
    if axis == "weight_decay" and (found := _TAU.match(text.strip())):
        times = _listed(found[2], axis)
        if times[0] == 0:
            raise UsageError(
                f"{arg(axis, text)}: τ = 0 is no time; write 0,tau:… for a baseline without decay"
            )
        return Timescales((0.0,) * bool(found[1]) + times)
    return _listed(text, axis)


def _listed(text: str, axis: str) -> tuple[float, ...]:
    """Read values and ranges with commas between them."""
    items = [item.strip() for item in text.split(",")]
    if not text.strip() or not all(items):
        raise UsageError(f"{arg(axis, text)} has an empty value; write for example 2^-12:2^-2 or 1e-4,1e-3")
    values = [
        canonical(value)
        for item in items
        for value in (_range(item, axis) if ":" in item else [parse_value(item, axis, _OR_RANGE)])
    ]
    if duplicates := sorted({value for value in values if values.count(value) > 1}):
        raise UsageError(f"{arg(axis, text)} names {duplicates[0]:g} twice; leave one out")
    if len(items) > 1 and values != sorted(values):
        raise UsageError(f"{arg(axis, text)} is reversed or unordered; write the smaller value first")
    return tuple(values)


def format_value(value: float) -> str:
    """Write a power of two, half powers included, as one, and other values as short decimals.

    >>> format_value(2 ** -7.5), format_value(0.001), format_value(0.0)
    ('2^-7.5', '0.001', '0')
    """
    if value > 0:
        power = round(2 * math.log2(value)) / 2
        if power < 1024 and canonical(2.0**power) == canonical(value):
            return f"2^{power:g}"
    return f"{value:.12g}"


def format_axis(values: tuple[float, ...]) -> str:
    """Write an axis as `parse_axis` reads it, as a range if possible.

    >>> format_axis((0.125, 0.25, 0.5))
    '2^-3:2^-1'
    """
    zero, positive = [v for v in values if v == 0], [v for v in values if v > 0]
    text = ",".join(format_value(value) for value in positive)
    if len(positive) > 2:
        low, high = format_value(positive[0]), format_value(positive[-1])
        for shorthand in (f"{low}:{high}", f"{low}:{high}:{len(positive)}"):
            try:
                if parse_axis(shorthand, "weight_decay") == tuple(positive):
                    text = shorthand
                    break
            except UsageError:
                continue
    return ",".join(["0"] * len(zero) + [text] * bool(positive))
