"""ImageNet32x32: 1,281,167 training and 50,000 validation images in 1,000 classes (Chrabaszcz et al. 2017).

The labels of ImageNet's test images are not public: the published validation images are the test split here,
and 50,000 training images, drawn by a fixed seed, are the validation split.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from lrwd_sweep.data.images import Images, as_splits, broken, held_out, read_pickle
from lrwd_sweep.data.splits import Splits
from lrwd_sweep.errors import DataError, arg
from lrwd_sweep.spec.catalog import DataSet
from lrwd_sweep.spec.data_files import DataFiles

TRAIN = tuple(f"train_data_batch_{k}" for k in range(1, 11))
TEST = "val_data"
FOLDERS = ("imagenet32", "Imagenet32_train", "Imagenet32_val", "Imagenet32_train_npz", "Imagenet32_val_npz")


def load(files: DataFiles, sizes: DataSet) -> Splits:
    """Read the pickled batches or the npz files. Raises DataError if they are missing or corrupt."""
    *train, test = [_find(files.root, name) for name in (*TRAIN, TEST)]
    kept, validation = held_out((_read(path, sizes) for path in train), sizes, train[0].parent)
    return as_splits(kept, validation, _read(test, sizes), sizes, test.parent)


def _find(root: Path, name: str) -> Path:
    """Return a batch in either format, from a folder that its archive makes, possibly inside `imagenet32`."""
    folders = [root / folder for folder in FOLDERS]
    folders += [root / FOLDERS[0] / folder for folder in FOLDERS[1:]]
    for folder in (*folders, root):
        for path in (folder / name, folder / f"{name}.npz"):
            if path.is_file():
                return path
    raise DataError(
        f"imagenet32 is not in {root} (no {name}); get Imagenet32_train and Imagenet32_val, or their npz "
        f"files, from image-net.org, which asks for an account, and unpack them in {root / FOLDERS[0]}, or "
        f"name another folder by {arg('data_dir')}"
    )


def _read(path: Path, sizes: DataSet) -> Images:
    """Read `data` (n, 3072) and `labels` (n,) from 1."""
    table = _read_npz(path) if path.suffix == ".npz" else read_pickle(path)
    for key in ("data", "labels"):
        if key not in table:
            raise broken(path, f"has no {key!r}")
    return Images.checked(path, table["data"], table["labels"], sizes, first=1)


def _read_npz(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {key: archive[key] for key in ("data", "labels") if key in archive}
    except Exception as error:  # numpy and zlib fail in many ways on a corrupt file
        raise broken(path, f"is not a readable npz file ({error})") from None
