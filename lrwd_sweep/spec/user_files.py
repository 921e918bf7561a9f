"""User files: texts, and folders of images by split and class; read and counted without torch."""

from __future__ import annotations

import hashlib
import os
import random
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, pairwise
from pathlib import Path

from lrwd_sweep.errors import DataError, UsageError, arg

PREFIX = "folder:"
SIDE = 32  # pixels of an image's side, by default
MOST_SIDE = 1024
HELD_OUT = 0.1  # of every class, at least one image, for each split without a folder
SPLIT_SEED = 0
EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")  # as torchvision
CHARACTERS, BYTES, PYTHON_DOCS = "text:", "text-bytes:", "python-docs"
DOCS = 1 << 17  # characters of python-docs
_DIGITS = 12  # of a digest: two texts share one with probability 10⁻¹⁴

Sample = tuple[str, int]  # path and class
Stamp = tuple[str, int, int]  # path, size, time of the last change


@dataclass(frozen=True, slots=True)
class Text:
    """A text by characters or bytes; its vocabulary is what occurs in it, sorted."""

    tokens: str | bytes
    vocabulary: str | bytes
    digest: str

    def ranges(self, context: int) -> tuple[range, range, range]:
        """Return the tokens of train, validation and test: the first 80 %, and 10 % each after it.

        Each begins whole windows x of `context` tokens; y is one token further, and within the range too.
        """
        total = len(self.tokens)
        bounds = [0, total * 8 // 10, total * 9 // 10, total]
        train, validation, test = (
            range(low, low + max(0, high - low - 1) // context * context) for low, high in pairwise(bounds)
        )
        return train, validation, test


def is_text(name: str) -> bool:
    """Test whether a data set of that name is a text.

    >>> is_text("text:corpus.txt"), is_text("text-bytes:corpus"), is_text("digits")
    (True, True, False)
    """
    return name == PYTHON_DOCS or name.startswith((CHARACTERS, BYTES))


def read_text(name: str, context: int) -> Text:
    """Read a text of at least a window in every split. Raises UsageError."""
    text = _python_docs() if name == PYTHON_DOCS else _files(name)
    unit, path = "characters", name.partition(":")[2] or name
    if isinstance(text.tokens, bytes):
        unit = "bytes"
    if len(text.vocabulary) < 2:
        raise UsageError(
            f"{arg('data', name)}: {path!r} has {len(text.tokens)} {unit} and only {len(text.vocabulary)} "
            "different; give a text"
        )
    if not all(text.ranges(context)):
        least = 10 * (context + 1)
        raise UsageError(
            f"{arg('data', name)}: {path!r} has {len(text.tokens)} {unit}, and windows of {context} need "
            f"{least}; give a longer text, or a smaller context in {arg('net_options')}"
        )
    return text


def _files(name: str) -> Text:
    kind = BYTES if name.startswith(BYTES) else CHARACTERS
    path = name.removeprefix(kind)
    if not path:
        raise UsageError(f"{arg('data', name)}: write {kind}PATH, a file or a folder of files")
    root = Path(os.path.expanduser(path))
    if not (os.path.isfile(root) or os.path.isdir(root)):
        raise UsageError(
            f"{arg('data', name)}: there is no file or folder {path!r}; paths begin at {os.getcwd()!r}"
        )
    try:
        stamps = [(str(one), one.stat().st_size, one.stat().st_mtime_ns) for one in _below(root)]
        if not stamps:
            raise UsageError(f"{arg('data', name)}: the folder {path!r} holds no files; put some in it")
        return _joined(name, kind, tuple(stamps))
    except OSError as error:
        raise UsageError(
            f"{arg('data', name)}: {error.filename!r} cannot be read ({error.strerror}); mend or remove it"
        ) from None


def _below(root: Path) -> Iterator[Path]:
    """Yield the file, or all files of a folder in the order of their paths; hidden ones are left out."""
    if os.path.isfile(root):
        yield root
    found = []
    for where, folders, names in os.walk(root, followlinks=True):
        folders[:] = [one for one in folders if not one.startswith(".")]
        files = (Path(where, one) for one in names if not one.startswith("."))
        found += [one for one in files if os.path.isfile(one)]
    yield from sorted(found, key=lambda one: one.relative_to(root).parts)


@lru_cache(maxsize=1)
def _joined(name: str, kind: str, stamps: tuple[Stamp, ...]) -> Text:
    """Read the files one after another; once, unless one has changed."""
    parts = [Path(path).read_bytes() for path, _, _ in stamps]
    if kind == BYTES:
        return _text(b"".join(parts))
    texts = []
    for (path, _, _), part in zip(stamps, parts, strict=True):
        try:
            texts.append(part.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise UsageError(
                f"{arg('data', name)}: {path!r} is not UTF-8 at byte {error.start}; convert or remove it, "
                f"or read bytes, as {arg('data', name.replace(CHARACTERS, BYTES, 1))}"
            ) from None
    return _text("".join(texts))


@lru_cache(maxsize=1)
def _python_docs() -> Text:
    """Join the topics of Python's help(), each paragraph once, as several topics repeat what others say."""
    try:
        from pydoc_data.topics import topics  # noqa: PLC0415 - large
    except ImportError:
        version = ".".join(map(str, sys.version_info[:2]))
        raise UsageError(
            f"{arg('data', PYTHON_DOCS)}: this Python {version} has no pydoc_data; choose a text of your own"
        ) from None
    parts = (part.strip("\n") for name in sorted(topics) for part in topics[name].split("\n\n"))
    return _text("\n\n".join(dict.fromkeys(filter(None, parts)))[:DOCS])


def _text(tokens: str | bytes) -> Text:
    if isinstance(tokens, bytes):
        return Text(tokens, bytes(sorted(set(tokens))), _digest(b"bytes;" + tokens))
    return Text(tokens, "".join(sorted(set(tokens))), _digest(tokens.encode()))


def _digest(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()[:_DIGITS]


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


def scan_images(name: str) -> ImageFolder:
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
