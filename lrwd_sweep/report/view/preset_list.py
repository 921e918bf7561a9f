"""The presets in tables, one per paper: their names, what they restate of it, what they are about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from lrwd_sweep.report.view.notation import to_ascii
from lrwd_sweep.report.view.plain import plain
from lrwd_sweep.spec.preset import Preset

_PART = 12  # characters at least for what of a paper is restated


@dataclass(frozen=True, slots=True, eq=False)
class PresetList:
    """Presets, to be printed."""

    presets: Sequence[Preset]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        papers: dict[str, list[tuple[str, ...]]] = {}
        for preset in self.presets:
            part, _, paper = preset.restates.partition(" of ")
            papers.setdefault(paper, []).append((preset.name, part, preset.about))
        width = max((len(preset.name) for preset in self.presets), default=0)
        for paper in sorted(papers):
            if paper:
                yield Text()
                yield _text(f"of {paper}", options.ascii_only, "bold")
            table = Table.grid(padding=(0, 2, 0, 0))
            table.add_column(width=width)
            table.add_column(min_width=_PART, overflow="fold")
            table.add_column(overflow="fold")
            for row in papers[paper]:
                table.add_row(*(_text(cell, options.ascii_only) for cell in row))
            yield table


def _text(text: str, ascii_only: bool, style: str = "") -> Text:
    harmless = plain(text)
    return Text(to_ascii(harmless) if ascii_only else harmless, style=style)
