"""The report in GitHub-flavoured markdown: the answer, gates, a section per study; it fits a comment."""

import re
from collections.abc import Iterable, Sequence

from lrwd_sweep.report.answer import Line, Topic, answer
from lrwd_sweep.report.gates import GateOutcome
from lrwd_sweep.report.recommend import recommendations
from lrwd_sweep.report.result import ComparedResults, Result
from lrwd_sweep.report.view import ci, tables
from lrwd_sweep.report.view.notation import UNICODE, axis_labels, decay_labels, decay_symbol, plain
from lrwd_sweep.report.view.pictures import Picture
from lrwd_sweep.report.view.tables import title
from lrwd_sweep.report.view.terminal import snippet
from lrwd_sweep.report.view.tiles import Mark, Numbers, Scale, Tile, Tiles, lacking, seeds_of
from lrwd_sweep.science.separability import Separability
from lrwd_sweep.science.surface import Surface

# GitHub accepts 65,536 characters for a comment (and 1 MiB for a step's summary).
MOST_CHARACTERS = 65_000
LEFT_OUT = "*(a part was left out here: it does not fit; html and json hold everything)*"
CUT = "*(cut here: the rest does not fit; html and json hold everything)*"
_SPECIAL = re.compile(r"([\\`*_\[\]#~|$])")
_FENCE = re.compile("`{3,}")


def markdown(
    results: Sequence[Result],
    comparisons: Sequence[ComparedResults] = (),
    outcomes: Sequence[GateOutcome] = (),
    shown: Sequence[Picture] = (),
    *,
    full: bool = False,
) -> str:
    """Write the whole report; the heatmaps of further pictures follow as tables.

    Answer and gates come first, so that no cut loses them. `full` adds the parameters that decay.
    """
    blocks = ["\n".join(map(_answered, answer(results, comparisons)))]
    if outcomes:
        blocks.insert(0, f"**{escaped(ci.gate_headline(outcomes, results))}**")
        blocks += ["## Gates", pipe_table(ci.GATE_HEAD, _escaped(ci.gate_rows(outcomes, results)))]
    for result in results:
        blocks += _study(result, results, full)
    for compared in comparisons:
        a, b = title(compared.a, results), title(compared.b, results)
        rows = _escaped(tables.comparison_rows(compared))
        blocks += [f"## {code(b)} against {code(a)}", escaped(compared.comparison.verdict)]
        blocks.append(pipe_table(["paired, by seed", "value [90 % interval]"], rows))
    for picture in shown:
        blocks += _picture(picture)
    return fitted("\n\n".join(blocks) + "\n")


def _answered(line: Line) -> str:
    """Write one line of the answer as an item of a list, its code as a code span."""
    parts = line.parts[:3] if line.topic is Topic.VERDICT else line.parts
    texts = [code(line.code_line)] * bool(line.code) + [escaped(part) for part in parts if part]
    return f"- **{escaped(line.label)}**: {' · '.join(texts)}"


def code(text: str) -> str:
    """Write `text` as a code span, which disables markup, HTML and @mentions."""
    harmless = plain(text)
    fence = _fence(harmless, 1)
    pad = " " if len(fence) > 1 or not harmless.strip() else ""
    return f"{fence}{pad}{harmless}{pad}{fence}"


def code_block(text: str, language: str) -> str:
    """Write lines of code in a fence that no run of backticks in them can close."""
    harmless = "\n".join(map(plain, text.splitlines()))
    fence = _fence(harmless, 3)
    return f"{fence}{language}\n{harmless}\n{fence}"


def _fence(text: str, least: int) -> str:
    return "`" * max(least, 1 + max(map(len, re.findall("`+", text)), default=0))


def escaped(text: str) -> str:
    """Escape `text` so that markdown, HTML and @mentions in it have no effect."""
    harmless = _SPECIAL.sub(r"\\\1", plain(text))
    return harmless.replace("&", "&amp;").replace("<", "&lt;").replace("@", "@<!-- -->")


