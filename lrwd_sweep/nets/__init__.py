"""Networks by name: the catalog's, torchvision's and the user's."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from functools import cache, partial

import torch
from torch import nn

from lrwd_sweep.errors import UsageError, arg, brief
from lrwd_sweep.nets import cnn, resnet, user_network
from lrwd_sweep.nets.loss import Loss, find_loss
from lrwd_sweep.nets.mlp import Mlp, MlpNetwork
from lrwd_sweep.nets.modules import ModuleNetwork
from lrwd_sweep.nets.network import Lanes, Network, Predictor, Way
from lrwd_sweep.spec import user_code
from lrwd_sweep.spec.catalog import CROSS_ENTROPY, FLOAT32
from lrwd_sweep.spec.task import Task

HIDDEN = (128, 128)
PERCEPTRONS = ("mlp-norm", "mlp")
NATIVE = (*PERCEPTRONS, "cnn-norm", "cnn")  # with a lane axis
SMALLEST = 8  # pixels; the residual networks halve the image twice

CONVOLUTIONAL: dict[str, Callable[[int, int], nn.Module]] = cnn.NETWORKS | resnet.NETWORKS

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
    """Return a task's network, which trains by the task's engine.

    Raises UsageError if it cannot be built or trained, UnknownName for an unknown name.
    """
    sizes, code = task.data_set, task.code
    if not code and task.user_code:  # not looked up yet
        code = tuple((name, user_code.find(option, name).digest) for option, name in task.user_code.items())
    return build(
        task.net,
        sizes.shape,
        sizes.classes,
        options=task.net_options,
        loss=task.loss,
        engine=task.engine,
        precision=task.precision,
        train=task.train,
        code=code,
    )


def is_native(name: str, loss: str = CROSS_ENTROPY, train: str = "") -> bool:
    """Test whether a network has a program of its own for all lanes, with the gradient written out."""
    return name in NATIVE and loss == CROSS_ENTROPY and not train


def undecayed(task: Task) -> tuple[str, ...]:
    """Return the parameters exempt from decay, except vectors, which never decay without `decay_all`.

    Raises UsageError if the pattern matches none, or nothing would decay.
    """
    net, pattern = network(task), task.no_decay
    exempt = {name for name in net.shapes if pattern and re.search(pattern, name)}
    if pattern and not exempt:
        raise UsageError(
            f"{arg('no_decay', pattern)} matches no parameter of {task.net} that trains; they are "
            f"{brief(', '.join(net.shapes))}"
        )
    if not task.decay_all and isinstance(net, ModuleNetwork):
        exempt |= net.norm_and_bias
    open_ = [name for name, shape in net.shapes.items() if task.decay_all or len(shape) > 1]
    if exempt.issuperset(open_):
        asked = arg("no_decay", pattern) if pattern else arg("decay_all", False)
        raise UsageError(f"{asked} leaves no parameter of {task.net} that decays; leave it out")
    return tuple(name for name in open_ if name in exempt)


def decaying(task: Task) -> dict[str, bool]:
    """Map every trained parameter to whether it decays."""
    return {
        name: (task.decay_all or len(shape) > 1) and name not in task.undecayed
        for name, shape in network(task).shapes.items()
    }


def of_seed(net: Network, generator: torch.Generator, device: torch.device) -> Network:
    """Return a network for a device, with untrained tensors initialised by the generator as in `init`."""
    return net.of_seed(generator, device) if isinstance(net, ModuleNetwork) else net


def is_by_item(net: Network) -> bool:
    """Test whether, in evaluation, an item's logits do not depend on the others of its batch."""
    return not isinstance(net, ModuleNetwork) or net.by_item


def loss_of(net: Network) -> Loss:
    """Return a network's training loss."""
    return net.way.loss


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
    train: str = "",
    code: tuple[tuple[str, str], ...] = (),  # digests of user code: changed code is another network
) -> Network:
    """Build a network of the catalog, torchvision or the user for inputs of `shape`.

    Raises UnknownName for a name that torchvision does not know, UsageError if the shape does not fit, and
    for any exception of user code.
    """
    native = engine in ("auto", "native") and is_native(name, loss, train)
    if engine == "native" and not native:
        what = f"a loss other than {CROSS_ENTROPY}" if is_native(name) else name
        what = arg("train", train) if is_native(name, loss) else what
        raise UsageError(f"{arg('engine', 'native')} is not written for {what}; choose auto, vmap or loop")
    own = user_code.is_user_code(name)
    unknown = own or loss != CROSS_ENTROPY
    way = Way(find_loss(loss), precision, vmap=engine == "vmap", train=train, user_code=unknown)
    if own:
        return user_network.build(name, shape, classes, options, way)
    if name.startswith("torchvision:"):
        from lrwd_sweep.nets import torchvision_models  # noqa: PLC0415  # slow to load

        return torchvision_models.build(name.removeprefix("torchvision:"), shape, classes, way)
    if name in PERCEPTRONS:
        widths = (math.prod(shape), *HIDDEN, classes)
        mlp = Mlp(widths, norm_logits=name == "mlp-norm", way=way)
        return mlp if native else MlpNetwork(mlp, shape)
    if len(shape) != 3 or min(shape[1:]) < SMALLEST:
        size = "×".join(map(str, shape))
        raise UsageError(
            f"{arg('net', name)} takes images of at least {SMALLEST}×{SMALLEST}, not inputs of {size}; "
            f"choose {arg('net', 'mlp-norm')}"
        )
    kind = cnn.CnnNetwork if native else ModuleNetwork
    return kind(partial(CONVOLUTIONAL[name], shape[0], classes), shape, classes, way)
