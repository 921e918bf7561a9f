"""Networks by name: the catalog's, torchvision's and the user's."""

import math
import re
from collections.abc import Callable
from functools import partial

from torch import Tensor, nn

from lrwd_sweep.errors import UsageError, arg, brief
from lrwd_sweep.nets import cnn, gpt, image_classifiers, user_network
from lrwd_sweep.nets.kronecker import Watch
from lrwd_sweep.nets.loop import LoopLanes
from lrwd_sweep.nets.loss import find_loss
from lrwd_sweep.nets.mlp import EmbedNorm, Mlp, MlpNetwork
from lrwd_sweep.nets.modules import ModuleNetwork
from lrwd_sweep.nets.network import Lanes, Network, Way
from lrwd_sweep.optim import Factors
from lrwd_sweep.spec import user_code
from lrwd_sweep.spec.catalog import CLASS, CROSS_ENTROPY, POSITION, REAL, DataSet
from lrwd_sweep.spec.net_options import complete_options
from lrwd_sweep.spec.task import Task

LAYERS = 2  # hidden ones of the perceptrons
PERCEPTRONS = ("mlp-norm", "mlp")
NATIVE = (*PERCEPTRONS, "cnn-norm", "cnn")  # with a lane axis
SMALLEST = 8  # pixels; the residual networks halve the image twice

CONVOLUTIONAL: dict[str, Callable[[int, int], nn.Module]] = cnn.NETWORKS | image_classifiers.NETWORKS

_built: dict[tuple[object, ...], Network] = {}


def network(task: Task) -> Network:
    """Return a task's network, which trains by the task's engine.

    Raises UsageError if it cannot be built or trained, UnknownName for an unknown name.
    """
    code = task.code
    if not code and task.user_code:  # not looked up yet
        code = tuple((name, user_code.find(option, name).digest) for option, name in task.user_code.items())
    what = (task.net, task.net_options, task.data_set.item, task.loss, task.label_smoothing, task.logit_decay)
    key = (*what, task.engine, task.precision, task.train, code)
    if key not in _built:
        _built[key] = _build(task)
    net = _built[key]
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
    lanes.watch = Watch(lanes.modules, net.shapes, factors)
    return factors


def is_native(task: Task) -> bool:
    """Test whether a network has a program of its own for all lanes, with the gradient written out."""
    return not _unwritten(task)


def _unwritten(task: Task) -> str:
    """Say what the native programs are not written for; empty if they are."""
    if task.net not in NATIVE:
        return task.net
    if task.loss != CROSS_ENTROPY:
        return f"a loss other than {CROSS_ENTROPY}"
    if task.data_set.target != CLASS:
        return f"{task.data_set.target} targets"
    for option in ("label_smoothing", "logit_decay", "train"):
        if value := getattr(task, option):
            return arg(option, value)
    return ""


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
    if not task.decay_all:
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


def _build(task: Task) -> Network:
    """Build a network of the catalog, torchvision or the user.

    Raises UnknownName for a name that torchvision does not know, UsageError if the inputs do not fit, and
    for any exception of user code.
    """
    name, item, unwritten = task.net, task.data_set.item, _unwritten(task)
    if task.engine == "native" and unwritten:
        raise UsageError(
            f"{arg('engine', 'native')} is not written for {unwritten}; choose auto, vmap or loop"
        )
    own = user_code.is_user_code(name)
    way = Way(
        find_loss(task.loss, task.label_smoothing, task.logit_decay),
        task.precision,
        vmap=task.engine == "vmap",
        train=task.train,
        classifies=item.target == CLASS,
        user_code=own or user_code.is_user_code(task.loss),
    )
    if own:
        return user_network.build(name, item, task.net_options, way)
    if name == "gpt":
        return gpt.build(item, task.net_options, way)
    _refuse_items(name, item)
    if name.startswith("torchvision:"):
        return image_classifiers.build_torchvision(name.removeprefix("torchvision:"), item, way)
    native = task.engine in ("auto", "native") and not unwritten
    options, inputs = complete_options(name, task.net_options), math.prod(item.shape)
    if name == "embed-norm":
        return ModuleNetwork(partial(EmbedNorm, inputs, item.classes, **options), item, way)
    if name in PERCEPTRONS:
        widths = (inputs, *[options["width"]] * LAYERS, item.outputs)
        mlp = Mlp(widths, norm_logits=name == "mlp-norm", way=way)
        return mlp if native else MlpNetwork(mlp, item)
    if len(item.shape) != 3 or min(item.shape[1:]) < SMALLEST:
        size = "×".join(map(str, item.shape))
        raise UsageError(
            f"{arg('net', name)} takes images of at least {SMALLEST}×{SMALLEST}, not inputs of {size}; "
            f"choose {arg('net', 'mlp-norm')}"
        )
    kind = cnn.CnnNetwork if native else ModuleNetwork
    return kind(partial(CONVOLUTIONAL[name], item.shape[0], item.outputs), item, way)


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
    if name == "embed-norm" and item.target != CLASS:
        raise UsageError(
            f"{arg('net', name)} takes one class per item, not {item.target} targets; choose "
            f"{arg('net', 'mlp-norm')}"
        )
