"""Noise in the shape of published data sets, without a download: a step's cost does not depend on values."""

from functools import partial

import torch
from torch import Tensor

from lrwd_sweep.spec.catalog import DATA_SETS


def noise(name: str) -> list[tuple[Tensor, Tensor]]:
    """Make images (n, *shape) uint8 and classes (n,) of every split, in the numbers of data set `name`."""
    sizes, stream = DATA_SETS[name], torch.Generator().manual_seed(0)
    counts = sizes.train, sizes.validation, sizes.test
    images = [torch.randint(256, (n, *sizes.shape), generator=stream, dtype=torch.uint8) for n in counts]
    return [(x, torch.arange(len(x)) % sizes.classes) for x in images]


mnist = partial(noise, "mnist")
fashion_mnist = partial(noise, "fashion-mnist")
svhn = partial(noise, "svhn")
cifar10 = partial(noise, "cifar10")
cifar100 = partial(noise, "cifar100")
imagenet32 = partial(noise, "imagenet32")
