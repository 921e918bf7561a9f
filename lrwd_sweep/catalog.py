"""The names that exist, with what can be known of them without loading torch."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DataSet:
    """Sizes of a classification data set and its splits."""

    train: int
    validation: int
    test: int
    classes: int


DATA_SETS = {"digits": DataSet(train=400, validation=697, test=700, classes=10)}

NETWORKS = {
    "mlp-norm": "64-128-128-10, batch norm without affine parameters after every layer: scale-invariant",
    "mlp": "64-128-128-10, batch norm after the hidden layers, an ordinary output layer",
}

METRICS = {
    "val_loss": "cross-entropy on the validation split, nats",
    "val_error": "share of the validation split that is misclassified, 0 to 1",
    "train_loss": "cross-entropy over the last epoch's training batches, nats",
}


def chance_level(metric: str, classes: int) -> float:
    """The metric's value for a uniform guess: ln C for a cross-entropy, 1 − 1/C for an error."""
    return 1 - 1 / classes if metric.endswith("_error") else math.log(classes)
