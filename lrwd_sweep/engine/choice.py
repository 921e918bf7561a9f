"""Choose how the lanes of a network train (native, by vmap or in a loop) by measuring a few steps.

Perceptrons train natively. Other networks have a rival of the loop: native if that is written, else vmap. The
rival is chosen if it is faster than the loop and on a CPU gives a lane the same bits in packs of every size;
vmap must also give what the loop gives. The choice is kept with the study and in the user's cache, so that a
study continues as it began.
"""

import json
import math
import os
import platform
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from tempfile import NamedTemporaryFile

import torch
from torch import Tensor

from lrwd_sweep import __version__
from lrwd_sweep.data import Splits
from lrwd_sweep.engine.cost import lanes_that_fit, made_up, timed
from lrwd_sweep.engine.device import gpu_name, is_out_of_memory
from lrwd_sweep.engine.lane_state import Arena
from lrwd_sweep.errors import DeviceError, UsageError, arg, brief
from lrwd_sweep.nets import PERCEPTRONS, is_native, network
from lrwd_sweep.nets.network import Network
from lrwd_sweep.nets.user_network import blamed
from lrwd_sweep.science.optimizer import Optimizer
from lrwd_sweep.spec.catalog import FLOAT32, DataSet
from lrwd_sweep.spec.task import Task

SECONDS = 0.1  # per measurement
REPEATS = 3
GAIN = 0.85  # of the loop's time per lane; a small gain is not worth different rounding
LANES = 64  # at most: they fill any device, and more would cost the same per lane
LONG = 0.02  # seconds: one lane whose step takes this fills the device
TOLERANCE = 1e-8  # relative, in float64: rounding is far below, an effect of another lane above
ROUNDED = 1e-5  # the same in float32
_ADAMW = Optimizer.parse("adamw")


def chosen(task: Task, device: torch.device, *, keep: bool = True) -> Task:
    """Return the task with its engine named, unless its network has only one; measure if it is not cached.

    A measured choice is cached if `keep`.

    Raises UsageError for an engine that cannot train the network, DeviceError if there is no room.
    """
    if task.engine == "vmap":
        with _room(task, device):
            why = obstacle(task, device)
        if why:
            raise UsageError(f"{arg('engine', 'vmap')}: {task.net} {why}; choose auto or loop")
    native = is_native(task)
    if task.engine != "auto" or (native and task.net in PERCEPTRONS):
        network(task)  # raises for an engine that it does not have
        return task
    key = _key(task, device)
    engine, rival = _cached().get(key), "native" if native else "vmap"
    if engine not in (rival, "loop"):
        try:
            with _room(task, device):
                engine = _fastest(task, device, rival)
        except Exception as error:  # not cached: memory may be free later
            if not isinstance(error, DeviceError | UsageError) and blamed(task.net, error) is None:
                raise
            engine = "loop"  # training tells if this is wrong on real data, too
            network(replace(task, engine=engine))
        else:
            if keep:
                _keep(key, engine)
    return replace(task, engine=str(engine))


