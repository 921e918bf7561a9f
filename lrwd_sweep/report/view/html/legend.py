"""What colours and numbers of the lattices mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lrwd_sweep.report.result import Result
from lrwd_sweep.report.view.html.lattice import hexadecimal
from lrwd_sweep.report.view.legend import runs_of, seeds_of
from lrwd_sweep.report.view.notation import UNICODE
from lrwd_sweep.report.view.ramp import colour
from lrwd_sweep.report.view.scale import Numbers, Scale
from lrwd_sweep.science.trial import Direction

_RAMP = 17  # colours along the legend's ramp


def metrics_of(results: Sequence[Result]) -> list[str]:
    """The metrics that the results are in, each once."""
    return list(dict.fromkeys(result.surface.metric for result in results))


def scale_of(metric: str, results: Sequence[Result], *, ranked: bool = True) -> Scale | None:
    """The scale that all lattices of one metric share."""
    surfaces = [result.surface for result in results if result.surface.metric == metric]
    return Scale.of(surfaces, ranked=ranked)


def numbers_of(scale: Scale | None) -> Numbers | None:
    """How numbers on a scale are written."""
    return None if scale is None else Numbers.absolute(scale) or Numbers.relative(scale)


@dataclass(frozen=True, slots=True)
class Legend:
    """What colours and numbers mean for the studies of one metric."""

    metric: str
    seeds: str
    colours: tuple[str, ...]  # from the best to the dark end
    bright: str  # what stands at either end
    dark: str
    numbers: str
    partial: str  # how many of the runs are there, where some cells lack seeds

    @classmethod
    def of(cls, metric: str, results: Sequence[Result], *, ranked: bool = True) -> Legend:
        scale = scale_of(metric, results, ranked=ranked)
        numbers = numbers_of(scale)
        surfaces = [result.surface for result in results if result.surface.metric == metric]
        bright, dark = scale.ends if scale else ("", "")
        higher = ranked and surfaces[0].direction is Direction.MAXIMIZE
        return cls(
            metric,
            seeds_of(surfaces) + ", higher is better" * higher,
            tuple(hexadecimal(colour(1 - k / (_RAMP - 1))) for k in range(_RAMP)) if scale else (),
            bright,
            dark,
            numbers.meaning(metric, scale, UNICODE)
            if scale and numbers
            else f"{metric}: no cell has a value",
            runs_of(surfaces) if any(surface.partial.any() for surface in surfaces) else "",
        )
