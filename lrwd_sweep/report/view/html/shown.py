"""Further pictures of a page: lattices and charts of what the report was asked to show."""

from __future__ import annotations

from dataclasses import dataclass, replace

from lrwd_sweep.report.result import Result
from lrwd_sweep.report.view.chart import MARKS
from lrwd_sweep.report.view.html.lattice import Drawing
from lrwd_sweep.report.view.html.legend import Legend, metrics_of, numbers_of, scale_of
from lrwd_sweep.report.view.pictures import Picture
from lrwd_sweep.report.view.range import SIZE


@dataclass(frozen=True, slots=True)
class ShownLattice:
    """One study's lattice in a further quantity."""

    result: Result  # with the quantity's surface
    title: str
    drawing: Drawing


@dataclass(frozen=True, slots=True)
class Shown:
    """A further picture's section."""

    picture: Picture
    legends: list[Legend]
    lattices: list[ShownLattice]
    marks: str = MARKS
    size: int = SIZE

    @classmethod
    def of(cls, picture: Picture) -> Shown:
        """Lay its lattices out on a scale that they share."""
        ranked = all(heatmap.ranked for _, heatmap in picture.heatmaps)
        results = [
            replace(result, surface=heatmap.surface, separability=heatmap.separability or result.separability)
            for result, heatmap in picture.heatmaps
        ]
        metrics = metrics_of(results)
        scales = {metric: scale_of(metric, results, ranked=ranked) for metric in metrics}
        return cls(
            picture,
            [Legend.of(metric, results, ranked=ranked) for metric in metrics],
            [
                ShownLattice(
                    result,
                    heatmap.title,
                    Drawing.of(
                        result, scale := scales[result.surface.metric], numbers_of(scale), ranked=ranked
                    ),
                )
                for result, (_, heatmap) in zip(results, picture.heatmaps, strict=True)
            ],
        )