@contextmanager
def _room(task: Task, device: torch.device) -> Iterator[None]:
    """Turn an out-of-memory error into a DeviceError: it says nothing about the network."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise DeviceError(
            f"{device} has no room to try out how {task.net} trains; free some memory, or take a smaller "
            f"{arg('batch_size')} or {arg('engine', 'loop')}"
        ) from None


def obstacle(task: Task, device: torch.device) -> str:
    """Say why vmap cannot train a network as the loop does; empty if it can.

    Raises torch's error if there is no room.
    """
    loop, stacked = (replace(task, engine=engine, accumulate=1) for engine in ("loop", "vmap"))
    splits = made_up(loop, device).to(device, torch.float64)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            expected, found = (_passed(network(one), splits, 3) for one in (loop, stacked))
        except Exception as error:  # torch has no rule for a layer, or the module does not take float64
            if is_out_of_memory(error):
                raise
            return f"cannot be vectorised ({brief(error)})"
    slow = [str(one.message) for one in told if "batching rule" in str(one.message)]
    if slow:
        return f"has a layer that vmap runs one by one ({brief(slow[0])})"
    for one, other in zip(expected, found, strict=True):
        tolerance = TOLERANCE
        if one.dtype != other.dtype:  # a loss with float32 constants, which vmap promotes differently
            one, other, tolerance = one.float(), other.float(), ROUNDED  # noqa: PLW2901
        if one.isnan().any():
            return "gives NaN on made-up data, on which vmap cannot be held to the loop"
        scale = float(one.nan_to_num(posinf=0, neginf=0).abs().max())
        if not torch.allclose(one, other, rtol=tolerance, atol=tolerance * scale):
            return "is not the same when vectorised (one of its layers looks past its lane)"
    if task.precision != FLOAT32:  # float64 says nothing about it
        try:
            _passed(network(stacked), made_up(stacked, device), 3)
        except Exception as error:
            if is_out_of_memory(error):
                raise
            return f"cannot be vectorised in {task.precision} ({brief(error)})"
    return ""


def _fastest(task: Task, device: torch.device, rival: str) -> str:
    """Measure the loop and its rival."""
    loop, stacked = (replace(task, engine=engine, accumulate=1) for engine in ("loop", rival))
    if _is_long(loop, device) or (rival == "vmap" and obstacle(task, device)):
        return "loop"
    lanes = [lanes_that_fit(one, device=device, workers=1, max_lanes=LANES) for one in (loop, stacked)]
    if device.type == "cpu" and not _same_bits(stacked, device, lanes[1]):
        return "loop"
    times = [math.inf, math.inf]
    for _ in range(REPEATS):
        for k, one in enumerate((loop, stacked)):
            step, _ = timed(_ADAMW, one, lanes[k], SECONDS, device, 1)
            times[k] = min(times[k], step / lanes[k])
    return rival if times[1] < GAIN * times[0] else "loop"


def _is_long(task: Task, device: torch.device) -> bool:
    """Return True if one lane's step fills the device; try small batches first."""
    batch = task.batch_size
    return any(
        timed(_ADAMW, task.changed(batch_size=few), 1, 0.0, device, 1)[0] > LONG
        for few in (min(2, batch), min(16, batch), batch)
    )


def _same_bits(task: Task, device: torch.device, most: int) -> bool:
    """Compare the first lane's bits in packs of several sizes."""
    splits, net = made_up(task, device), network(task)
    whole = _passed(net, splits, most)
    return all(
        torch.equal(one[0], other[0])
        for lanes in {1, 2, 3, 5, most // 2} - {0, most}
        for one, other in zip(whole, _passed(net, splits, lanes), strict=True)
    )


def _passed(net: Network, splits: Splits, lanes: int) -> Sequence[Tensor]:
    """Return losses, logits, gradients and predictions of lanes that differ, after two steps."""
    stream = torch.Generator().manual_seed(0)
    ((x, y),) = splits.train.batches(len(splits.train))
    device = splits.train.device
    net = net.of_seed(stream, device)
    arena = Arena.stack(net.init(stream), lanes, device=device, dtype=splits.train.dtype)
    arena.theta.mul_(torch.linspace(1, 1.5, lanes).to(arena.theta).unsqueeze(1))
    train = net.lanes(arena.named, arena.named_grad, len(y))
    noise = [torch.Generator(device).manual_seed(0) for _ in range(lanes)]
    for _ in range(2):
        losses, logits = train.gradient(x, y, noise)
        arena.theta.sub_(arena.grad, alpha=0.01)
    with torch.inference_mode():
        ((held_out, _),) = splits.validation.batches(len(splits.validation))
        predicted = train.predictor().predict(held_out)
    return losses, logits, arena.grad, predicted


def _key(task: Task, device: torch.device) -> str:
    """Name all that the choice depends on."""
    where = gpu_name(device) or platform.machine()
    sizes = task.data_set
    parts = (
        platform.node(),
        where,
        f"torch {torch.__version__}",
        f"lrwd-sweep {__version__}",
        task.net,
        task.net_options,
        task.loss,
        *(digest for name, digest in task.code if name != task.data),
        str((*sizes.shape, sizes.classes)),
        *([str(sizes.item)] if sizes.item != DataSet(0, 0, 0, sizes.classes, sizes.shape) else []),
        f"batch {task.batch_size}",
        f"smoothed {task.label_smoothing}" if task.label_smoothing else "",
        "logits penalised" if task.logit_decay else "",
        task.precision,
        task.train,
    )
    return "; ".join(part for part in parts if part)


def cache_file() -> Path:
    """Return the file of measured engines in the user's cache; losing it does no harm."""
    cache = os.path.expanduser(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    return Path(cache, "lrwd-sweep", "engines.json")


def _cached() -> dict[str, object]:
    """Read the engines by key; a file that cannot be read counts as empty."""
    try:
        found = json.loads(cache_file().read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _keep(key: str, engine: str) -> None:
    """Store a choice, if the file can be written."""
    text = json.dumps(_cached() | {key: engine}, indent=1, sort_keys=True)
    path = cache_file()
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as file:
            file.write(text)
        os.replace(file.name, path)  # never half written, even with several writers
