"""Anyone's nn.Module as a network that the engine can train."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from lrwd_sweep.errors import UsageError
from lrwd_sweep.nets.invariance import scale_invariant
from lrwd_sweep.nets.loss import Loss
from lrwd_sweep.nets.module_lanes import ModuleLanes
from lrwd_sweep.nets.network import Lanes
from lrwd_sweep.nets.own_lanes import OwnLanes
from lrwd_sweep.nets.precision import compute_type
from lrwd_sweep.nets.probe import examine
from lrwd_sweep.nets.seeded import seeded
from lrwd_sweep.nets.tried import Tried, copied, try_out
from lrwd_sweep.nets.undecayed import norm_and_bias
from lrwd_sweep.nets.vmap_lanes import VmapLanes
from lrwd_sweep.spec.catalog import FLOAT32

Make = Callable[[], nn.Module]

TOLERANCE = 1e-3  # of logits' scale: float32 summed in another order is below
WIDE = 8_000_000  # parameters of a network of dense convolutions that a CPU trains sooner channels first


@dataclass(frozen=True, slots=True)
class Way:
    """How a module's lanes train."""

    loss: Loss = functional.cross_entropy
    stacked: bool = False  # by vmap; else one after another
    precision: str = FLOAT32  # of its products
    careful: bool = False  # nobody knows the module: it may look at values, and begin with random buffers


class ModuleNetwork:
    """The classifier that `make` builds. Raises UsageError where its lanes could not be told apart by seed,
    and what the module raises on inputs of `shape`.

    What is frozen, or what the loss does not depend on, does not train: it is part of the module, like a
    buffer, as torch.optim leaves it alone.
    """

    def __init__(self, make: Make, shape: tuple[int, ...], classes: int, way: Way = Way()) -> None:
        self.make, self.shape, self.classes, self.way = make, shape, classes, way
        module = _initialised(make, seed=0)
        reached, self.layout, self.by_item = _examined(module, shape, classes, way)
        self.trained = [
            name for name, value in module.named_parameters() if value.requires_grad and name in reached
        ]
        self.norm_and_bias = norm_and_bias(module)
        self.module = self._hollow(module)
        if way.careful and _initialised(make, seed=1) is module:
            raise UsageError("it returns the same network at every call; make a new one for every seed")
        self.wide = _is_wide(self.module)

    @property
    def stacked(self) -> bool:
        """Whether lanes train in one program."""
        return self.way.stacked

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every parameter that trains, as the module names and orders them."""
        found = dict(self.module.named_parameters())
        return {name: tuple(found[name].shape) for name in self.trained}

    @cached_property
    def scale_invariant(self) -> tuple[str, ...]:
        """The weights with a normalisation behind them; found by one pass in float64."""
        try:
            return scale_invariant(self.module, self.init(torch.Generator().manual_seed(0)), self.shape)
        except Exception:
            if self.way.careful:  # somebody's module need not know float64
                return ()
            raise

    def init(self, generator: torch.Generator) -> dict[str, Tensor]:
        """The module's own initialisation, seeded by the generator: float64, in the network's layout."""
        found = dict(self._seeded(generator).named_parameters())
        return {name: _laid_out(found[name].detach().double(), self.layout) for name in self.trained}

    def of_seed(self, generator: torch.Generator, device: torch.device) -> Self:
        """This for training there, with what does not train as `init` initialises it by such a generator."""
        network = self._channels_first if self.wide and device.type == "cpu" else self
        if not self.way.careful:
            return network
        network = copy(network)
        network.module = self._hollow(self._seeded(generator))
        return network

    def check_precision(self) -> None:
        """Compute once in the network's precision, on the CPU. Raises what the module raises."""
        module, dtype = _initialised(self.make, seed=0), compute_type(self.way.precision, torch.zeros(0))
        try_out(module, self.shape, self.classes, self.way.loss, self.layout, dtype)

    def lanes(self, theta: Mapping[str, Tensor], grad: Mapping[str, Tensor], batch: int) -> Lanes:
        """As many modules as `theta` holds; `batch` does not matter to them."""
        if self.way.stacked:
            return VmapLanes(self.module, theta, grad, self.way.loss, precision=self.way.precision)
        way = self.module, theta, grad, self.way.loss, self.layout, self.way.precision
        return OwnLanes(*way, self.classes) if self.way.careful else ModuleLanes(*way)

    @cached_property
    def _channels_first(self) -> Self:
        network = copy(self)
        network.layout = torch.contiguous_format
        return network

    def _seeded(self, generator: torch.Generator) -> nn.Module:
        return _initialised(self.make, int(torch.randint(2**62, (), generator=generator)))

    def _hollow(self, module: nn.Module) -> nn.Module:
        """The architecture: a copy whose trained parameters have no values."""
        found = dict(module.named_parameters())
        return copied(
            module, {id(found[name]): nn.Parameter(found[name].to("meta")) for name in self.trained}
        )


def _initialised(make: Make, seed: int) -> nn.Module:
    """A new module as it initialises itself after `seed`; the global generators are left as they were."""
    with seeded(seed):
        return make()


def _examined(
    module: nn.Module, shape: tuple[int, ...], classes: int, way: Way
) -> tuple[frozenset[str], torch.memory_format, bool]:
    """The parameters that the loss depends on, the layout of inputs and of convolutions' weights, and whether
    the evaluation of an item is its own.

    For images that is channels last, a fifth faster for narrow convolutions on a CPU. `view` fails in that
    layout, and `as_strided` computes something else: whoever uses them gets contiguous images and weights.
    """
    plain, last = torch.contiguous_format, torch.channels_last
    images = len(shape) == 3
    if not way.careful:
        return examine(module, shape, classes, way.loss), last if images else plain, True
    found = try_out(module, shape, classes, way.loss)
    layout = last if images and _takes(module, shape, classes, way, last, found) else plain
    return found.trained, layout, found.by_item


def _takes(
    module: nn.Module,
    shape: tuple[int, ...],
    classes: int,
    way: Way,
    layout: torch.memory_format,
    expected: Tried,
) -> bool:
    """Whether the module is the same in that layout."""
    try:
        found = try_out(module, shape, classes, way.loss, layout)
    except Exception:
        return False
    scale = float(expected.logits.abs().max())
    same = torch.allclose(found.logits, expected.logits, rtol=0, atol=TOLERANCE * scale)
    return same and found.trained == expected.trained


def _is_wide(module: nn.Module) -> bool:
    convolutions = [part for part in module.modules() if isinstance(part, nn.Conv2d)]
    dense = all(part.groups == 1 for part in convolutions)
    return dense and sum(part.weight.numel() for part in convolutions) > WIDE


def _laid_out(value: Tensor, layout: torch.memory_format) -> Tensor:
    """The weight of a convolution in the layout of its images; anything else as it is."""
    return value.contiguous(memory_format=layout) if value.dim() == 4 else value
