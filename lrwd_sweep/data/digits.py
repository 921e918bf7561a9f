"""The UCI handwritten digits that ship inside scikit-learn: 1,797 images of 8×8, few-shot split."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import torch

from lrwd_sweep.data.splits import Split, Splits
from lrwd_sweep.errors import DataError
from lrwd_sweep.spec.catalog import DATA_SETS, DataSet

SPLIT_SEED = 0


def _read() -> np.ndarray:
    """Read the table (1797, 65): 64 pixels and the label.

    It lies in scikit-learn's folder; importing scikit-learn would double the start-up time.
    """
    found = importlib.util.find_spec("sklearn")
    path = Path(found.origin or "").parent / "datasets" / "data" / "digits.csv.gz" if found else None
    if path is not None and path.is_file():
        return np.loadtxt(path, delimiter=",")
    try:
        from sklearn.datasets import load_digits  # noqa: PLC0415 - in case its files have moved
    except ImportError:
        raise DataError(
            "the digits ship inside scikit-learn, which is missing; pip install scikit-learn"
        ) from None
    x, y = load_digits(return_X_y=True)
    return np.column_stack([x, y])


def load(sizes: DataSet = DATA_SETS["digits"]) -> Splits:
    """Read 400 training, 697 validation and 700 test images (n, 1, 8, 8), standardised by the first.

    The channel has one mean and one deviation, as the paper normalises its images: pixels at the rim, dark in
    nearly every image, stay small. Raises DataError without scikit-learn.
    """
    table = _read()
    table = table[np.random.default_rng(SPLIT_SEED).permutation(len(table))]
    x, y = torch.from_numpy(table[:, :-1]).reshape(-1, *sizes.shape), torch.from_numpy(table[:, -1]).long()
    train = x[: sizes.train]
    x = (x - train.mean()) / train.std(correction=0)
    bounds = [sizes.train, sizes.validation, sizes.test]
    return Splits(*(Split(a, b) for a, b in zip(torch.split(x, bounds), torch.split(y, bounds), strict=True)))
