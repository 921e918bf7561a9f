"""Where the files of a data set are found, and whether what is missing is downloaded."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lrwd_sweep.errors import UsageError
from lrwd_sweep.report.view import consoles
from lrwd_sweep.report.view.consoles import Download
from lrwd_sweep.spec.image_folder import PREFIX
from lrwd_sweep.spec.own_code import is_own
from lrwd_sweep.spec.study import StudySpec

if TYPE_CHECKING:
    from lrwd_sweep.data import Files


@dataclass(frozen=True, slots=True)
class DataFiles:
    """What `--data-dir` and `--download` say."""

    folder: str | None = None
    download: bool = False

    def check(self, specs: Iterable[StudySpec]) -> None:
        """Raise UsageError when an option was given that means nothing to any of the data sets."""
        if self.folder == "":
            raise UsageError("--data-dir '' is no folder; name one, as in --data-dir ~/data")
        names = dict.fromkeys(spec.task.data for spec in specs if spec.task)
        own = [name for name in names if name == "digits" or name.startswith(PREFIX) or is_own(name)]
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

    def open(self, *, shown: bool = True) -> Files:
        """For the engine; a download is `shown` on stderr."""
        from lrwd_sweep.data import Files
        from lrwd_sweep.data.download import unseen
        from lrwd_sweep.data.files import data_folder

        return Files(
            data_folder(self.folder), self.download, Download(consoles.stderr()) if shown else unseen
        )
