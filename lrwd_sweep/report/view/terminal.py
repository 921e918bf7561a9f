"""The report for a terminal: heatmaps, verdict, tables, code to paste and next steps."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from lrwd_sweep.report.gates import GateOutcome
from lrwd_sweep.report.recommend import Recommendations, Recommended, recommendations
from lrwd_sweep.report.recommend.code import CodeLine
from lrwd_sweep.report.result import ComparedResults, Result
from lrwd_sweep.report.view.fields import (
    GATE_HEAD,
    POINT_HEAD,
    TEST_SPLIT,
    Row,
    averaging,
    best_rows,
    candidate_rows,
    comparison_rows,
    gate_rows,
    lattice_value,
    separability_rows,
    task_text,
    tensors,
    title,
)
from lrwd_sweep.report.view.heatmap import Gallery, Heatmap
from lrwd_sweep.report.view.notation import ascii_formula, plain, short_decimal, styled, to_ascii
from lrwd_sweep.science.optimizer import DecayRule
from lrwd_sweep.spec.study import Kind, StudySpec

_LABEL = 28  # characters of the first column
_READABLE = 17  # characters that a study's column should have
_NARROWEST = 12  # columns that a command is broken for


@dataclass(frozen=True, slots=True, eq=False)
class Report:
    """The report of studies and their comparisons."""

    results: Sequence[Result]
    comparisons: Sequence[ComparedResults] = ()
    full: bool = False  # with the parameters that decay

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        ascii_only, results = options.ascii_only, self.results
        titles = [title(result, results) for result in results]
        yield from self._galleries(titles)
        for compared in self.comparisons:
            sentence = compared.comparison.verdict
            for result in (compared.a, compared.b) if ascii_only else ():
                sentence = sentence.replace(result.spec.formula, ascii_formula(result.spec.formula))
            yield Text()
            yield styled(sentence, ascii_only, "bold")
        yield Text()
        for name, result in zip(titles, results, strict=True):
            yield styled(f"{name}: {task_text(result)}", ascii_only)
            if plain(result.name) != name:
                yield styled(f"  study {plain(result.name)}", ascii_only)
            if self.full:
                yield styled(f"  {tensors(result)}", ascii_only)
        for corner, rows in (
            ("best cell", best_rows(results)),
            ("separability", separability_rows(results)),
        ):
            room = max(1, (options.max_width - _LABEL) // _READABLE)  # as many studies as are readable
            for first in range(0, len(titles), room):
                some = slice(first, first + room)
                part = [(label, *entries[some]) for label, *entries in rows]
                yield table(corner, titles[some], part, ascii_only)
        for compared in self.comparisons:
            heading = f"{title(compared.b, results)} against {title(compared.a, results)}"
            yield table("paired, by seed", [heading], comparison_rows(compared), ascii_only)
        for name, result in zip(titles, results, strict=True):
            if result.spec.kind is Kind.TPE:
                headings = [*POINT_HEAD, plain(result.surface.metric), TEST_SPLIT]
                yield table(f"best of {name}", headings, candidate_rows(result), ascii_only)
        yield styled("brackets: 90 % interval from resampling seeds, the basin kept as it is", ascii_only)
        for name, result in zip(titles, results, strict=True):
            yield Text()
            yield Recipes(name, result, recommendations(result, results))

    def _galleries(self, titles: Sequence[str]) -> Iterator[Gallery]:
        """Yield one gallery per metric: different units share no scale."""
        for metric in dict.fromkeys(result.surface.metric for result in self.results):
            yield Gallery(
                [
                    Heatmap(result.surface, name, result.spec.formula, result.separability)
                    for name, result in zip(titles, self.results, strict=True)
                    if result.surface.metric == metric
                ]
            )


@dataclass(frozen=True, slots=True, eq=False)
class GateTable:
    """The table of gates and their outcomes."""

    outcomes: Sequence[GateOutcome]
    results: Sequence[Result]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        corner, *headings = GATE_HEAD
        yield table(corner, headings, gate_rows(self.outcomes, self.results), options.ascii_only)


def table(corner: str, headings: Sequence[str], rows: Iterable[Row], ascii_only: bool) -> Table:
    """Make a table of text whose first column holds the labels."""
    found = Table(box=box.SIMPLE_HEAD)
    found.add_column(styled(corner, ascii_only), no_wrap=True)
    for heading in headings:
        found.add_column(styled(heading, ascii_only), overflow="fold")
    for row in rows:
        found.add_row(*(styled(entry, ascii_only) for entry in row))
    return found


@dataclass(frozen=True, slots=True, eq=False)
class Recipes:
    """One study's recommended cells as code, and next steps; every cell after the first on one line."""

    name: str
    result: Result
    found: Recommendations

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        def prose(text: str, indent: int, style: str = "") -> Padding:
            harmless = plain(text)
            shown = _ascii(harmless, self.result.spec) if options.ascii_only else harmless
            return Padding(Text(shown, style=style), (0, 0, 0, indent))

        def code(text: str) -> Text:
            return Text(plain(text), overflow="fold")

        width = options.max_width
        yield prose(f"{self.name}: values to use", 0, "bold")
        for k, (cell, recipe) in enumerate(zip(self.found.cells, new_lines(self.found.cells), strict=True)):
            yield prose(headline(self.result, cell), 1)
            for line in recipe[:1] if k else recipe:
                yield from map(code, python_lines(line.code, width - 3, "   "))
                if line.remark:
                    yield prose(line.remark, 5, "dim")
        if self.found.why_not_forgiving:
            yield prose(f"most forgiving: {self.found.why_not_forgiving}", 1)
        for advice in self.found.next:
            yield prose(f"next: {advice.why}", 1)
            if advice.command is not None:
                yield from map(code, shell_lines(advice.command, width, "   "))


