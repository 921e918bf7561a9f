"""Data sets by name."""

from __future__ import annotations

from lrwd_sweep.data import digits, images, tokens, user_data
from lrwd_sweep.data.images import Augment, augmentation
from lrwd_sweep.data.splits import EVAL_BATCH, Pixels, Split, Splits, StreamedSplit
from lrwd_sweep.spec.catalog import DataSet
from lrwd_sweep.spec.job import DataFiles
from lrwd_sweep.spec.user_code import is_user_code
from lrwd_sweep.spec.user_files import PREFIX, is_text

__all__ = [
    "EVAL_BATCH",
    "Augment",
    "Pixels",
    "Split",
    "Splits",
    "StreamedSplit",
    "augmentation",
    "load",
]


def load(
    name: str,
    sizes: DataSet,
    files: DataFiles | None = None,
    *,
    standardize: bool | None = None,
    stream: bool = False,
) -> Splits:
    """Read a data set of the catalog, standardised, or user data of those sizes, as given.

    User images of bytes are standardised if `standardize`, user data sets streamed if `stream`. Raises
    DataError, and UsageError or UnknownName if the user code cannot be imported.
    """
    if is_user_code(name):
        return user_data.load(name, sizes, standardize=bool(standardize), stream=stream)
    if name.startswith(PREFIX):
        return images.load_folder(name, sizes)
    if is_text(name):
        return tokens.load(name, sizes)
    if name == "digits":
        return digits.load(sizes)
    if name == "imagenet32":
        return images.load_imagenet32(files or DataFiles(), sizes)
    from lrwd_sweep.data import published  # noqa: PLC0415 - torchvision is slow to load

    return published.load(name, files or DataFiles(), sizes)