def pipe_table(head: Sequence[str], rows: Iterable[Sequence[str]], align: str = "---") -> str:
    """Write a table of entries that are escaped already."""
    lines = [head, ["---", *[align] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _escaped(rows: Iterable[tables.Row]) -> list[tables.Row]:
    return [tuple(map(escaped, row)) for row in rows]


def _study(result: Result, among: Sequence[Result], full: bool) -> list[str]:
    """Write one study's section; recommended cells are a block of Python, next steps blocks of shell."""
    best, measures = tables.best_rows([result]), tables.separability_rows([result])
    blocks = [
        f"## {code(title(result, among))}",
        f"{code(result.spec.formula)}  \nstudy {code(result.name)}: {escaped(tables.task_text(result))}",
        *([escaped(tables.tensors(result))] if full else []),
        pipe_table(["best cell", ""], _escaped(best)),
        pipe_table(["separability", "value [90 % interval]"], _escaped(measures)),
    ]
    if result.spec.is_search:
        head = ["best", *map(escaped, tables.candidate_head(result))]
        blocks.append(pipe_table(head, _escaped(tables.candidate_rows(result))))
    blocks += _lattice(result.surface, result.separability)
    found = recommendations(result, among)
    if found.cells:
        blocks.append(code_block(snippet(result, found), "python"))
    if found.why_not_forgiving:
        blocks.append(f"most forgiving cell: {escaped(found.why_not_forgiving)}")
    for advice in found.next:
        blocks.append(f"**Next**: {escaped(advice.why)}")
        if advice.command_line is not None:
            blocks.append(code_block(advice.command_line, "sh"))
    return blocks


def _picture(picture: Picture) -> list[str]:
    """Write the section of a further picture."""
    blocks = [f"## {code(picture.name)}", escaped(picture.about)]
    for _, heatmap in picture.heatmaps:
        blocks.append(f"### {code(heatmap.title)}")
        blocks += _lattice(heatmap.surface, heatmap.separability, ranked=heatmap.ranked)
    return [block for block in blocks if block] + list(map(escaped, picture.notes))


def _lattice(surface: Surface, separability: Separability | None, *, ranked: bool = True) -> list[str]:
    """Write the lattice as a table, numbers to the digits that resolve the basin, and its legend."""
    tiles = Tiles.of(surface, separability, ranked=ranked)
    scale = Scale.of([surface], ranked=ranked)
    numbers = Numbers(12, max(scale.decimals, 0) if scale else 0)
    rows = [
        [label, *(_entry(tile, numbers) for tile in row)]
        for label, row in zip(axis_labels(tiles.row_values, UNICODE), tiles.rows, strict=True)
    ]
    some, every = lacking([surface])
    so_far = f"~ {some}, " * bool(surface.partial.any())
    legend = (
        f"{escaped(surface.metric)}, {seeds_of([surface])}; {so_far}"
        f"{'★ best, ○ ten best, **bold** best of its row, ' * ranked}× diverged, ! failed, · {every}"
    )
    columns = decay_labels(surface, tiles.column_values, UNICODE)
    head = [f"α ↑, {escaped(decay_symbol(surface))} →", *columns]
    return [pipe_table(head, rows, align="--:"), legend]


def _entry(tile: Tile, numbers: Numbers) -> str:
    sign = UNICODE.sign(tile.mark)
    if tile.value is None:
        return sign
    number = numbers.text(tile.value)
    number = f"**{number}**" if tile.best_of_row else number
    return f"{number} {sign}" if tile.mark in (Mark.BEST, Mark.TOP) else number + sign


def fitted(text: str, most: int = MOST_CHARACTERS) -> str:
    """Shorten markdown to at most `most` characters.

    The longest blocks, which are lattices of many cells, are replaced first, each by one line that says so.
    If the text is still too long, its end is cut off at a block, with a line that says so.
    """
    if len(text) <= most:
        return text
    blocks = _blocks(text.rstrip("\n"))
    length = len(text)
    for k in sorted(range(len(blocks)), key=lambda k: len(blocks[k]), reverse=True):
        if length <= most or len(blocks[k]) <= len(LEFT_OUT):
            break
        length -= len(blocks[k]) - len(LEFT_OUT)
        blocks[k] = LEFT_OUT
    if length <= most:
        return "\n\n".join(blocks) + "\n"
    room, kept = most - len(CUT) - 1, []
    for block in blocks:
        room -= len(block) + 2
        if room < 0:
            break
        kept.append(block)
    return "\n\n".join([*kept, CUT]) + "\n"


def _blocks(text: str) -> list[str]:
    """Split at blank lines, but keep a code block with blank lines whole."""
    blocks: list[str] = []
    for part in text.split("\n\n"):
        fence = _FENCE.match(blocks[-1]) if blocks else None
        if fence and not blocks[-1].endswith("\n" + fence[0]):
            blocks[-1] += "\n\n" + part
        else:
            blocks.append(part)
    return blocks
