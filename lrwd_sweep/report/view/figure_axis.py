"""A log axis of a figure: where its cells lie and what its ticks say."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from lrwd_sweep.report.view.notation import short_decimal
from lrwd_sweep.science.lattice import format_value
from lrwd_sweep.science.surface import Float

_MOST_LABELS = 12  # along one axis
_GAP = 0.4  # steps that set the λ = 0 column apart


@dataclass(frozen=True, slots=True, eq=False)
class LogAxis:
    """An axis in log2 of its values; 0 lies apart, below the others."""

    values: Float  # (n,) ascending
    places: Float  # (n,) centres of the cells
    edges: Float  # of the cells of positive values

    @classmethod
    def of(cls, values: Float) -> LogAxis:
        """Edges lie half-way between neighbours, and as far beyond the ends."""
        logs = np.log2(values[values > 0])
        middles = (logs[1:] + logs[:-1]) / 2
        first, last = (middles[0], middles[-1]) if len(middles) else (logs[0] - 0.5, logs[0] + 0.5)
        edges = np.concatenate([[2 * logs[0] - first], middles, [2 * logs[-1] - last]])
        if values[0] > 0:
            return cls(values, logs, edges)
        apart = edges[0] - (_GAP + 0.5) * (edges[1] - edges[0])
        return cls(values, np.concatenate([[apart], logs]), edges)

    @property
    def zeros(self) -> int:
        """Whether the axis begins with 0, as a count."""
        return int(self.values[0] == 0)

    @property
    def zero_edges(self) -> Float:
        """The edges of the column at 0."""
        half = (self.edges[1] - self.edges[0]) / 2
        return np.array([self.places[0] - half, self.places[0] + half])

    def ticks(self, most: int = _MOST_LABELS) -> tuple[list[float], list[str]]:
        """Places and labels, at most about `most`: powers of two or of ten where it has them, else values."""
        positive = [float(value) for value in self.values if value > 0]
        names = [format_value(value) for value in positive]
        low, high = math.ceil(math.log10(positive[0]) - 1e-9), math.floor(math.log10(positive[-1]) + 1e-9)
        if all(name.startswith("2^") for name in names):
            found = [(math.log2(v), f"$2^{{{n[2:]}}}$") for v, n in zip(positive, names, strict=True)]
        elif high > low:
            found = [(math.log2(10) * power, f"$10^{{{power}}}$") for power in range(low, high + 1)]
        else:
            found = [(math.log2(value), short_decimal(value)) for value in positive]
        found = found[:: math.ceil(len(found) / most)]
        found = [(float(self.places[0]), "0")] * self.zeros + found
        return [place for place, _ in found], [label for _, label in found]
