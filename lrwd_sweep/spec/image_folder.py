"""User images: the files of a folder, listed by split and class without opening any."""

from __future__ import annotations

import os
import random
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from lrwd_sweep.errors import DataError, UsageError, arg

PREFIX = "folder:"
SIDE = 32  # pixels of an image's side, by default
MOST_SIDE = 1024
HELD_OUT = 0.1  # of every class, at least one image, for each split without a folder
SPLIT_SEED = 0
EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")  # as torchvision

Sample = tuple[str, int]  # path and class


@dataclass(frozen=True, slots=True)
class ImageFolder:
    """The images of `folder:PATH@SIZE`: PATH/train/CLASS/*.png, and validation/ (or val/) and test/ likewise.

    A split without a folder is taken from the training images, class by class by a fixed seed.
    """

    side: int
    classes: tuple[str, ...]  # in the order of their numbers
    train: tuple[Sample, ...]
    validation: tuple[Sample, ...]
    test: tuple[Sample, ...]


def scan(name: str) -> ImageFolder:
    """List the folder of a name. Raises UsageError (the name is wrong) or DataError (the folder is)."""
    root, side = _parsed(name)
    train = root / "train"
    if not train.is_dir():
        raise DataError(
            f"{arg('data', name)}: there is no folder {str(train)!r}; put the images of a "
            "class in train/CLASS"
        )
    classes = tuple(sorted(_folders(train)))
    if len(classes) < 2:
        raise DataError(f"{str(train)!r} holds {len(classes)} classes; put the images of each in a folder")
    left = {label: _images(train / folder) for label, folder in enumerate(classes)}
    validation, test = (_split(root, names, classes) for names in (("validation", "val"), ("test",)))
    if validation is None:
        validation = _held_out(left, train, classes, "validation")
    if test is None:
        test = _held_out(left, train, classes, "test")
    return ImageFolder(side, classes, _flat(left), validation, test)


def _parsed(name: str) -> tuple[Path, int]:
    path, at, size = name.removeprefix(PREFIX).rpartition("@")
    if not at or not size.isdecimal():
        path, size = name.removeprefix(PREFIX), str(SIDE)
    if not path or not 1 <= len(size) <= 4 or not 4 <= int(size) <= MOST_SIDE:
        raise UsageError(
            f"{arg('data', name)}: write folder:PATH, or folder:PATH@SIZE with 4 to {MOST_SIDE} pixels a side"
        )
    return Path(os.path.expanduser(path)), int(size)


def _split(root: Path, names: Iterable[str], classes: tuple[str, ...]) -> tuple[Sample, ...] | None:
    """List the folder of a split, or return None if it does not exist."""
    folder = next((root / name for name in names if (root / name).is_dir()), None)
    if folder is None:
        return None
    for name in _folders(folder):
        if name not in classes:
            raise DataError(
                f"{str(folder / name)!r} is a class that train does not have; add it there, or remove it"
            )
    labels = {label: folder / name for label, name in enumerate(classes) if (folder / name).is_dir()}
    found = _flat({label: _images(path) for label, path in labels.items()})
    if not found:
        raise DataError(f"{str(folder)!r} holds no images; put some in it, or remove it")
    return found


def _held_out(
    left: dict[int, list[str]], train: Path, classes: tuple[str, ...], split: str
) -> tuple[Sample, ...]:
    """Move a split's share out of the images that are left of every class."""
    stream = random.Random(f"{SPLIT_SEED} {split}")
    taken = {}
    for label, paths in left.items():
        count = max(1, round(HELD_OUT * len(paths)))
        if count >= len(paths):
            raise DataError(
                f"{str(train / classes[label])!r} has too few images to hold any out; add some, or a "
                f"folder {split!r}"
            )
        chosen = set(sorted(paths, key=lambda _: stream.random())[:count])
        taken[label] = [path for path in paths if path in chosen]
        left[label] = [path for path in paths if path not in chosen]
    return _flat(taken)


def _flat(by_class: dict[int, list[str]]) -> tuple[Sample, ...]:
    return tuple(chain.from_iterable([(path, label) for path in paths] for label, paths in by_class.items()))


def _folders(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return [entry.name for entry in entries if entry.is_dir() and not entry.name.startswith(".")]


def _images(folder: Path) -> list[str]:
    """Return the image files at any depth, sorted. Raises DataError if there are none."""
    found = [
        os.path.join(where, file)
        for where, _, files in os.walk(folder, followlinks=True)
        for file in files
        if file.lower().endswith(EXTENSIONS) and not file.startswith(".")
    ]
    if not found:
        raise DataError(
            f"{str(folder)!r} holds no images ({' '.join(EXTENSIONS)}); put some in it, or remove it"
        )
    return sorted(found)
