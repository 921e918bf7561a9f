"""CIFAR-10 and CIFAR-100: 50,000 training and 10,000 test images of 32×32 (Krizhevsky 2009).

5,000 of the training images are held out for validation, drawn by a fixed seed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lrwd_sweep.data.download import Published
from lrwd_sweep.data.files import Files
from lrwd_sweep.data.images import Images, as_splits, broken, held_out
from lrwd_sweep.data.pickled import read_pickle
from lrwd_sweep.data.splits import Splits
from lrwd_sweep.spec.catalog import DATA_SETS, DataSet


@dataclass(frozen=True, slots=True)
class Cifar:
    """One of the two, in the pickled batches of its "python version"."""

    name: str
    archive: Published
    folder: str  # that the archive holds
    train: tuple[str, ...]
    test: str
    labels: str  # their key

    def load(self, files: Files | None = None, sizes: DataSet | None = None) -> Splits:
        """The splits. Raises DataError when files are missing, broken or not what `sizes` says."""
        files, sizes = files or Files(), sizes or DATA_SETS[self.name]
        members = [f"{self.folder}/{name}" for name in (*self.train, self.test)]
        *train, test = files.unpacked(self.name, self.archive, members)
        kept, validation = held_out((self._read(path, sizes) for path in train), sizes, test.parent)
        return as_splits(kept, validation, self._read(test, sizes), sizes, test.parent)

    def _read(self, path: Path, sizes: DataSet) -> Images:
        table = read_pickle(path)
        for key in ("data", self.labels):
            if key not in table:
                raise broken(path, f"has no {key!r}")
        return Images.checked(path, table["data"], table[self.labels], sizes)


_SITE = "https://www.cs.toronto.edu/~kriz"

CIFAR10 = Cifar(
    "cifar10",
    Published(
        "cifar-10-python.tar.gz",
        f"{_SITE}/cifar-10-python.tar.gz",
        "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
    ),
    "cifar-10-batches-py",
    tuple(f"data_batch_{k}" for k in range(1, 6)),
    "test_batch",
    "labels",
)
CIFAR100 = Cifar(
    "cifar100",
    Published(
        "cifar-100-python.tar.gz",
        f"{_SITE}/cifar-100-python.tar.gz",
        "85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
    ),
    "cifar-100-python",
    ("train",),
    "test",
    "fine_labels",
)
