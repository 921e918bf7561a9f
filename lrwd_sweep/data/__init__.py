"""Data sets by name, and texts as windows of tokens."""

import numpy as np
import torch

from lrwd_sweep.data import images, user_data
from lrwd_sweep.data.images import Augment, augmentation
from lrwd_sweep.data.splits import EVAL_BATCH, Pixels, Split, Splits, StreamedSplit
from lrwd_sweep.errors import DataError, arg
from lrwd_sweep.spec.catalog import DataSet
from lrwd_sweep.spec.job import DataFiles
from lrwd_sweep.spec.user_code import is_user_code
from lrwd_sweep.spec.user_files import PREFIX, is_text, read_text

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
        return _load_text(name, sizes)
    if name == "digits":
        return images.load_digits(sizes)
    if name == "imagenet32":
        return images.load_imagenet32(files or DataFiles(), sizes)
    from lrwd_sweep.data import published  # noqa: PLC0415 - torchvision is slow to load

    return published.load(name, files or DataFiles(), sizes)


def _load_text(name: str, sizes: DataSet) -> Splits:
    """Read a text as windows x (n, T) of token numbers and y (n, T), the token after each.

    Raises UsageError, and DataError if the text is another than that of `sizes`.
    """
    (context,) = sizes.shape
    text = read_text(name, context)
    if text.digest != sizes.digest:
        raise DataError(f"{arg('data', name)} has changed a moment ago; run the same command again")
    if isinstance(text.tokens, bytes):
        codes = np.frombuffer(text.tokens, np.uint8)
    else:
        codes = np.frombuffer(text.tokens.encode("utf-32-le"), "<u4")
    numbers = torch.from_numpy(np.unique(codes, return_inverse=True)[1].reshape(-1).astype(np.int64))

    def split(part: range) -> Split:
        x, y = (numbers[part.start + k : part.stop + k].view(-1, context) for k in (0, 1))
        return Split(x, y)

    return Splits(*map(split, text.ranges(context)))
