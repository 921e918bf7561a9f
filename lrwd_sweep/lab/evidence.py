"""Evidence: what was shown in numbers, how closely, and how closely it had to be."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Relation(StrEnum):
    """How the two things that a check compares must stand to each other."""

    AGREE = "agree"  # error ≤ bound
    DIFFER = "differ"  # error ≥ bound: what is claimed to be no equality is none


@dataclass(frozen=True, slots=True)
class Check:
    """Two computations compared; `error` is their largest difference, relative to the largest value."""

    cells: tuple[str, ...]  # what was compared, under its section's headings
    error: float  # NaN or infinite where a computation left the numbers: then nothing is shown
    bound: float
    relation: Relation = Relation.AGREE
    why: str = ""  # why the two differ

    @property
    def passed(self) -> bool:
        """Whether the relation holds.

        >>> Check(("1 = 2",), error=1.0, bound=1e-10).passed
        False
        """
        if self.relation is Relation.AGREE:
            return self.error <= self.bound
        return self.bound <= self.error < math.inf

    @property
    def complaint(self) -> str:
        """What is wrong with a check that does not hold."""
        if self.relation is Relation.AGREE:
            return f"the error is {self.error:.1e}, above {self.bound:.0e}"
        return f"the difference is {self.error:.1e}, below {self.bound:.0e}: there should be one"

    @property
    def digits(self) -> float:
        """Decimal digits to which the two agree; infinite where they are equal.

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
    notes: tuple[str, ...] = ()  # what there was nothing to compare with, and why

    @property
    def failures(self) -> list[str]:
        """One line for each check that does not hold."""
        return [
            f"{self.title}: {', '.join(check.cells)}: {check.complaint}"
            for check in self.checks
            if not check.passed
        ]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; an error that is no number is null."""
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
