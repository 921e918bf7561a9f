"""Networks by name: the catalog's, torchvision's and the user's."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from functools import cache, partial

import torch
from torch import Tensor, nn

from lrwd_sweep.errors import UsageError, arg, brief
from lrwd_sweep.nets import cnn, embedding, gpt, resnet, user_network, vgg
from lrwd_sweep.nets.kronecker import Watch
from lrwd_sweep.nets.loop import LoopLanes
from lrwd_sweep.nets.loss import Loss, find_loss
from lrwd_sweep.nets.mlp import Mlp, MlpNetwork
from lrwd_sweep.nets.modules import ModuleNetwork
from lrwd_sweep.nets.network import Lanes, Network, Predictor, Way
from lrwd_sweep.optim import Factors
from lrwd_sweep.spec import user_code
from lrwd_sweep.spec.catalog import CLASS, CROSS_ENTROPY, FLOAT32, POSITION, REAL, DataSet
from lrwd_sweep.spec.net_options import complete_options
from lrwd_sweep.spec.task import Task

LAYERS = 2  # hidden ones of the perceptrons
PERCEPTRONS = ("mlp-norm", "mlp")
NATIVE = (*PERCEPTRONS, "cnn-norm", "cnn")  # with a lane axis
SMALLEST = 8  # pixels; the residual networks halve the image twice

CONVOLUTIONAL: dict[str, Callable[[int, int], nn.Module]] = cnn.NETWORKS | resnet.NETWORKS | vgg.NETWORKS

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
    "output_of",
    "undecayed",
    "watched",
]


def network(task: Task) -> Network:
    """Return a task's network, which trains by the task's engine.

    Raises UsageError if it cannot be built or trained, UnknownName for an unknown name.
    """
    sizes, code = task.data_set, task.code
    if not code and task.user_code:  # not looked up yet
        code = tuple((name, user_code.find(option, name).digest) for option, name in task.user_code.items())
    net = build(
        task.net,
        sizes.shape,
        sizes.classes,
        item=sizes.item,
        options=task.net_options,
        loss=task.loss,
        engine=task.engine,
        precision=task.precision,
        train=task.train,
        smoothing=task.label_smoothing,
        logit_decay=task.logit_decay,
        code=code,
    )
    if task.damping is not None and isinstance(net, ModuleNetwork):
        try:
            net.factored  # noqa: B018  # for K-FAC
        except UsageError as error:
            raise UsageError(f"{arg('net', task.net)}: {error.text}") from error
    return net


def watched(net: Network, lanes: Lanes, theta: Tensor) -> Factors:  # (L, P)
    """Make lanes in a loop write the Kronecker factors of every batch; return these."""
    assert isinstance(net, ModuleNetwork)
    assert isinstance(lanes, LoopLanes)
    factors = Factors.of(net.factored, theta)
    lanes.watch = Watch(lanes.modules, net.trained, factors)
    return factors


def is_native(
    name: str,
    loss: str = CROSS_ENTROPY,
    train: str = "",
    item: DataSet | None = None,
    smoothing: float = 0.0,
    logit_decay: float = 0.0,
) -> bool:
    """Test whether a network has a program of its own for all lanes, with the gradient written out."""
    return not _unwritten(name, loss, train, item, label_smoothing=smoothing, logit_decay=logit_decay)


def _unwritten(name: str, loss: str, train: str, item: DataSet | None, **of_loss: float) -> str:
    """Say what the native programs are not written for; empty if they are."""
    if name not in NATIVE:
        return name
    if loss != CROSS_ENTROPY:
        return f"a loss other than {CROSS_ENTROPY}"
    if item is not None and item.target != CLASS:
        return f"{item.target} targets"
    for option, value in of_loss.items():
        if value:
            return arg(option, value)
    return arg("train", train) if train else ""


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
    """Test whether, in evaluation, an item's output does not depend on the others of its batch."""
    return not isinstance(net, ModuleNetwork) or net.by_item


def loss_of(net: Network) -> Loss:
    """Return a network's training loss."""
    return net.way.loss


def output_of(net: Network) -> tuple[int, ...]:
    """Return the shape of a network's output for one item."""
    return net.output if isinstance(net, ModuleNetwork) else net.shapes["bias"]


@cache
def build(
    name: str,
    shape: tuple[int, ...],
    classes: int,
    *,
    item: DataSet | None = None,  # None: one input of floating-point numbers, one class
    options: str = "",
    loss: str = CROSS_ENTROPY,
    engine: str = "auto",
    precision: str = FLOAT32,
    train: str = "",
    smoothing: float = 0.0,
    logit_decay: float = 0.0,
    code: tuple[tuple[str, str], ...] = (),  # digests of user code: changed code is another network
) -> Network:
    """Build a network of the catalog, torchvision or the user for inputs of `shape`.

    Raises UnknownName for a name that torchvision does not know, UsageError if the shape does not fit, and
    for any exception of user code.
    """
    item = item or DataSet(0, 0, 0, classes, shape)
    unwritten = _unwritten(name, loss, train, item, label_smoothing=smoothing, logit_decay=logit_decay)
    native = engine in ("auto", "native") and not unwritten
    if engine == "native" and unwritten:
        raise UsageError(
            f"{arg('engine', 'native')} is not written for {unwritten}; choose auto, vmap or loop"
        )
    own = user_code.is_user_code(name)
    way = Way(
        find_loss(loss, smoothing, logit_decay),
        precision,
        vmap=engine == "vmap",
        train=train,
        classifies=item.target == CLASS,
        user_code=own or user_code.is_user_code(loss),
    )
    if own:
        return user_network.build(name, item, options, way)
    if name == "gpt":
        return gpt.build(item, options, way)
    _refuse_items(name, item)
    if name == "embed-norm":
        return embedding.build(item, options, way)
    if name.startswith("torchvision:"):
        from lrwd_sweep.nets import torchvision_models  # noqa: PLC0415  # slow to load

        return torchvision_models.build(name.removeprefix("torchvision:"), item, way)
    if name in PERCEPTRONS:
        hidden = [complete_options(name, options)["width"]] * LAYERS
        widths = (math.prod(shape), *hidden, item.outputs)
        mlp = Mlp(widths, norm_logits=name == "mlp-norm", way=way)
        return mlp if native else MlpNetwork(mlp, item)
    if len(shape) != 3 or min(shape[1:]) < SMALLEST:
        size = "×".join(map(str, shape))
        raise UsageError(
            f"{arg('net', name)} takes images of at least {SMALLEST}×{SMALLEST}, not inputs of {size}; "
            f"choose {arg('net', 'mlp-norm')}"
        )
    kind = cnn.CnnNetwork if native else ModuleNetwork
    return kind(partial(CONVOLUTIONAL[name], shape[0], item.outputs), shape, classes, way, item)


def _refuse_items(name: str, item: DataSet) -> None:
    """Raise UsageError if a network of the catalog does not take such items."""
    found = item.every_input
    if len(found) > 1 or found[0].type != REAL:
        what = f"{len(found)} inputs" if len(found) > 1 else f"inputs of type {found[0].type}"
        remedy = f"choose {arg('net', 'gpt')}" if gpt.takes(item) else "bring a network of your own"
        raise UsageError(f"{arg('net', name)} takes one floating-point input, not {what}; {remedy}")
    if item.target == POSITION or len(item.target_shape) > 1:
        shape = " or ".join(str(("batch", *one)).replace("'", "") for one in item.output_shapes)
        raise UsageError(
            f"{arg('net', name)} gives one row per item; the targets ask for {shape}: bring a network of "
            "your own"
        )
