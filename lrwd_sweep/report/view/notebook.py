"""Studies in a notebook: a piece of HTML that runs nothing, loads nothing and styles itself alone.

Its ink is the notebook's own, so that it reads on light ground and on dark.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from lrwd_sweep.report.recommend import Recommendations, recommendations
from lrwd_sweep.report.result import ComparedResults, Result
from lrwd_sweep.report.view.fields import estimate_text, task_text, title
from lrwd_sweep.report.view.html.lattice import Drawing
from lrwd_sweep.report.view.html.legend import Legend, metrics_of, numbers_of, scale_of
from lrwd_sweep.report.view.html.page import environment
from lrwd_sweep.report.view.recommended import headline, snippet


def fragment(results: Sequence[Result], comparisons: Sequence[ComparedResults] = ()) -> str:
    """The lattices side by side on one scale, each with its verdict, its values and lines to paste.

    The same input gives the same text.
    """
    scales = {metric: scale_of(metric, results) for metric in metrics_of(results)}
    return (
        environment()
        .get_template("notebook.html")
        .render(
            verdicts=[compared.comparison.verdict for compared in comparisons],
            legends=[Legend.of(metric, results) for metric in scales],
            name=_name(results),
            studies=[
                _Study(
                    result,
                    title(result, results),
                    Drawing.of(result, scale := scales[result.surface.metric], numbers_of(scale)),
                    recommendations(result, results),
                )
                for result in results
            ],
        )
    )


def _name(results: Sequence[Result]) -> str:
    """What sets the ids of this piece apart from those of others on the same page."""
    named = "\n".join(f"{result.name}\n{result.created}" for result in results)
    return hashlib.sha256(named.encode(errors="surrogatepass")).hexdigest()[:8]


@dataclass(frozen=True, slots=True)
class _Study:
    """One study's part."""

    result: Result
    title: str
    drawing: Drawing
    found: Recommendations

    @property
    def task(self) -> str:
        """What was trained, and how far it is."""
        return task_text(self.result)

    @property
    def verdict(self) -> str:
        """The answer, with the number that it rests on."""
        found = self.result.separability
        return f"{found.verdict}; ridge slope s = {estimate_text(found.ridge_slope)}"

    @property
    def headlines(self) -> list[str]:
        """The cells worth using."""
        return [headline(self.result, cell) for cell in self.found.cells]

    @property
    def snippet(self) -> str:
        """The same as Python."""
        return snippet(self.result, self.found)
