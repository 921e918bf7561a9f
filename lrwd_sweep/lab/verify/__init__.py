"""Numeric demonstrations of the papers' propositions and of each update rule: checks with error and bound."""

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Relation(StrEnum):
    """Required relation of the two results that a check compares."""

    AGREE = "agree"  # error ≤ bound
    DIFFER = "differ"  # error ≥ bound: the claim is that they are not equal


@dataclass(frozen=True, slots=True)
class Check:
    """Two computations compared; `error` is their largest difference, relative to the largest value."""

    cells: tuple[str, ...]  # the compared things, under the section's headings
    error: float  # NaN or infinite if a computation overflowed: the check fails
    bound: float
    why: str = ""  # why the two must differ; empty: they must agree

    @property
    def relation(self) -> Relation:
        """Return the required relation."""
        return Relation.DIFFER if self.why else Relation.AGREE

    @property
    def passed(self) -> bool:
        """Return True if the relation holds.

        >>> Check(("1 = 2",), error=1.0, bound=1e-10).passed
        False
        """
        if self.relation is Relation.AGREE:
            return self.error <= self.bound
        return self.bound <= self.error < math.inf

    @property
    def complaint(self) -> str:
        """Explain a failed check."""
        if self.relation is Relation.AGREE:
            return f"the error is {self.error:.1e}, above {self.bound:.0e}"
        return f"the difference is {self.error:.1e}, below {self.bound:.0e}: there should be one"

    @property
    def digits(self) -> float:
        """Return the decimal digits to which the two agree; infinite if they are equal.

        >>> Check(("π = 22/7",), error=4e-4, bound=1e-3).digits
        3.4
        """
        if not math.isfinite(self.error):
            return 0.0
        return round(max(0.0, -math.log10(self.error)), 1) if self.error else math.inf


@dataclass(frozen=True, slots=True)
class Section:
    """Checks of one kind, as a table."""

    title: str
    headings: tuple[str, ...]
    checks: tuple[Check, ...]
    notes: tuple[str, ...] = ()  # missing comparisons, and why

    @property
    def failures(self) -> list[str]:
        """Return one line for each failed check."""
        return [
            f"{self.title}: {', '.join(check.cells)}: {check.complaint}"
            for check in self.checks
            if not check.passed
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON document; a NaN or infinite error is null."""
        return {
            "title": self.title,
            "checks": [
                {
                    "about": dict(zip(self.headings, check.cells, strict=True)),
                    "relation": str(check.relation),
                    "why": check.why,
                    "error": check.error if math.isfinite(check.error) else None,
                    "bound": check.bound,
                    "passed": check.passed,
                }
                for check in self.checks
            ],
            "notes": list(self.notes),
        }
