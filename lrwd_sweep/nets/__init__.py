"""Networks by name."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from functools import cache, partial

import torch
from torch import nn
from torch.nn import functional

from lrwd_sweep.errors import UsageError, brief, shown
from lrwd_sweep.nets import own_network
from lrwd_sweep.nets.cnn import Cnn
from lrwd_sweep.nets.cnn_lanes import CnnNetwork
from lrwd_sweep.nets.loss import Loss, find_loss
from lrwd_sweep.nets.mlp import Mlp
from lrwd_sweep.nets.mlp_module import MlpNetwork
from lrwd_sweep.nets.module_network import ModuleNetwork, Way
from lrwd_sweep.nets.network import Lanes, Network, Predictor
from lrwd_sweep.nets.resnet import ResNet
from lrwd_sweep.nets.shake_shake import ShakeShake
from lrwd_sweep.nets.wide_resnet import WideResNet
from lrwd_sweep.spec import user_code
from lrwd_sweep.spec.catalog import CROSS_ENTROPY, FLOAT32
from lrwd_sweep.spec.task import Task

HIDDEN = (128, 128)
PERCEPTRONS = ("mlp-norm", "mlp")
NATIVE = (*PERCEPTRONS, "cnn-norm", "cnn")  # written for lanes
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

__all__ = [
    "PERCEPTRONS",
    "Lanes",
    "Loss",
    "Mlp",
    "ModuleNetwork",
    "Network",
    "Predictor",
    "build",
    "decaying",
    "is_by_item",
    "is_native",
    "loss_of",
    "network",
    "of_seed",
    "undecayed",
]


def network(task: Task) -> Network:
    """The network that a training asks for, in the way that its engine names.

    Raises UsageError where it cannot be built or trained, UnknownName for a name that is nobody's.
    """
    sizes, code = task.data_set, task.code
    if not code and task.user_code:  # nobody has noted it
        code = tuple((name, user_code.find(option, name).digest) for option, name in task.user_code.items())
    return build(
        task.net,
        sizes.shape,
        sizes.classes,
        options=task.net_options,
        loss=task.loss,
        engine=task.engine,
        precision=task.precision,
        code=code,
    )


def is_native(name: str, loss: str = CROSS_ENTROPY) -> bool:
    """Whether all lanes of a network can train in one program written for it, its gradient written out."""
    return name in NATIVE and loss == CROSS_ENTROPY


def undecayed(task: Task) -> tuple[str, ...]:
    """The parameters that do not decay; without `decay_all` besides vectors, of which then none does.

    Raises UsageError where a pattern names none, or nothing would decay.
    """
    net, pattern = network(task), task.no_decay
    spared = {name for name in net.shapes if pattern and re.search(pattern, name)}
    if pattern and not spared:
        raise UsageError(
            f"--no-decay {shown(pattern)} matches no parameter of {task.net} that trains; they are "
            f"{brief(', '.join(net.shapes))}"
        )
    if not task.decay_all and isinstance(net, ModuleNetwork):
        spared |= net.norm_and_bias
    open_ = [name for name, shape in net.shapes.items() if task.decay_all or len(shape) > 1]
    if spared.issuperset(open_):
        asked = f"--no-decay {shown(pattern)}" if pattern else "--no-decay-norm-bias"
        raise UsageError(f"{asked} leaves no parameter of {task.net} that decays; leave it out")
    return tuple(name for name in open_ if name in spared)


def decaying(task: Task) -> dict[str, bool]:
    """Every parameter that trains, by name, and whether it decays."""
    return {
        name: (task.decay_all or len(shape) > 1) and name not in task.undecayed
        for name, shape in network(task).shapes.items()
    }


def of_seed(net: Network, generator: torch.Generator, device: torch.device) -> Network:
    """A network for training there, with what does not train as `init` initialises it by such a generator."""
    return net.of_seed(generator, device) if isinstance(net, ModuleNetwork) else net


def is_by_item(net: Network) -> bool:
    """Whether in evaluation an item's logits do not depend on the others of its batch."""
    return not isinstance(net, ModuleNetwork) or net.by_item


def loss_of(net: Network) -> Loss:
    """What a network's training lowers."""
    return net.way.loss if isinstance(net, ModuleNetwork) else functional.cross_entropy


@cache
def build(
    name: str,
    shape: tuple[int, ...],
    classes: int,
    *,
    options: str = "",
    loss: str = CROSS_ENTROPY,
    engine: str = "auto",
    precision: str = FLOAT32,
    code: tuple[tuple[str, str], ...] = (),  # digests of somebody's own: other code is another network
) -> Network:
    """The network of that name in the catalog, or somebody's own, for inputs of `shape`.

    Raises UnknownName for a name that torchvision does not know, UsageError where the shape does not fit, and
    for whatever is wrong with somebody's own code.
    """
    native = engine in ("auto", "native") and is_native(name, loss)
    if engine == "native" and not native:
        what = f"a loss other than {CROSS_ENTROPY}" if is_native(name) else name
        raise UsageError(f"--engine native is not written for {what}; choose auto, vmap or loop")
    own = user_code.is_user_code(name)
    careful = own or loss != CROSS_ENTROPY
    way = Way(find_loss(loss), stacked=engine == "vmap", precision=precision, careful=careful)
    if own:
        return own_network.build(name, shape, classes, options, way)
    if name.startswith("torchvision:"):
        from lrwd_sweep.nets import torchvision_models  # noqa: PLC0415  # slow to load

        return torchvision_models.build(name.removeprefix("torchvision:"), shape, classes, way)
    if name in PERCEPTRONS:
        widths = (math.prod(shape), *HIDDEN, classes)
        mlp = Mlp(widths, norm_logits=name == "mlp-norm", precision=precision)
        return mlp if native else MlpNetwork(mlp, shape, way)
    if len(shape) != 3 or min(shape[1:]) < SMALLEST:
        size = "×".join(map(str, shape))
        raise UsageError(
            f"--net {name} takes images of at least {SMALLEST}×{SMALLEST}, not inputs of {size}; "
            "choose --net mlp-norm"
        )
    kind = CnnNetwork if native else ModuleNetwork
    return kind(partial(CONVOLUTIONAL[name], shape[0], classes), shape, classes, way)
