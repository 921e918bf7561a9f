"""The names that exist, with what can be known of them without loading torch."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lrwd_sweep.errors import UnknownName


@dataclass(frozen=True, slots=True)
class DataSet:
    """Sizes of a classification data set and its splits."""

    train: int
    validation: int
    test: int
    classes: int
    shape: tuple[int, ...]  # of one input: (features,), or (channels, height, width)

    @classmethod
    def known(cls, name: str) -> DataSet | None:
        """What the catalog knows of a data set, or None."""
        return DATA_SETS.get(name)


DATA_SETS = {"digits": DataSet(train=400, validation=697, test=700, classes=10, shape=(1, 8, 8))}

NETWORKS = {
    "mlp-norm": "128-128, batch norm without affine parameters after every layer: scale-invariant",
    "mlp": "128-128, batch norm after the hidden layers, an ordinary output layer",
}

AUGMENTATIONS = {"none": "every image as it is"}

METRICS = {
    "val_loss": "cross-entropy on the validation split, nats",
    "val_error": "share of the validation split that is misclassified, 0 to 1",
    "val_top5_error": "share whose class is not among the five most likely, 0 to 1",
    "train_loss": "cross-entropy over the last epoch's training batches, nats",
    "train_error": "misclassified share of the same, 0 to 1",
    "train_top5_error": "the same for the five most likely classes, 0 to 1",
}


def find_data_set(name: str) -> DataSet:
    """Sizes by name. Raises UnknownName."""
    if name not in DATA_SETS:
        raise UnknownName("data set", name, DATA_SETS)
    return DATA_SETS[name]


def find_network(name: str) -> str:
    """The canonical name of a network. Raises UnknownName."""
    if name not in NETWORKS:
        raise UnknownName("network", name, NETWORKS)
    return name


def chance_level(metric: str, classes: int) -> float:
    """The metric's value for a uniform guess: ln C for a cross-entropy, 1 − k/C for the top k."""
    if not metric.endswith("_error"):
        return math.log(classes)
    return max(0.0, 1 - (5 if metric.endswith("top5_error") else 1) / classes)
