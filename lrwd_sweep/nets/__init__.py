"""Networks by name."""

from __future__ import annotations

import math

from lrwd_sweep.nets.mlp import Mlp, MlpLanes
from lrwd_sweep.nets.network import Lanes, Network, Predictor

HIDDEN = (128, 128)

__all__ = ["Lanes", "Mlp", "MlpLanes", "Network", "Predictor", "build"]


def build(name: str, shape: tuple[int, ...], classes: int) -> Network:
    """The network of that name in the catalog, for inputs of `shape`."""
    widths = (math.prod(shape), *HIDDEN, classes)
    return Mlp(widths, norm_logits=name == "mlp-norm")
