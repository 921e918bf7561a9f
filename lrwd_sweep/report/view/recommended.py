"""Recommended values and next steps as text: code that can be pasted from a terminal, or from markdown."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from rich.console import Console, ConsoleOptions, RenderResult
from rich.padding import Padding
from rich.text import Text

from lrwd_sweep.report.recommend import Recommendations, Recommended
from lrwd_sweep.report.recommend.recipe import Line
from lrwd_sweep.report.result import Result
from lrwd_sweep.report.view.fields import averaging, lattice_value
from lrwd_sweep.report.view.notation import ascii_formula, short_decimal, to_ascii
from lrwd_sweep.report.view.plain import plain
from lrwd_sweep.science.decay import DecayRule
from lrwd_sweep.spec.study import StudySpec

_DIM = "dim"
_NARROWEST = 12  # columns that a command is broken for


def headline(result: Result, found: Recommended) -> str:
    """A recommended cell, its value, and what becomes of it one step off."""
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


def new_remarks(found: Sequence[Recommended]) -> list[list[Line]]:
    """The lines of every cell, code and remarks only where they first appear."""
    seen: set[str] = set()

    def new(text: str) -> str:
        return "" if text in seen else text

    cells = []
    for cell in found:
        lines = [Line(new(line.code), new(line.remark)) for line in cell.lines]
        seen |= {text for line in cell.lines for text in (line.code, line.remark)}
        cells.append([line for line in lines if line.code or line.remark])
    return cells


def snippet(result: Result, found: Recommendations) -> str:
    """The recommended cells as Python, with everything else in comments."""
    lines: list[str] = []
    for cell, recipe in zip(found.cells, new_remarks(found.cells), strict=True):
        lines.append(f"# {headline(result, cell)}")
        for line in recipe:
            lines += [f"# {line.remark}"] * bool(line.remark) + [line.code] * bool(line.code)
    return "\n".join(lines)  # without an empty line, so that it stays one block of markdown


@dataclass(frozen=True, slots=True, eq=False)
class Recipes:
    """One study's recommended values and next steps, to be printed; of all cells but the first, one line."""

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
        for k, (cell, recipe) in enumerate(zip(self.found.cells, new_remarks(self.found.cells), strict=True)):
            yield prose(headline(self.result, cell), 1)
            for line in recipe[:1] if k else recipe:
                yield from map(code, python_lines(line.code, width - 3, "   "))
                if line.remark:
                    yield prose(line.remark, 5, _DIM)
        if self.found.why_not_forgiving:
            yield prose(f"most forgiving: {self.found.why_not_forgiving}", 1)
        for advice in self.found.next:
            yield prose(f"next: {advice.why}", 1)
            if advice.command is not None:
                yield from map(code, shell_lines(advice.command, width, "   "))


def _ascii(text: str, spec: StudySpec) -> str:
    """Running text in ASCII, with the products that stand in a study's formulas, by whatever rule."""
    kin = [replace(spec.optimizer, rule=rule, normalized=of) for rule in DecayRule for of in (False, True)]
    formulas = {replace(spec, optimizer=each).formula for each in kin} | {rule.update for rule in DecayRule}
    for formula in sorted(formulas, key=len, reverse=True):  # a formula may begin with a rule's update
        text = text.replace(formula, ascii_formula(formula))
    return to_ascii(text)


def python_lines(code: str, width: int, indent: str = "") -> list[str]:
    """Code whose calls are broken after commas, as Python allows, to lines of `width` where it can."""
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
    """A command on lines of at most `width`, each but the last continued by a backslash.

    A word that is longer goes on at the left margin, where a shell puts it together again; a quoted one
    stays whole.
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
