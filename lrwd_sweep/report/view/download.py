"""A download on stderr: one line that moves on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from rich.console import Console

_SECONDS_BETWEEN_LINES = 30.0
_SECONDS_BETWEEN_PICTURES = 0.2


@dataclass(slots=True)
class Download:
    """Bytes as they come, file by file; to be called with a name, the bytes so far and in all (or 0)."""

    console: Console
    name: str = ""
    shown: float = field(default=0.0)

    def __call__(self, name: str, done: int, total: int) -> None:
        now, ended = time.monotonic(), done == total
        moves = self.console.is_terminal
        wait = _SECONDS_BETWEEN_PICTURES if moves else _SECONDS_BETWEEN_LINES
        if name == self.name and not ended and now - self.shown < wait:
            return
        self.name, self.shown = name, now
        text = f"{name}: {done / 1e6:,.1f} MB"
        if total:
            text += f" of {total / 1e6:,.1f}, {done / total:.0%}"
        self.console.print(text, end="\r" if moves and not ended else "\n", soft_wrap=True)
