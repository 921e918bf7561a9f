"""The folder that holds the files of data sets."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lrwd_sweep.errors import UsageError, arg
from lrwd_sweep.spec.image_folder import PREFIX
from lrwd_sweep.spec.study import StudySpec
from lrwd_sweep.spec.text_files import is_text
from lrwd_sweep.spec.user_code import is_user_code


@dataclass(frozen=True, slots=True)
class DataFiles:
    """The folder of data sets; `download` fetches missing files, `quiet` shows no progress of it."""

    folder: str | None = None
    download: bool = False
    quiet: bool = False

    @property
    def root(self) -> Path:
        """Return the folder given, else $LRWD_DATA, else lrwd-sweep in the user's cache."""
        if path := self.folder or os.environ.get("LRWD_DATA"):
            return Path(os.path.expanduser(path))
        return Path(os.path.expanduser(os.environ.get("XDG_CACHE_HOME") or "~/.cache"), "lrwd-sweep")

    def check(self, specs: Iterable[StudySpec]) -> None:
        """Raise UsageError for an option that has no effect on any of the data sets."""
        if self.folder == "":
            raise UsageError(
                f"{arg('data_dir', '')} is not a folder; name one, as in {arg('data_dir', '~/data')}"
            )
        names = dict.fromkeys(spec.task.data for spec in specs if spec.task)
        without = [n for n in names if n == "digits" or is_text(n) or n.startswith(PREFIX) or is_user_code(n)]
        if len(without) == len(names) and (self.download or self.folder is not None):
            option = arg("download", True) if self.download else arg("data_dir")
            raise UsageError(
                f"{option} has no effect on {', '.join(without)}, which needs no such files: leave it out"
            )
        if self.download and set(names) - set(without) == {"imagenet32"}:
            raise UsageError(
                f"{arg('download', True)}: imagenet32 is given only to holders of an "
                "account at image-net.org; leave it "
                "out, and the same command says where to put the files"
            )
