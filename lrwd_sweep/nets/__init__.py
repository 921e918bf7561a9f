"""Networks by name."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, partial

from torch import nn

from lrwd_sweep.errors import UsageError
from lrwd_sweep.nets.cnn import Cnn
from lrwd_sweep.nets.mlp import Mlp, MlpLanes
from lrwd_sweep.nets.module_network import ModuleNetwork
from lrwd_sweep.nets.network import Lanes, Network, Predictor
from lrwd_sweep.nets.resnet import ResNet
from lrwd_sweep.nets.shake_shake import ShakeShake
from lrwd_sweep.nets.wide_resnet import WideResNet

HIDDEN = (128, 128)
SMALLEST = 8  # pixels; the residual networks halve the image twice

CONVOLUTIONAL: dict[str, Callable[[int, int], nn.Module]] = {  # of image channels and classes
    "cnn-norm": partial(Cnn, norm_logits=True),
    "cnn": partial(Cnn, norm_logits=False),
    "resnet20": partial(ResNet, depth=20),
    "resnet32": partial(ResNet, depth=32),
    "resnet56": partial(ResNet, depth=56),
    "wrn-28-10": partial(WideResNet, depth=28, k=10),
    "shake26-2x32d": partial(ShakeShake, width=32),
    "shake26-2x64d": partial(ShakeShake, width=64),
    "shake26-2x96d": partial(ShakeShake, width=96),
}

__all__ = ["Lanes", "Mlp", "MlpLanes", "ModuleNetwork", "Network", "Predictor", "build"]


@cache
def build(name: str, shape: tuple[int, ...], classes: int) -> Network:
    """The network of that name in the catalog, for inputs of `shape`.

    Raises UnknownName for a name that torchvision does not know, UsageError where the shape does not fit.
    """
    if name.startswith("torchvision:"):
        from lrwd_sweep.nets import torchvision_models  # noqa: PLC0415  # slow to load

        return torchvision_models.build(name.removeprefix("torchvision:"), shape, classes)
    if name not in CONVOLUTIONAL:
        widths = (math.prod(shape), *HIDDEN, classes)
        return Mlp(widths, norm_logits=name == "mlp-norm")
    if len(shape) != 3 or min(shape[1:]) < SMALLEST:
        size = "×".join(map(str, shape))
        raise UsageError(
            f"--net {name} takes images of at least {SMALLEST}×{SMALLEST}, not inputs of {size}; "
            "choose --net mlp-norm"
        )
    return ModuleNetwork(partial(CONVOLUTIONAL[name], shape[0], classes), shape, classes)
