"""Where a command finds the files of its data set, and how it shows their download."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lrwd_sweep.errors import UsageError
from lrwd_sweep.image_folder import PREFIX
from lrwd_sweep.spec import StudySpec
from lrwd_sweep.view import consoles

if TYPE_CHECKING:
    from rich.console import Console

    from lrwd_sweep.data import Files

_SECONDS_BETWEEN_LINES = 30.0
_SECONDS_BETWEEN_PICTURES = 0.2


@dataclass(frozen=True, slots=True)
class DataFiles:
    """What `--data-dir` and `--download` say."""

    folder: str | None = None
    download: bool = False

    def check(self, specs: Iterable[StudySpec]) -> None:
        """Raise UsageError when an option was given that means nothing to any of the data sets."""
        if self.folder == "":
            raise UsageError("--data-dir '' is no folder; name one, as in --data-dir ~/data")
        names = dict.fromkeys(spec.training.data for spec in specs if spec.training)
        own = [name for name in names if name == "digits" or name.startswith(PREFIX)]
        if len(own) == len(names) and (self.download or self.folder is not None):
            option = "--download" if self.download else "--data-dir"
            raise UsageError(
                f"{option} means nothing to {', '.join(own)}, which needs no such files: leave it out"
            )
        if self.download and set(names) - set(own) == {"imagenet32"}:
            raise UsageError(
                "--download: imagenet32 is given to holders of an account at image-net.org alone; leave it "
                "out, and the same command says where to put the files"
            )

    def open(self) -> Files:
        """For the engine."""
        from lrwd_sweep.data import Files
        from lrwd_sweep.data.files import data_folder

        return Files(data_folder(self.folder), self.download, _Shown(consoles.stderr()))


@dataclass(slots=True)
class _Shown:
    """A download on stderr: one line that moves on a terminal, a line now and then elsewhere."""

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
