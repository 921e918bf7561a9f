"""Images of a data set's files: read, checked, and divided into splits."""

from __future__ import annotations

import pickle
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from lrwd_sweep.data.splits import Pixels, Split, Splits
from lrwd_sweep.errors import DataError
from lrwd_sweep.spec.catalog import DataSet

HOLD_OUT_SEED = 0
_LONGEST = 300  # characters of a message, which may quote the file

Bytes = np.ndarray[Any, np.dtype[np.uint8]]
Labels = np.ndarray[Any, np.dtype[np.int64]]


def broken(path: Path, what: str) -> DataError:
    """Return the error for a corrupt file; `what` may be long, or have lines."""
    return DataError(f"{path} {' '.join(what.split())[:_LONGEST]}; remove it and get it again")


_CORES = ("numpy.core", "numpy._core")  # of numpy 1 and 2
_NAMES: dict[tuple[str, str], Any] = {  # what arrays are pickled with, and what it does here
    ("numpy", "ndarray"): None,  # an argument of _reconstruct, never called
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): lambda text, _: text.encode("latin-1"),
    **{(f"{core}.multiarray", "_reconstruct"): lambda *_: np.empty(0, np.uint8) for core in _CORES},
    **{
        (f"{core}.numeric", "_frombuffer"): lambda raw, kind, shape, order: np.frombuffer(raw, kind).reshape(
            shape, order=order
        )
        for core in _CORES
    },
}


class _Unpickler(pickle.Unpickler):
    """An unpickler of containers, text, numbers and numpy arrays that imports nothing."""

    def find_class(self, module: str, name: str) -> Any:
        """Return what stands for an allowed name."""
        if (module, name) not in _NAMES:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return _NAMES[module, name]


def read_pickle(path: Path) -> dict[str, Any]:
    """Read a dictionary of arrays and lists, pickled by Python 2 or 3. Raises DataError."""
    try:
        with path.open("rb") as file:
            table = _Unpickler(file, encoding="latin-1").load()
    except Exception as error:  # a corrupt pickle raises nearly anything
        raise broken(path, f"is not a pickled data set ({error or type(error).__name__})") from None
    if not isinstance(table, dict):
        raise broken(path, f"is not a pickled data set (but {_kind(table)})")
    return table


@dataclass(frozen=True, slots=True)
class Images:
    """Images with their classes."""

    x: Bytes  # (n, C, H, W)
    y: Labels  # (n,), from 0

    @classmethod
    def checked(cls, path: Path, x: Any, y: Any, sizes: DataSet, *, first: int = 0) -> Self:
        """Check what a file holds, its classes counted from `first`. Raises DataError naming the file."""
        if not isinstance(x, np.ndarray) or x.dtype != np.uint8:
            raise broken(path, f"holds no images of bytes but {_kind(x)}")
        if x.ndim < 2 or x[0:1].size != int(np.prod(sizes.shape)):
            raise broken(path, f"holds images of shape {x.shape[1:]} instead of {sizes.shape}")
        labels = y.tolist() if isinstance(y, np.ndarray) and y.ndim == 1 and y.dtype.kind in "iu" else y
        if not isinstance(labels, list) or not all(type(label) is int for label in labels):
            raise broken(path, f"holds no labels but {_kind(y)}")
        if len(labels) != len(x):
            raise broken(path, f"holds {len(labels)} labels for {len(x)} images")
        last = first + sizes.classes - 1
        for label in (min(labels), max(labels)):
            if not first <= label <= last:
                raise broken(path, f"is mislabelled: it has the label {label}, outside {first} to {last}")
        return cls(x.reshape(-1, *sizes.shape), np.asarray(labels, np.int64) - first)

    @classmethod
    def empty(cls, count: int, sizes: DataSet) -> Self:
        """Allocate room for `count` images."""
        return cls(np.empty((count, *sizes.shape), np.uint8), np.empty(count, np.int64))

    def split(self, pixels: Pixels) -> Split:
        """Return the images as a split."""
        x = np.require(self.x, requirements="W")  # an array out of a file may be read-only
        return Split(torch.from_numpy(x), torch.from_numpy(self.y), pixels)


def held_out(parts: Iterable[Images], sizes: DataSet, where: Path) -> tuple[Images, Images]:
    """Divide the training part of a data set, file by file, into training and validation images.

    `sizes.validation` images are drawn by a fixed seed. At most one file is in memory twice.
    Raises DataError if the files hold more or fewer images than `sizes` says.
    """
    total = sizes.train + sizes.validation
    chosen = np.zeros(total, np.bool_)
    chosen[np.random.default_rng(HOLD_OUT_SEED).permutation(total)[: sizes.validation]] = True
    train, validation = Images.empty(sizes.train, sizes), Images.empty(sizes.validation, sizes)
    at, seen = {id(train): 0, id(validation): 0}, 0
    for part in parts:
        mine = chosen[seen : seen + len(part.y)]
        seen += len(part.y)
        if seen > total:
            raise broken(where, f"holds more than {total} training images")
        for to, rows in ((train, ~mine), (validation, mine)):
            begin, end = at[id(to)], at[id(to)] + int(rows.sum())
            to.x[begin:end], to.y[begin:end] = part.x[rows], part.y[rows]
            at[id(to)] = end
    if seen < total:
        raise broken(where, f"holds {seen} training images instead of {total}")
    return train, validation


def as_splits(train: Images, validation: Images, test: Images, sizes: DataSet, where: Path) -> Splits:
    """Return the splits, normalised with the training statistics. Raises DataError if a class is missing."""
    if len(test.y) != sizes.test:
        raise broken(where, f"holds {len(test.y)} test images instead of {sizes.test}")
    counts = np.bincount(train.y, minlength=sizes.classes)
    if not counts.all():
        raise broken(where, f"is mislabelled: no training image has class {int(counts.argmin())}, from 0")
    pixels = Pixels.of(torch.from_numpy(train.x))
    return Splits(train.split(pixels), validation.split(pixels), test.split(pixels))


def _kind(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"an array of {value.dtype} {value.shape}"
    if isinstance(value, list):
        return f"a list of {' and '.join(sorted({type(item).__name__ for item in value}))}"
    return type(value).__name__
