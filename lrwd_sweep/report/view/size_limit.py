"""Text that has to fit: a report as a comment on a pull request, or as the summary of a CI step."""

from __future__ import annotations

import re

# GitHub takes 65,536 characters for a comment (and 1 MiB for a step's summary).
MOST_CHARACTERS = 65_000

_FENCE = re.compile("`{3,}")

LEFT_OUT = "*(a part was left out here: it does not fit; html and json hold everything)*"
CUT = "*(cut here: the rest does not fit; html and json hold everything)*"


def fitted(text: str, most: int = MOST_CHARACTERS) -> str:
    """Markdown of at most `most` characters; whole where it fits.

    The longest blocks, which are the lattices of many cells, give way first, each to one line that says so.
    If even that is too long, the end is cut off at a block, with a line that says so.
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
    return "\n\n".join(blocks) + "\n" if length <= most else _cut(blocks, most)


def _blocks(text: str) -> list[str]:
    """What blank lines separate, code with blank lines in it as one block."""
    blocks: list[str] = []
    for part in text.split("\n\n"):
        fence = _FENCE.match(blocks[-1]) if blocks else None
        if fence and not blocks[-1].endswith("\n" + fence[0]):
            blocks[-1] += "\n\n" + part
        else:
            blocks.append(part)
    return blocks


def _cut(blocks: list[str], most: int) -> str:
    """The first blocks that fit, and the line."""
    room = most - len(CUT) - 1
    kept = []
    for block in blocks:
        room -= len(block) + 2
        if room < 0:
            break
        kept.append(block)
    return "\n\n".join([*kept, CUT]) + "\n"
