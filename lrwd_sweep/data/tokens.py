"""Texts as windows of tokens."""

from __future__ import annotations

import numpy as np
import torch

from lrwd_sweep.data.splits import Split, Splits
from lrwd_sweep.errors import DataError, arg
from lrwd_sweep.spec import user_files
from lrwd_sweep.spec.catalog import DataSet


def load(name: str, sizes: DataSet) -> Splits:
    """Read a text as windows x (n, T) of token numbers and y (n, T), the token after each.

    Raises UsageError, and DataError if the text is another than that of `sizes`.
    """
    (context,) = sizes.shape
    text = user_files.read_text(name, context)
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
