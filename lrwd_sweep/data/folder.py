"""User images in folders, one per class, resized to squares."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from lrwd_sweep.data.images import Images, as_splits, broken
from lrwd_sweep.data.splits import Splits
from lrwd_sweep.errors import DataError
from lrwd_sweep.spec import image_folder
from lrwd_sweep.spec.catalog import DataSet


def load(name: str, sizes: DataSet) -> Splits:
    """Read the images of `folder:PATH@SIZE` in three channels. Raises DataError naming the file.

    As in downsampled ImageNet, an image of another shape is squeezed into the square, not cut.
    """
    found = image_folder.scan(name)
    counts = (len(found.train), len(found.validation), len(found.test))
    if counts != (sizes.train, sizes.validation, sizes.test):
        raise DataError(f"{name} has changed while it was read; run the same command again")
    train, validation, test = (
        _read(samples, sizes) for samples in (found.train, found.validation, found.test)
    )
    return as_splits(train, validation, test, sizes, Path(name))


def _read(samples: Sequence[image_folder.Sample], sizes: DataSet) -> Images:
    images = Images.empty(len(samples), sizes)
    side = sizes.shape[-1]
    with ThreadPoolExecutor() as threads:
        for k, pixels in enumerate(threads.map(lambda sample: _pixels(sample[0], side), samples)):
            images.x[k], images.y[k] = pixels, samples[k][1]
    return images


def _pixels(path: str, side: int) -> np.ndarray:  # (3, side, side)
    from torchvision.datasets.folder import pil_loader  # noqa: PLC0415 - slow to load, only for this set
    from torchvision.transforms import functional  # noqa: PLC0415

    try:
        image = functional.resize(pil_loader(path), [side, side])
    except Exception as error:  # decoders fail in many ways on a corrupt file
        raise broken(Path(path), f"is not a readable image ({error})") from None
    pixels: torch.Tensor = functional.pil_to_tensor(image)
    return pixels.numpy()
