"""ImageNet32x32: 1,281,167 training and 50,000 validation images in 1,000 classes (Chrabaszcz et al. 2017).

The labels of ImageNet's test images are nobody's: the published validation images are the test split here,
and 50,000 training images, drawn by a fixed seed, are the validation split.
"""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from lrwd_sweep.data.files import Files
from lrwd_sweep.data.images import Images, as_splits, broken, held_out
from lrwd_sweep.data.pickled import read_pickle
from lrwd_sweep.data.splits import Splits
from lrwd_sweep.errors import DataError
from lrwd_sweep.spec.catalog import DATA_SETS, DataSet

TRAIN = tuple(f"train_data_batch_{k}" for k in range(1, 11))
TEST = "val_data"
FOLDERS = ("imagenet32", "Imagenet32_train", "Imagenet32_val", "Imagenet32_train_npz", "Imagenet32_val_npz")
_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
_BROKEN_ZIP = (zipfile.BadZipFile, zlib.error)


def load(files: Files | None = None, sizes: DataSet | None = None) -> Splits:
    """The splits, from the pickled batches or the npz files. Raises DataError when they are not as said."""
    files, sizes = files or Files(), sizes or DATA_SETS["imagenet32"]
    *train, test = [_find(files.root, name) for name in (*TRAIN, TEST)]
    kept, validation = held_out(_parts(train, sizes), sizes, train[0].parent)
    return as_splits(kept, validation, _read(test, sizes, sizes.test), sizes, test.parent)


def _find(root: Path, name: str) -> Path:
    """A batch in either format, in a folder as its archive makes it, or in one of those in `imagenet32`."""
    folders = [root / folder for folder in FOLDERS]
    folders += [root / FOLDERS[0] / folder for folder in FOLDERS[1:]]
    for folder in (*folders, root):
        for path in (folder / name, folder / f"{name}.npz"):
            if path.is_file():
                return path
    raise DataError(
        f"imagenet32 is not in {root} (no {name}); get Imagenet32_train and Imagenet32_val, or their npz "
        f"files, from image-net.org, which asks for an account, and unpack them in {root / FOLDERS[0]}, or "
        "name another folder by --data-dir"
    )


def _parts(paths: list[Path], sizes: DataSet) -> Iterator[Images]:
    for path in paths:
        yield _read(path, sizes, sizes.train + sizes.validation)


def _read(path: Path, sizes: DataSet, most: int) -> Images:
    """`data` (n, 3072) and `labels` (n,) from 1, of at most that many images."""
    table = _read_npz(path, sizes, most) if path.suffix == ".npz" else read_pickle(path)
    for key in ("data", "labels"):
        if key not in table:
            raise broken(path, f"has no {key!r}")
    return Images.checked(path, table["data"], table["labels"], sizes, first=1)


def _read_npz(path: Path, sizes: DataSet, most: int) -> dict[str, Any]:
    """The arrays that a data set needs; one that unpacks to more than it can hold is not unpacked."""
    bytes_each = {"data": int(np.prod(sizes.shape)), "labels": 8}
    table = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for key in bytes_each.keys() & {name.removesuffix(".npy") for name in archive.namelist()}:
                with archive.open(f"{key}.npy") as file:
                    shape, _, kind = _HEADERS[npy.read_magic(file)](file)
                    if math.prod(shape) * kind.itemsize > most * bytes_each[key]:
                        raise broken(path, f"unpacks to more {key} than {most:,} images have")
                    file.seek(0)
                    table[key] = npy.read_array(file, allow_pickle=False)
    except (OSError, EOFError, ValueError, LookupError, NotImplementedError, *_BROKEN_ZIP) as error:
        raise broken(path, f"is no npz file that can be read ({error})") from None
    return table
