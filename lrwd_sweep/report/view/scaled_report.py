"""The report of studies along a scale for a terminal: the lattices, the best values, and published rules."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from lrwd_sweep.report.scaled import Scaled
from lrwd_sweep.report.view.heatmap import Gallery, Heatmap
from lrwd_sweep.report.view.notation import styled
from lrwd_sweep.report.view.terminal import table

LAW = "exponent e: y ∝ {}^e"
WORDS = "brackets: 90 % interval from resampling seeds; supported: the interval lies within ±0.25 of the rule"


@dataclass(frozen=True, slots=True, eq=False)
class ScaledReport:
    """Lattices side by side, a table of what moves, and a table of rules; the cost is the last line."""

    scaled: Scaled

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        scaled, ascii_only = self.scaled, options.ascii_only
        labels = [scaled.over.label(value) for value in scaled.over.values]
        yield Gallery(
            [
                Heatmap(result.surface, label, result.spec.formula, result.separability)
                for label, result in zip(labels, scaled.results, strict=True)
            ]
        )
        yield Text()
        optimizer = str(scaled.results[0].spec.optimizer)
        heading = LAW.format(scaled.over.axis)
        yield table(optimizer, [*labels, heading], scaled.optimum_rows(), ascii_only)
        head = ["its exponent of λ", "measured", f"its cost from {labels[0]} to {labels[-1]}"]
        yield table("rule", head, scaled.rule_rows(), ascii_only)
        if scaled.found.rules:
            yield styled(scaled.sources(), ascii_only)
        yield styled(WORDS, ascii_only)
        yield styled(scaled.sentence(), ascii_only, "bold")
