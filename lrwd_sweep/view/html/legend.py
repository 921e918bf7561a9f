"""What colours and numbers of the lattices mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lrwd_sweep.result import Result
from lrwd_sweep.view.html.lattice import hexadecimal
from lrwd_sweep.view.notation import UNICODE
from lrwd_sweep.view.ramp import colour
from lrwd_sweep.view.scale import Numbers, Scale

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
    low: str
    high: str
    clipped: bool
    numbers: str

    @classmethod
    def of(cls, metric: str, results: Sequence[Result], *, ranked: bool = True) -> Legend:
        scale = scale_of(metric, results, ranked=ranked)
        numbers = numbers_of(scale)
        counts = sorted({len(r.surface.seeds) for r in results if r.surface.metric == metric})
        return cls(
            metric,
            "one seed" if counts == [1] else f"mean of {' or '.join(map(str, counts))} seeds",
            tuple(hexadecimal(colour(1 - k / (_RAMP - 1))) for k in range(_RAMP)) if scale else (),
            scale.written(scale.low) if scale else "",
            scale.written(scale.high) if scale else "",
            bool(scale and scale.clipped),
            numbers.meaning(metric, scale, UNICODE)
            if scale and numbers
            else f"{metric}: no cell has a value",
        )
