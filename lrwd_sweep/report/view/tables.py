"""The report for a terminal: heatmaps, verdict and tables, in the characters that the console can write."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from lrwd_sweep.report.recommend import recommendations
from lrwd_sweep.report.result import ComparedResults, Result
from lrwd_sweep.report.view.fields import (
    Row,
    best_rows,
    candidate_rows,
    comparison_rows,
    separability_rows,
    task_text,
    tensors,
    title,
)
from lrwd_sweep.report.view.heatmap import Gallery, Heatmap
from lrwd_sweep.report.view.notation import ascii_formula, to_ascii
from lrwd_sweep.report.view.plain import plain
from lrwd_sweep.report.view.recommended import Recipes
from lrwd_sweep.spec.study import Kind

_LABEL = 28  # characters that the first column takes
_READABLE = 17  # characters that a study's column should have


@dataclass(frozen=True, slots=True, eq=False)
class Report:
    """Studies and their comparisons, to be printed."""

    results: Sequence[Result]
    comparisons: Sequence[ComparedResults] = ()
    full: bool = False  # with the parameters that decay

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        ascii_only = options.ascii_only
        yield from _galleries(self.results)
        for compared in self.comparisons:
            yield Text()
            yield _text(_verdict(compared, ascii_only), ascii_only, style="bold")
        titles = [title(result, self.results) for result in self.results]
        yield Text()
        for name, result in zip(titles, self.results, strict=True):
            yield _text(f"{name}: {task_text(result)}", ascii_only)
            if plain(result.name) != name:
                yield _text(f"  study {plain(result.name)}", ascii_only)
            if self.full:
                yield _text(f"  {tensors(result)}", ascii_only)
        for corner, rows in (
            ("best cell", best_rows(self.results)),
            ("separability", separability_rows(self.results)),
        ):
            for some, part in _side_by_side(titles, list(rows), options.max_width):
                yield table(corner, some, part, ascii_only)
        for compared in self.comparisons:
            pair = [title(compared.a, self.results), title(compared.b, self.results)]
            heading = f"{pair[1]} against {pair[0]}"
            yield table("paired, by seed", [heading], comparison_rows(compared), ascii_only)
        for name, result in zip(titles, self.results, strict=True):
            if result.spec.kind is Kind.TPE:
                headings = ["learning rate α", "weight decay", plain(result.surface.metric), "test split"]
                yield table(f"best of {name}", headings, candidate_rows(result), ascii_only)
        yield _text("brackets: 90 % interval from resampling seeds, the basin kept as it is", ascii_only)
        for name, result in zip(titles, self.results, strict=True):
            yield Text()
            yield Recipes(name, result, recommendations(result, self.results))


def heatmaps(results: Sequence[Result]) -> list[Heatmap]:
    """One heatmap per result."""
    return [Heatmap(r.surface, title(r, results), r.spec.formula, r.separability) for r in results]


def _galleries(results: Sequence[Result]) -> Iterable[Gallery]:
    """One gallery per metric: different units share no scale."""
    for metric in dict.fromkeys(result.surface.metric for result in results):
        drawn = zip(results, heatmaps(results), strict=True)
        yield Gallery([heatmap for result, heatmap in drawn if result.surface.metric == metric])


def _side_by_side(
    titles: Sequence[str], rows: Sequence[Row], width: int
) -> Iterable[tuple[Sequence[str], Sequence[Row]]]:
    """As many studies to a table as have room to be read."""
    room = max(1, (width - _LABEL) // _READABLE)
    for first in range(0, len(titles), room):
        some = slice(first, first + room)
        yield titles[some], [(label, *entries[some]) for label, *entries in rows]


def table(corner: str, headings: Sequence[str], rows: Iterable[Row], ascii_only: bool) -> Table:
    """A table of text whose first column holds the labels."""
    found = Table(box=box.SIMPLE_HEAD)
    found.add_column(_text(corner, ascii_only), no_wrap=True)
    for heading in headings:
        found.add_column(_text(heading, ascii_only), overflow="fold")
    for row in rows:
        found.add_row(*(_text(entry, ascii_only) for entry in row))
    return found


def _verdict(compared: ComparedResults, ascii_only: bool) -> str:
    """The comparison's sentence, its formulas in letters that the console has."""
    sentence = compared.comparison.verdict
    for result in (compared.a, compared.b) if ascii_only else ():
        formula = result.spec.formula
        sentence = sentence.replace(formula, ascii_formula(formula))
    return sentence


def _text(text: str, ascii_only: bool, style: str = "") -> Text:
    harmless = plain(text)
    return Text(to_ascii(harmless) if ascii_only else harmless, style=style)
