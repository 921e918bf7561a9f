"""SVHN, the digits of house numbers: 73,257 training and 26,032 test images of 32×32 (Netzer et al. 2011).

5,000 of the training images are held out for validation, drawn by a fixed seed. The easier "extra" images
are left out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from lrwd_sweep.data.download import Published
from lrwd_sweep.data.files import Files
from lrwd_sweep.data.images import Images, as_splits, broken, held_out
from lrwd_sweep.data.splits import Splits
from lrwd_sweep.spec.catalog import DATA_SETS, DataSet

_SITE = "http://ufldl.stanford.edu/housenumbers"
_SHA256 = {
    "train_32x32.mat": "435e94d69a87fde4fd4d7f3dd208dfc32cb6ae8af2240d066de1df7508d083b8",
    "test_32x32.mat": "cdce80dfb2a2c4c6160906d0bd7c68ec5a99d7ca4831afa54f09182025b6a75b",
}
PUBLISHED = [Published(name, f"{_SITE}/{name}", sha256) for name, sha256 in _SHA256.items()]
_ZERO = 10  # the label of the digit 0


def load(files: Files | None = None, sizes: DataSet | None = None) -> Splits:
    """The splits. Raises DataError when files are missing, broken or not what `sizes` says."""
    files, sizes = files or Files(), sizes or DATA_SETS["svhn"]
    train, test = files.obtain("svhn", PUBLISHED)
    images = _read(train, sizes, sizes.train + sizes.validation)
    return as_splits(*held_out([images], sizes, train), _read(test, sizes, sizes.test), sizes, test)


def _read(path: Path, sizes: DataSet, count: int) -> Images:
    """X (H, W, C, n) and y (n, 1) of a MATLAB file; its labels are 1 to 10."""
    from scipy import io  # type: ignore[import-untyped]  # noqa: PLC0415 - slow to load, for this set alone

    channels, height, width = sizes.shape
    wanted = {"X": ((height, width, channels, count), "uint8"), "y": ((count, 1), "uint8")}
    table: dict[str, Any] = {}
    try:
        found = {name: (shape, kind) for name, shape, kind in io.whosmat(path)}  # before anything is unpacked
        if all(found.get(name) == form for name, form in wanted.items()):
            table = io.loadmat(path, variable_names=list(wanted))
    except Exception as error:  # whatever a broken file makes of scipy
        raise broken(path, f"is no MATLAB file that can be read ({error})") from None
    for name, (shape, kind) in wanted.items():
        if found.get(name) != (shape, kind):
            have = "{1} {0}".format(*found[name]) if name in found else "nothing"
            raise broken(path, f"holds {have} as {name} instead of {kind} {shape}")
    x = np.ascontiguousarray(table["X"].transpose(3, 2, 0, 1))
    digits = Images.checked(path, x, table["y"].reshape(-1), sizes, first=1)
    return Images(digits.x, (digits.y + 1) % _ZERO)