def headline(result: Result, found: Recommended) -> str:
    """Describe a recommended cell: its place, its value, and the values of its neighbours."""
    symbol, metric = result.spec.optimizer.symbol, plain(result.surface.metric)
    text = (
        f"{found.role}: α = {lattice_value(found.cell.lr)}, {symbol} = "
        f"{lattice_value(found.cell.weight_decay)}; {metric} {short_decimal(found.value, 4)}"
    )
    if found.around is not None:
        mean, worst = (short_decimal(value, 4) for value in (found.around.mean, found.around.worst))
        text += f", with its neighbours {mean} on average, {worst} at worst"
    tau = averaging(result, found.cell)
    return f"{text}; decay averages over {tau} where η = 1" if tau else text


def new_lines(found: Sequence[Recommended]) -> list[list[CodeLine]]:
    """Return the lines of every cell, without the code and remarks of an earlier cell."""
    seen: set[str] = set()
    cells = []
    for cell in found:
        lines = [
            CodeLine("" if line.code in seen else line.code, "" if line.remark in seen else line.remark)
            for line in cell.lines
        ]
        seen |= {text for line in cell.lines for text in (line.code, line.remark)}
        cells.append([line for line in lines if line.code or line.remark])
    return cells


def snippet(result: Result, found: Recommendations) -> str:
    """Write the recommended cells as Python, with everything else in comments."""
    lines: list[str] = []
    for cell, recipe in zip(found.cells, new_lines(found.cells), strict=True):
        lines.append(f"# {headline(result, cell)}")
        for line in recipe:
            lines += [f"# {line.remark}"] * bool(line.remark) + [line.code] * bool(line.code)
    return "\n".join(lines)  # without an empty line, so that it stays one block of markdown


def _ascii(text: str, spec: StudySpec) -> str:
    """Write running text in ASCII, with explicit products in the formulas of the study under any rule."""
    kin = [replace(spec.optimizer, rule=rule, normalized=of) for rule in DecayRule for of in (False, True)]
    formulas = {replace(spec, optimizer=each).formula for each in kin} | {rule.update for rule in DecayRule}
    for formula in sorted(formulas, key=len, reverse=True):  # a formula may begin with a rule's update
        text = text.replace(formula, ascii_formula(formula))
    return to_ascii(text)


def python_lines(code: str, width: int, indent: str = "") -> list[str]:
    """Break calls after commas, as Python allows, to lines of `width` as far as possible."""
    lines: list[str] = []
    for line in code.splitlines():
        first, *pieces = re.split(r"(?<=,) (?=\w+=)", line)
        lines.append(first)
        for piece in pieces:
            if len(lines[-1]) + 1 + len(piece) <= width:
                lines[-1] += f" {piece}"
            else:
                lines.append(f"    {piece}")
    return [indent + line for line in lines]


def shell_lines(words: Sequence[str], width: int, indent: str = "") -> list[str]:
    """Break a command into lines of at most `width`, each but the last continued by a backslash.

    A longer word continues at the left margin, where a shell joins it again; a quoted word stays whole.
    """
    width = max(width, _NARROWEST)
    lines = [indent]
    for k, word in enumerate(words):
        if k and len(lines[-1]) + len(word) + 3 > width:
            lines[-1] += " \\"
            lines.append(f"{indent}  {word}")
        else:
            lines[-1] += f" {word}" if k else word
        while len(lines[-1]) > width - 2 and "'" not in word:
            line = lines.pop()
            lines += [line[: width - 3] + "\\", line[width - 3 :]]
    return lines
