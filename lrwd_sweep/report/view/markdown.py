"""The report in GitHub-flavoured markdown: a section per study with its formula, numbers and lattice."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

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
from lrwd_sweep.report.view.legend import runs_of, seeds_of
from lrwd_sweep.report.view.notation import UNICODE, axis_labels
from lrwd_sweep.report.view.pictures import Picture
from lrwd_sweep.report.view.plain import plain
from lrwd_sweep.report.view.recommended import snippet
from lrwd_sweep.report.view.scale import Numbers, Scale
from lrwd_sweep.report.view.tiles import Mark, Tile, Tiles
from lrwd_sweep.science.separability import Separability
from lrwd_sweep.science.surface import Surface
from lrwd_sweep.science.trial import Direction
from lrwd_sweep.spec.study import Kind

_SPECIAL = re.compile(r"([\\`*_\[\]#~|$])")


def markdown(
    results: Sequence[Result],
    comparisons: Sequence[ComparedResults] = (),
    shown: Sequence[Picture] = (),
    *,
    full: bool = False,
) -> str:
    """The whole report as one text, the heatmaps of further pictures as tables behind it.

    `full` adds the parameters that decay.
    """
    blocks = [block for result in results for block in _study(result, results, full)]
    for compared in comparisons:
        a, b = title(compared.a, results), title(compared.b, results)
        blocks += [
            f"## {code(b)} against {code(a)}",
            escaped(compared.comparison.verdict),
            pipe_table(["paired, by seed", "value [90 % interval]"], _escaped(comparison_rows(compared))),
        ]
    blocks += [block for picture in shown for block in _picture(picture)]
    return "\n\n".join(blocks) + "\n"


def code(text: str) -> str:
    """`text` as a code span, where neither markup, HTML nor @mentions mean anything."""
    harmless = plain(text)
    fence = "`" * (1 + max(map(len, re.findall("`+", harmless)), default=0))
    pad = " " if len(fence) > 1 or not harmless.strip() else ""
    return f"{fence}{pad}{harmless}{pad}{fence}"


def code_block(text: str, language: str) -> str:
    """Lines of code in a fence that no run of backticks in them can close."""
    harmless = "\n".join(map(plain, text.splitlines()))
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", harmless)), default=0))
    return f"{fence}{language}\n{harmless}\n{fence}"


def escaped(text: str) -> str:
    """`text` as running text that means nothing but itself, HTML and @mentions included."""
    harmless = _SPECIAL.sub(r"\\\1", plain(text))
    return harmless.replace("&", "&amp;").replace("<", "&lt;").replace("@", "@<!-- -->")


def pipe_table(head: Sequence[str], rows: Iterable[Sequence[str]], align: str = "---") -> str:
    """A table of markdown; a bar inside an entry is escaped by whoever wrote the entry."""
    lines = [head, ["---", *[align] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _escaped(rows: Iterable[Row]) -> list[Row]:
    return [tuple(map(escaped, row)) for row in rows]


def _study(result: Result, among: Sequence[Result], full: bool) -> list[str]:
    """One study's section."""
    name = title(result, among)
    blocks = [
        f"## {code(name)}",
        f"{code(result.spec.formula)}  \nstudy {code(result.name)}: {escaped(task_text(result))}",
        *([escaped(tensors(result))] if full else []),
        pipe_table(["best cell", ""], _escaped(best_rows([result]))),
        pipe_table(["separability", "value [90 % interval]"], _escaped(separability_rows([result]))),
    ]
    if result.spec.kind is Kind.TPE:
        head = ["best", "learning rate α", "weight decay", escaped(result.surface.metric), "test split"]
        blocks.append(pipe_table(head, _escaped(candidate_rows(result))))
    return [*blocks, *_lattice(result.surface, result.separability), *_recommended(result, among)]


def _picture(picture: Picture) -> list[str]:
    """A further picture's section."""
    blocks = [f"## {code(picture.name)}", escaped(picture.about)]
    for _, heatmap in picture.heatmaps:
        blocks.append(f"### {code(heatmap.title)}")
        blocks += _lattice(heatmap.surface, heatmap.separability, ranked=heatmap.ranked)
    return [block for block in blocks if block] + list(map(escaped, picture.notes))


def _recommended(result: Result, among: Sequence[Result]) -> list[str]:
    """The recommended values as a block of Python, and what to do next with its commands."""
    found = recommendations(result, among)
    blocks = [code_block(snippet(result, found), "python")] if found.cells else []
    if found.why_not_forgiving:
        blocks.append(f"most forgiving cell: {escaped(found.why_not_forgiving)}")
    for advice in found.next:
        blocks.append(f"**Next**: {escaped(advice.why)}")
        if advice.command_line is not None:
            blocks.append(code_block(advice.command_line, "sh"))
    return blocks


def _lattice(surface: Surface, separability: Separability | None, *, ranked: bool = True) -> list[str]:
    """The lattice as a table, numbers to the digits that tell the basin apart, with its legend."""
    tiles = Tiles.of(surface, separability, ranked=ranked)
    scale = Scale.of([surface], ranked=ranked)
    decimals = max(scale.decimals, 0) if scale else 0
    rows = [
        [label, *(_entry(tile, decimals) for tile in row)]
        for label, row in zip(axis_labels(tiles.row_values, UNICODE), tiles.rows, strict=True)
    ]
    higher = ", higher is better" * (ranked and surface.direction is Direction.MAXIMIZE)
    so_far = f"~ some seeds are missing ({runs_of([surface])}), " * bool(surface.partial.any())
    legend = (
        f"{escaped(surface.metric)}, {seeds_of([surface])}{higher}; {so_far}"
        f"{'★ best, ○ ten best, **bold** best of its row, ' * ranked}× diverged, ! failed, · missing"
    )
    head = [f"α ↑, {escaped(surface.symbol)} →", *axis_labels(tiles.column_values, UNICODE)]
    return [pipe_table(head, rows, align="--:"), legend]


def _entry(tile: Tile, decimals: int) -> str:
    if tile.value is None:
        return {Mark.DIVERGED: "×", Mark.FAILED: "!"}.get(tile.mark, "·")
    number = Numbers(12, decimals).text(tile.value)
    mark = {Mark.BEST: " ★", Mark.TOP: " ○", Mark.PARTIAL: "~"}.get(tile.mark, "")
    return (f"**{number}**" if tile.ridge.marked else number) + mark
