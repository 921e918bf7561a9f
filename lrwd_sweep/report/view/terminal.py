"""The report for a terminal: heatmaps, verdict, tables, code to paste and next steps."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Self

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from lrwd_sweep.report.answer import Line, Topic, answer
from lrwd_sweep.report.gates import GateOutcome
from lrwd_sweep.report.recommend import Recommendations, recommendations
from lrwd_sweep.report.result import ComparedResults, Result
from lrwd_sweep.report.view import ci, tables
from lrwd_sweep.report.view.heatmap import Gallery, Heatmap
from lrwd_sweep.report.view.notation import (
    ascii_formula,
    plain,
    styled,
    to_ascii,
)
from lrwd_sweep.report.view.tables import title
from lrwd_sweep.science.optimizer import DecayRule
from lrwd_sweep.spec.study import StudySpec

_LABEL = 28  # characters of the first column
_READABLE = 17  # characters that a study's column should have
_NARROWEST = 12  # columns that a command is broken for
_GAP = 3  # blank characters between the parts of an answer's line
_MOST_LINES = 12  # of an answer, if shorter lines say enough
_WIDEST_LABEL = 24  # characters of a label that shares its line with the parts

_SPANNING = (Topic.DIFFERENCE, Topic.DIFFERENCES, Topic.COST)  # their labels are longer than the column

MORE = Line(Topic.MORE, "more", ("--full · report --format html --open", "[ ] and ±: 90 % intervals"))


@dataclass(frozen=True, slots=True, eq=False)
class Report:
    """The report of studies and their comparisons: the lattices and, last on the screen, the answer."""

    results: Sequence[Result]
    comparisons: Sequence[ComparedResults] = ()
    full: bool = False  # with every number, the values to use and the parameters that decay
    pictures: Sequence[RenderableType] = ()  # further ones
    outcomes: Sequence[GateOutcome] = ()  # in the first line, and as a table

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        titles, ascii_only = [title(result, self.results) for result in self.results], options.ascii_only
        if self.outcomes:
            yield styled(ci.gate_headline(self.outcomes, self.results), ascii_only, "bold")
            yield Text()
        yield from self._galleries(titles)
        if self.full:
            yield from self._numbers(titles, options)
        yield from self.pictures
        if self.outcomes:
            corner, *headings = ci.GATE_HEAD
            yield table(corner, headings, ci.gate_rows(self.outcomes, self.results), ascii_only)
        yield Text()
        lines = answer(self.results, self.comparisons)
        yield Answer(lines if self.full else [*lines, MORE])

    def _numbers(self, titles: Sequence[str], options: ConsoleOptions) -> Iterator[RenderableType]:
        """Yield verdicts in words, tasks, tables, values to use and next steps."""
        ascii_only, results = options.ascii_only, self.results
        for compared in self.comparisons:
            sentence = compared.comparison.verdict
            for result in (compared.a, compared.b) if ascii_only else ():
                sentence = sentence.replace(result.spec.formula, ascii_formula(result.spec.formula))
            yield Text()
            yield styled(sentence, ascii_only, "bold")
        yield Text()
        for name, result in zip(titles, results, strict=True):
            yield styled(f"{name}: {tables.task_text(result)}", ascii_only)
            if plain(result.name) != name:
                yield styled(f"  study {plain(result.name)}", ascii_only)
            yield styled(f"  {tables.tensors(result)}", ascii_only)
        for corner, rows in (
            ("best cell", tables.best_rows(results)),
            ("separability", tables.separability_rows(results)),
        ):
            room = max(1, (options.max_width - _LABEL) // _READABLE)  # as many studies as are readable
            for first in range(0, len(titles), room):
                some = slice(first, first + room)
                part = [(label, *entries[some]) for label, *entries in rows]
                yield table(corner, titles[some], part, ascii_only)
        for compared in self.comparisons:
            heading = f"{title(compared.b, results)} against {title(compared.a, results)}"
            yield table("paired, by seed", [heading], tables.comparison_rows(compared), ascii_only)
        for name, result in zip(titles, results, strict=True):
            if result.spec.is_search:
                head, rows = tables.candidate_head(result), tables.candidate_rows(result)
                yield table(f"best of {name}", head, rows, ascii_only)
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
class Answer:
    """The answer in aligned columns; parts that do not fit beside each other go below."""

    lines: Sequence[Line]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width, drawn = options.max_width, list[Text]()
        for lines in _shorter(self.lines):
            drawn = [text for line in lines for text in _Columns.of(lines, width, console).drawn(line)]
            if len(drawn) <= _MOST_LINES:
                break
        for text in drawn:
            if options.ascii_only:
                text.plain = to_ascii(text.plain)
            yield text


def _shorter(lines: Sequence[Line]) -> Iterator[Sequence[Line]]:
    """Yield the lines with sentences, then ever shorter, the least useful left out first."""
    yield lines
    lines = [replace(line, parts=line.parts[:1]) if line.topic is Topic.MORE else line for line in lines]
    yield lines
    few_words = [
        replace(line, parts=(*line.parts[:2], line.parts[3])) if line.topic is Topic.VERDICT else line
        for line in lines
    ]
    yield few_words
    yield [line for line in lines if line.topic is not Topic.COST]
    yield [line for line in few_words if line.topic is not Topic.COST]


@dataclass(frozen=True, slots=True)
class _Columns:
    """The columns that the lines of an answer share."""

    console: Console
    width: int
    label: int  # characters before the parts
    verdict: int
    slope: int

    @classmethod
    def of(cls, lines: Sequence[Line], width: int, console: Console) -> Self:
        named = [line.label for line in lines if line.topic not in _SPANNING]
        verdicts = [line for line in lines if line.topic is Topic.VERDICT]
        differences = [line for line in lines if line.topic is Topic.DIFFERENCE]
        label = max((n for text in named if (n := cell_len(text)) <= _WIDEST_LABEL), default=0) + _GAP
        verdict = max((cell_len(line.parts[0]) for line in verdicts), default=0) + _GAP
        wide = [cell_len(line.label) + _GAP - label for line in differences]
        numbers = [line.parts[1] for line in verdicts] + [line.parts[0] for line in differences]
        if max(wide, default=0) <= _WIDEST_LABEL:
            verdict = max(verdict, *wide, 0)
        return cls(console, width, label, verdict, max(map(cell_len, numbers), default=0) + _GAP)

    def drawn(self, line: Line) -> Iterator[Text]:
        """Yield the lines of a terminal that hold one line of the answer."""
        blank = " " * _GAP
        match line.topic:
            case Topic.VERDICT:
                found, slope, meaning = [*line.parts, ""][:3]
                head = _padded(line.label, self.label) + _padded(found, self.verdict)
                first, *rest = self._beside(head + _padded(slope, self.slope), meaning)
                first.stylize("bold", 0, len(head.rstrip()))
                yield from (first, *rest)
            case Topic.DIFFERENCE:
                head = _padded(line.label, self.label + self.verdict)
                yield from self._beside(head + _padded(line.parts[0], self.slope), line.parts[1])
            case Topic.COST | Topic.DIFFERENCES:
                yield from self._filled([line.label, *line.parts])
            case _ if line.code:
                yield from self._with_code(line)
            case _:
                yield from self._wrapped(_padded(line.label, self.label) + blank.join(line.parts))

    def _beside(self, head: str, rest: str) -> Iterator[Text]:
        """Yield head and rest on one line, or the rest below if it does not fit."""
        if cell_len(head) + cell_len(rest) <= self.width:
            yield Text((head + rest).rstrip())
            return
        yield from self._wrapped(head.rstrip())
        if rest:
            yield from self._wrapped(" " * self._indent + rest)

    def _with_code(self, line: Line) -> Iterator[Text]:
        """Yield code that can be pasted, broken as its language allows, then the parts."""
        indent, head = " " * self._indent, _padded(line.label, self.label)
        if line.topic is Topic.NEXT or line.shell:
            broken = shell_lines(line.code, self.width, indent)
        else:
            broken = python_lines(line.code_line, self.width - len(indent), indent)
        lines = [plain(text) for text in broken]
        if len(head) == len(indent):
            lines[0] = head + lines[0][len(indent) :]
        else:
            yield from self._wrapped(line.label)
        yield from (Text(text, overflow="fold") for text in lines[:-1])
        yield from self._beside(lines[-1] + " " * _GAP, (" " * _GAP).join(line.parts))

    def _filled(self, parts: Sequence[str]) -> Iterator[Text]:
        """Fill lines with whole parts."""
        text, gap = parts[0], " " * _GAP
        for part in parts[1:]:
            if cell_len(text) + _GAP + cell_len(part) > self.width:
                yield from self._wrapped(text)
                text = " " * self._indent + part
            else:
                text += gap + part
        yield from self._wrapped(text)

    @property
    def _indent(self) -> int:
        return min(self.label, self.width // 3)

    def _wrapped(self, text: str) -> Iterator[Text]:
        """Break running text; further lines are indented to the parts."""
        if cell_len(text) <= self.width:
            yield Text(text)
            return
        first, *rest = Text(text).wrap(self.console, self.width)
        yield Text(first.plain.rstrip())
        if rest:
            below = text[len(first.plain) :].lstrip()
            for more in Text(below).wrap(self.console, max(self.width - self._indent, 1)):
                yield Text(" " * self._indent + more.plain.rstrip())


def _padded(text: str, width: int) -> str:
    """Pad to a width in characters of a terminal; a longer text is followed by a gap."""
    return text + " " * max(width - cell_len(text), _GAP)


def table(corner: str, headings: Sequence[str], rows: Iterable[tables.Row], ascii_only: bool) -> Table:
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

        width, recipes = options.max_width, tables.new_lines(self.found.cells)
        yield prose(f"{self.name}: values to use", 0, "bold")
        for k, (cell, recipe) in enumerate(zip(self.found.cells, recipes, strict=True)):
            yield prose(tables.headline(self.result, cell), 1)
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

    A longer word continues at the left margin, where a shell joins it again; a quoted one is closed and
    opened again there, unless it holds quotes itself.
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
        start = len(lines[-1]) - len(word)
        while len(lines[-1]) > width - 2 and word[0] == word[-1] == "'" and word.count("'") == 2:
            cut = max(width - 4, start + 2)
            line = lines.pop()
            lines += [line[:cut] + "'\\", "'" + line[cut:]]
            start = 0
    return lines
