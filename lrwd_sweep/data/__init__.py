"""Data sets by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from lrwd_sweep.data import digits, folder, imagenet32, own_data, svhn
from lrwd_sweep.data.augment import Augment, augmentation
from lrwd_sweep.data.cifar import CIFAR10, CIFAR100
from lrwd_sweep.data.files import Files
from lrwd_sweep.data.mnist import FASHION_MNIST, MNIST
from lrwd_sweep.data.splits import EVAL_BATCH, Pixels, Split, Splits
from lrwd_sweep.spec.catalog import DataSet
from lrwd_sweep.spec.image_folder import PREFIX
from lrwd_sweep.spec.own_code import is_own

LOADERS: dict[str, Callable[..., Splits]] = {  # each takes Files and the DataSet to expect, or what is usual
    "digits": digits.load,
    "mnist": MNIST.load,
    "fashion-mnist": FASHION_MNIST.load,
    "svhn": svhn.load,
    "cifar10": CIFAR10.load,
    "cifar100": CIFAR100.load,
    "imagenet32": imagenet32.load,
}

__all__ = ["EVAL_BATCH", "LOADERS", "Augment", "Files", "Pixels", "Split", "Splits", "augmentation", "load"]


def load(name: str, sizes: DataSet, files: Files | None = None, *, standardize: bool | None = None) -> Splits:
    """The data set of a name that the catalog knows, standardised, or user data of those sizes, as given.

    Images of bytes among user data are standardised where that is asked for.

    Raises DataError, and UsageError or UnknownName where somebody's own code is not there.
    """
    if is_own(name):
        return own_data.load(name, files, sizes, standardize=bool(standardize))
    loader = partial(folder.load, name) if name.startswith(PREFIX) else LOADERS[name]
    return loader(files, sizes)
