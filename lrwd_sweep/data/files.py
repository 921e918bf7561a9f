"""Where the files of data sets live, and how they come there."""

from __future__ import annotations

import hashlib
import os
import tarfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lrwd_sweep.data.download import OnBytes, Published, download, unseen
from lrwd_sweep.errors import DataError


def data_folder(given: str | None = None) -> Path:
    """`given`, else $LRWD_DATA, else lrwd-sweep in the user's cache."""
    if path := given or os.environ.get("LRWD_DATA"):
        return Path(os.path.expanduser(path))
    return Path(os.path.expanduser(os.environ.get("XDG_CACHE_HOME") or "~/.cache"), "lrwd-sweep")


@dataclass(frozen=True, slots=True)
class Files:
    """A folder with data sets, laid out as torchvision does it."""

    root: Path = field(default_factory=data_folder)
    may_download: bool = False
    on_bytes: OnBytes = unseen

    def obtain(self, data_set: str, published: Sequence[Published], absent: str = "") -> list[Path]:
        """Where each file of a data set is; what is missing is downloaded if it may be.

        A `.gz` may also be there unpacked. Raises DataError, which names what is `absent`.
        """
        found = [self._find(file) for file in published]
        missing = [file for file, path in zip(published, found, strict=True) if path is None]
        if missing and not self.may_download:
            raise DataError(
                f"{data_set} is not in {self.root} (no {absent or missing[0].path}); add --download, put "
                f"{_listed([file.path for file in missing])} there, or name another folder by --data-dir"
            )
        for file in missing:
            download(file, self.root / file.path, self.on_bytes)
        return [path or self.root / file.path for path, file in zip(found, published, strict=True)]

    def _find(self, file: Published) -> Path | None:
        whole = self.root / file.path
        unpacked = [whole.with_suffix("")] if whole.suffixes == [".gz"] else []
        return next((path for path in (*unpacked, whole) if path.is_file()), None)

    def unpacked(self, data_set: str, archive: Published, members: Sequence[str]) -> list[Path]:
        """Where each member of a tar archive is; unpacked next to it where one is missing.

        Raises DataError, also when the archive is not the published one.
        """
        paths = [self.root / member for member in members]
        absent = [member for member, path in zip(members, paths, strict=True) if not path.is_file()]
        if not absent:
            return paths
        (source,) = self.obtain(data_set, [archive], absent[0])
        refuse_other(source, archive)
        try:
            with tarfile.open(source, "r:gz") as tar:
                for member, path in zip(members, paths, strict=True):
                    _write(tar, member, path)
        except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
            raise DataError(f"cannot unpack {source}: {error}; unpack it by hand in {self.root}") from None
        return paths


def refuse_other(path: Path, published: Published) -> None:
    """Raise DataError when a file is not the published one, by its SHA-256."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != published.sha256:
        raise DataError(
            f"{path} is not the published file: its SHA-256 is {digest}; remove it and get it again"
        )


def _write(tar: tarfile.TarFile, member: str, path: Path) -> None:
    """One regular file of the archive, under its name only when it is whole."""
    content = tar.extractfile(member) if member in tar.getnames() else None
    if content is None:
        raise tarfile.TarError(f"it holds no file {member}")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    with part.open("wb") as file:
        while block := content.read(1 << 20):
            file.write(block)
    part.replace(path)


def _listed(paths: Sequence[str]) -> str:
    return paths[0] if len(paths) == 1 else f"{', '.join(paths[:-1])} and {paths[-1]}"
