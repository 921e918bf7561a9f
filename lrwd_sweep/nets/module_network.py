"""Anyone's nn.Module as a network that the engine can train."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from copy import deepcopy
from functools import cached_property

import torch
from torch import Tensor, nn

from lrwd_sweep.nets.invariance import scale_invariant
from lrwd_sweep.nets.module_lanes import ModuleLanes
from lrwd_sweep.nets.probe import examine

_global_generator = threading.Lock()  # modules initialise themselves from it, and packs start in threads


class ModuleNetwork:
    """The classifier that `make` builds. Raises UsageError where its lanes could not be told apart by seed,
    and what the module raises on inputs of `shape`.
    """

    stacked = False

    def __init__(self, make: Callable[[], nn.Module], shape: tuple[int, ...], classes: int) -> None:
        self.make, self.shape = make, shape
        module = _initialised(make, seed=0)
        hollow = {id(value): nn.Parameter(value.to("meta")) for value in module.parameters()}
        self.module = deepcopy(module, hollow)  # the architecture: parameters without values, and buffers
        self.footprint = examine(self.module, shape, classes)

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every parameter, as the module names and orders them."""
        return {name: tuple(value.shape) for name, value in self.module.named_parameters()}

    @cached_property
    def scale_invariant(self) -> tuple[str, ...]:
        """The weights with a normalisation behind them; found by one pass in float64."""
        return scale_invariant(self.module, self.init(torch.Generator().manual_seed(0)), self.shape)

    def init(self, generator: torch.Generator) -> dict[str, Tensor]:
        """The module's own initialisation, seeded by the generator, in float64."""
        seed = int(torch.randint(2**62, (), generator=generator))
        module = _initialised(self.make, seed)
        return {name: value.detach().double() for name, value in module.named_parameters()}

    def lanes(self, theta: Mapping[str, Tensor], grad: Mapping[str, Tensor], batch: int) -> ModuleLanes:
        """As many modules as `theta` holds; `batch` does not matter to them."""
        return ModuleLanes(self.module, theta, grad)

    def activations(self, batch: int, eval_batch: int) -> int:
        """What is kept for the backward pass and six more tensors; an evaluation batch needs ten.

        A quarter and those numbers of tensors are what resident memory showed on a CPU, fragments and the
        convolutions' scratch included.
        """
        kept, largest = self.footprint.kept, self.footprint.largest
        return int(max((1.25 * kept + 6 * largest) * batch, 10 * largest * eval_batch))


def _initialised(make: Callable[[], nn.Module], seed: int) -> nn.Module:
    """A new module as it initialises itself after `seed`; the global generator is left as it was."""
    with _global_generator, torch.inference_mode(mode=False):
        before = torch.get_rng_state()
        torch.default_generator.manual_seed(seed)
        try:
            return make()
        finally:
            torch.set_rng_state(before)
