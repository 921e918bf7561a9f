"""From the images of a data set's files to its splits, with all that can be wrong on the way."""

from __future__ import annotations

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
_LONGEST = 300  # characters of a complaint, which may quote the file

Bytes = np.ndarray[Any, np.dtype[np.uint8]]
Labels = np.ndarray[Any, np.dtype[np.int64]]


def broken(path: Path, what: str) -> DataError:
    """A file that is not what it should be; `what` may be long, or have lines."""
    return DataError(f"{path} {' '.join(what.split())[:_LONGEST]}; remove it and get it again")


@dataclass(frozen=True, slots=True)
class Images:
    """Some images with their classes, both checked."""

    x: Bytes  # (n, C, H, W)
    y: Labels  # (n,), from 0

    @classmethod
    def checked(cls, path: Path, x: Any, y: Any, sizes: DataSet, *, first: int = 0) -> Self:
        """What a file holds, its classes counted from `first`. Raises DataError naming the file."""
        if not isinstance(x, np.ndarray) or x.dtype != np.uint8:
            raise broken(path, f"holds no images of bytes but {_kind(x)}")
        if x.ndim < 2 or x[0:1].size != int(np.prod(sizes.shape)):
            raise broken(path, f"holds images of shape {x.shape[1:]} instead of {sizes.shape}")
        labels = y.tolist() if isinstance(y, np.ndarray) and y.ndim == 1 else y
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
        """Room for `count` images."""
        return cls(np.empty((count, *sizes.shape), np.uint8), np.empty(count, np.int64))

    def split(self, pixels: Pixels) -> Split:
        """These as a split."""
        x = np.require(self.x, requirements="W")  # what is read from a file may not be written to
        return Split(torch.from_numpy(x), torch.from_numpy(self.y), pixels)


def held_out(parts: Iterable[Images], sizes: DataSet, where: Path) -> tuple[Images, Images]:
    """The training part of a data set, file by file, without the validation images, and those.

    They are `sizes.validation` images drawn by a fixed seed. At no time is more than one file held twice.
    Raises DataError when the files hold more or fewer images than `sizes` says.
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
    """The splits, normalised with the training statistics. Raises DataError where classes are missing."""
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
