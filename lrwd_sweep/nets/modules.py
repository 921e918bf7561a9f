"""Any nn.Module as a network that the engine can train."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import copy
from functools import cached_property
from typing import Self

import torch
from torch import Tensor, nn

from lrwd_sweep.errors import UsageError
from lrwd_sweep.nets.dry_run import copied, dry_run, examine
from lrwd_sweep.nets.loop import LoopLanes, UserLoopLanes
from lrwd_sweep.nets.network import DEFAULT_WAY, Lanes, Way
from lrwd_sweep.nets.parameters import norm_and_bias, scale_invariant
from lrwd_sweep.nets.precision import compute_type
from lrwd_sweep.nets.randomness import seeded
from lrwd_sweep.nets.vmap import VmapLanes

Make = Callable[[], nn.Module]

WIDE = 8_000_000  # parameters of dense convolutions from which a CPU trains faster channels first


class ModuleNetwork:
    """The classifier that `make` builds.

    Raises UsageError if its lanes could not follow their seeds, and any exception of the module on inputs of
    `shape`. Parameters that are frozen, or that the loss does not depend on, do not train: like buffers they
    are part of the module, as under torch.optim.
    """

    def __init__(self, make: Make, shape: tuple[int, ...], classes: int, way: Way = DEFAULT_WAY) -> None:
        self.make, self.shape, self.classes, self.way = make, shape, classes, way
        module = _initialised(make, seed=0)
        found = examine(module, shape, classes, way)
        self.layout, self.by_item = found.layout, found.by_item
        self.trained = [
            name for name, value in module.named_parameters() if value.requires_grad and name in found.trained
        ]
        self.norm_and_bias = norm_and_bias(module)
        self.module = self._hollow(module)
        if way.user_code and _initialised(make, seed=1) is module:
            raise UsageError("it returns the same network at every call; make a new one for every seed")
        self.wide = _is_wide(self.module)

    @property
    def stacked(self) -> bool:
        """True if all lanes train in one program."""
        return self.way.vmap

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every trained parameter, as the module names and orders them."""
        found = dict(self.module.named_parameters())
        return {name: tuple(found[name].shape) for name in self.trained}

    @cached_property
    def scale_invariant(self) -> tuple[str, ...]:
        """The weights followed by a normalisation; found by one pass in float64."""
        try:
            return scale_invariant(self.module, self.init(torch.Generator().manual_seed(0)), self.shape)
        except Exception:
            if self.way.user_code:  # which need not support float64
                return ()
            raise

    def init(self, generator: torch.Generator) -> dict[str, Tensor]:
        """Return the module's own initialisation by the generator: float64, in the network's layout."""
        found = dict(self._seeded(generator).named_parameters())
        return {name: _laid_out(found[name].detach().double(), self.layout) for name in self.trained}

    def of_seed(self, generator: torch.Generator, device: torch.device) -> Self:
        """Return the network for a device, its untrained tensors initialised as by `init`."""
        network = self._channels_first if self.wide and device.type == "cpu" else self
        if not self.way.user_code:
            return network
        network = copy(network)
        network.module = self._hollow(self._seeded(generator))
        return network

    def check_precision(self) -> None:
        """Do a dry run in the network's precision. Raises any exception of the module."""
        module, dtype = _initialised(self.make, seed=0), compute_type(self.way.precision, torch.zeros(0))
        dry_run(module, self.shape, self.classes, self.way, self.layout, dtype)

    def lanes(self, theta: Mapping[str, Tensor], grad: Mapping[str, Tensor], batch: int) -> Lanes:
        """Return as many modules as `theta` holds, for batches of any size."""
        if self.way.vmap:
            return VmapLanes(self.module, theta, grad, self.way)
        if self.way.user_code:
            return UserLoopLanes(self.module, theta, grad, self.way, self.layout, self.classes)
        return LoopLanes(self.module, theta, grad, self.way, self.layout)

    @cached_property
    def _channels_first(self) -> Self:
        network = copy(self)
        network.layout = torch.contiguous_format
        return network

    def _seeded(self, generator: torch.Generator) -> nn.Module:
        return _initialised(self.make, int(torch.randint(2**62, (), generator=generator)))

    def _hollow(self, module: nn.Module) -> nn.Module:
        """Copy the module with trained parameters on the meta device, without values."""
        found = dict(module.named_parameters())
        return copied(
            module, {id(found[name]): nn.Parameter(found[name].to("meta")) for name in self.trained}
        )


def _initialised(make: Make, seed: int) -> nn.Module:
    """Make a module initialised by `seed`; the global generators keep their states."""
    with seeded(seed):
        return make()


def _is_wide(module: nn.Module) -> bool:
    convolutions = [part for part in module.modules() if isinstance(part, nn.Conv2d)]
    dense = all(part.groups == 1 for part in convolutions)
    return dense and sum(part.weight.numel() for part in convolutions) > WIDE


def _laid_out(value: Tensor, layout: torch.memory_format) -> Tensor:
    """Put the weight of a convolution into the layout of its images."""
    return value.contiguous(memory_format=layout) if value.dim() == 4 else value
