"""Data sets that torchvision knows: MNIST, FashionMNIST, SVHN, CIFAR-10 and CIFAR-100, in its folder layout.

torchvision downloads and verifies them. 5,000 of the published training images are held out for validation,
drawn by a fixed seed; SVHN's easier "extra" images are left out.
"""

from __future__ import annotations

import http.client
import io
import os
import socket
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from torchvision import datasets
from torchvision.datasets.mnist import read_image_file, read_label_file
from torchvision.datasets.utils import check_integrity, download_url, extract_archive

from lrwd_sweep.data.images import as_splits, broken, checked, held_out, read_pickle
from lrwd_sweep.data.splits import Split, Splits
from lrwd_sweep.errors import DataError, arg, brief
from lrwd_sweep.spec.catalog import DataSet
from lrwd_sweep.spec.job import DataFiles

_SECONDS = 30.0  # without an answer before a download counts as failed
Parts = tuple[Sequence[Split], Split]  # training images, file by file, and test images


def load(name: str, files: DataFiles, sizes: DataSet) -> Splits:
    """Read a data set. Raises DataError if files are missing, corrupt or not of the expected `sizes`."""
    train, test = _READERS[name](name, files, sizes)
    return as_splits(*held_out(train, sizes, files.root), test, sizes, files.root)


def _cifar(kind: Any, labels: str, name: str, files: DataFiles, sizes: DataSet) -> Parts:
    """Read the batches, unpacked out of their archive if they are not there yet."""
    archive = _File(kind.filename, kind.tgz_md5, (kind.url,))
    batches = [_File(f"{kind.base_folder}/{file}", md5) for file, md5 in (*kind.train_list, *kind.test_list)]
    absent = [batch.path for batch in batches if not (files.root / batch.path).is_file()]
    if absent:
        _obtain(name, [archive], files, absent[0])
        _unpack(archive.verified(files.root), batches, files.root)
    paths = [batch.verified(files.root) for batch in batches]
    tables = [read_pickle(path) for path in paths]
    *train, test = [
        checked(path, table["data"], table[labels], sizes) for path, table in zip(paths, tables, strict=True)
    ]
    return train, test


def _mnist(kind: Any, name: str, files: DataFiles, sizes: DataSet) -> Parts:
    """Read four IDX files, each packed (.gz) or not."""
    folder = f"{kind.__name__}/raw"
    packed = [
        _File(f"{folder}/{file}", md5, tuple(f"{mirror}{file}" for mirror in kind.mirrors))
        for file, md5 in kind.resources
    ]
    _obtain(name, [file for file in packed if not file.unpacked(files.root).is_file()], files)
    reads = (read_image_file, read_label_file) * 2
    x, y, test_x, test_y = (_idx(file, files.root, read) for file, read in zip(packed, reads, strict=True))
    where, test_where = (packed[k].unpacked(files.root) for k in (1, 3))
    return [checked(where, x, y, sizes)], checked(test_where, test_x, test_y, sizes)


def _idx(file: _File, root: Path, read: Callable[[str], Any]) -> np.ndarray[Any, Any]:
    path = file.unpacked(root)
    with TemporaryDirectory() as folder:  # the user's may be read-only
        try:
            if not path.is_file():
                path = file.verified(root)
                return np.asarray(read(extract_archive(str(path), folder)))
            return np.asarray(read(str(path)))
        except DataError:
            raise
        except Exception as error:  # torchvision asserts, or fails in many ways
            raise broken(path, f"cannot be read as IDX ({type(error).__name__}: {error})") from None


def _svhn(name: str, files: DataFiles, sizes: DataSet) -> Parts:
    """Read two MATLAB files."""
    published = [datasets.SVHN.split_list[split] for split in ("train", "test")]
    wanted = [_File(file, md5, (url,)) for url, file, md5 in published]
    _obtain(name, wanted, files)
    found = []
    for split, file in zip(("train", "test"), wanted, strict=True):
        path = file.verified(files.root)
        read = datasets.SVHN(files.root, split)
        found.append(checked(path, np.ascontiguousarray(read.data), read.labels, sizes))
    return found[:1], found[1]


_READERS: dict[str, Callable[[str, DataFiles, DataSet], Parts]] = {
    "mnist": partial(_mnist, datasets.MNIST),
    "fashion-mnist": partial(_mnist, datasets.FashionMNIST),
    "svhn": _svhn,
    "cifar10": partial(_cifar, datasets.CIFAR10, "labels"),
    "cifar100": partial(_cifar, datasets.CIFAR100, "fine_labels"),
}


@dataclass(frozen=True, slots=True)
class _File:
    """A published file: its path below the data folder, and torchvision's checksum and addresses."""

    path: str
    md5: str
    urls: tuple[str, ...] = ()

    def unpacked(self, root: Path) -> Path:
        """Return the path without .gz."""
        return root / self.path.removesuffix(".gz")

    def verified(self, root: Path) -> Path:
        """Return the file's path. Raises DataError if its content is not the published one."""
        path = root / self.path
        if not check_integrity(path, self.md5):
            raise broken(path, f"is not the published file (its MD5 is not {self.md5})")
        return path


def _obtain(name: str, wanted: Sequence[_File], files: DataFiles, absent: str = "") -> None:
    """Download the files that are missing, if that is allowed. Raises DataError, naming what is `absent`."""
    missing = [file for file in wanted if not (files.root / file.path).is_file()]
    if missing and not files.download:
        *others, last = [file.path for file in missing]
        raise DataError(
            f"{name} is not in {files.root} (no {absent or missing[0].path}); add {arg('download', True)}, "
            f"put {', '.join(others)}{' and ' * bool(others)}{last} there, or name another folder by "
            f"{arg('data_dir')}"
        )
    for file in missing:
        _download(file, files)


def _download(file: _File, files: DataFiles) -> None:
    """Download a file from the first address that gives it; only the whole file gets its name."""
    path = files.root / file.path
    failed = ""
    for url in file.urls:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with TemporaryDirectory(prefix=".", dir=path.parent) as folder, _progress(url, files.quiet):
                download_url(url, folder, path.name, file.md5)
                os.replace(Path(folder, path.name), path)
        except (OSError, RuntimeError, http.client.HTTPException) as error:
            failed = failed or f"cannot download {url}: {brief(error) or type(error).__name__}"
        else:
            return
    raise DataError(f"{failed}; run the same command again, or put {path.name} in {path.parent}")


@contextmanager
def _progress(url: str, quiet: bool) -> Iterator[None]:
    """Show torchvision's bar on a terminal, and a line on any other stderr; do not wait for ever."""
    seconds = socket.getdefaulttimeout()
    moves = sys.stderr.isatty() and not quiet
    if not moves and not quiet:
        sys.stderr.write(f"downloading {url}\n")
    shown = sys.stderr if moves else io.StringIO()
    socket.setdefaulttimeout(_SECONDS)
    try:
        with redirect_stdout(shown), redirect_stderr(shown):
            yield
    finally:
        socket.setdefaulttimeout(seconds)


def _unpack(archive: Path, members: Sequence[_File], root: Path) -> None:
    """Unpack an archive, and move the members to their places once they are whole. Raises DataError."""
    try:
        with TemporaryDirectory(prefix=".", dir=root) as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # torchvision unpacks without a filter
            extract_archive(str(archive), folder)
            for member in members:
                (root / member.path).parent.mkdir(exist_ok=True)
                os.replace(Path(folder, member.path), root / member.path)
    except OSError as error:
        raise DataError(f"cannot unpack {archive}: {error}; unpack it by hand in {root}") from None
