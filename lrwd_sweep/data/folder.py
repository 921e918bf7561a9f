"""Somebody's own images in folders, one per class, resized to squares."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from lrwd_sweep.data.files import Files
from lrwd_sweep.data.images import Images, as_splits, broken
from lrwd_sweep.data.splits import Splits
from lrwd_sweep.engine.host import cores
from lrwd_sweep.errors import DataError
from lrwd_sweep.spec import image_folder
from lrwd_sweep.spec.catalog import DataSet


def load(name: str, files: Files | None = None, sizes: DataSet | None = None) -> Splits:
    """The images of `folder:PATH@SIZE` in three channels. Raises DataError naming the file.

    As downsampled ImageNet does it, an image of another shape is squeezed into the square, not cut.
    """
    found = image_folder.scan(name)
    counts = (len(found.train), len(found.validation), len(found.test))
    sizes = sizes or DataSet(*counts, len(found.classes), (3, found.side, found.side))
    if counts != (sizes.train, sizes.validation, sizes.test):
        raise DataError(f"{name} has changed while it was read; run the same command again")
    train, validation, test = (
        _read(samples, sizes) for samples in (found.train, found.validation, found.test)
    )
    return as_splits(train, validation, test, sizes, Path(name))


def _read(samples: Sequence[image_folder.Sample], sizes: DataSet) -> Images:
    images = Images.empty(len(samples), sizes)
    side = sizes.shape[-1]
    with ThreadPoolExecutor(cores()) as threads:
        for k, pixels in enumerate(threads.map(lambda sample: _pixels(sample[0], side), samples)):
            images.x[k], images.y[k] = pixels, samples[k][1]
    return images


def _pixels(path: str, side: int) -> np.ndarray:  # (3, side, side)
    from torchvision.datasets.folder import pil_loader  # noqa: PLC0415 - slow to load, for this set alone
    from torchvision.transforms import functional  # noqa: PLC0415

    try:
        image = functional.resize(pil_loader(path), [side, side])
    except Exception as error:  # whatever a broken file makes of its decoder
        raise broken(Path(path), f"is no image that can be read ({error})") from None
    pixels: torch.Tensor = functional.pil_to_tensor(image)
    return pixels.numpy()
