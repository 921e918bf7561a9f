"""Seeded global generators, and random layers that draw from a generator they are given.

torch's own random layers draw from one generator per process: a lane's draws would depend on its neighbours
and on other threads.
"""

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

_lock = threading.RLock()  # packs start in threads


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch on the CPU, numpy and random inside the context; restore their states afterwards."""
    with _lock, torch.inference_mode(mode=False), torch.enable_grad():
        states = torch.get_rng_state(), np.random.get_state(), random.getstate()
        seed_globals(seed)
        try:
            yield
        finally:
            torch.set_rng_state(states[0])
            np.random.set_state(states[1])
            random.setstate(states[2])


def seed_globals(seed: int) -> None:
    """Seed torch on the CPU, numpy and random; only inside `seeded`, which restores them."""
    torch.default_generator.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


def python_state() -> tuple[object, ...]:
    """Return the states of numpy's and random's global generators, for comparison."""
    name, keys, *rest = np.random.get_state(legacy=True)
    return name, np.asarray(keys).tobytes(), *rest, random.getstate()


class Noisy(nn.Module):
    """A layer that draws from `noise` in training; the lanes set it before every pass."""

    noise: torch.Generator | None = None


class Dropout(Noisy):
    """x · k/(1 − p), where k is 0 with probability p and else 1; x in evaluation.

    Draws are shared behind the first `dims` dimensions: None is torch.nn.Dropout, 2 is Dropout1d to Dropout3d
    (whole channels), 1 and 0 are stochastic depth per image and per batch.
    """

    def __init__(self, p: float, dims: int | None = None) -> None:
        super().__init__()
        self.p, self.dims = p, dims

    def forward(self, x: Tensor) -> Tensor:
        """Drop values of x (B, …)."""
        if not self.training or self.p == 0:
            return x
        dims = x.dim() if self.dims is None else self.dims
        shape = (*x.shape[:dims], *[1] * (x.dim() - dims))
        # not x.new_empty: under vmap all lanes share the draw
        kept = torch.empty(shape, dtype=drawn_as(x), device=x.device)
        kept.bernoulli_(1 - self.p, generator=self.noise)
        return (x * (kept.div_(1 - self.p) if self.p < 1 else kept)).to(x.dtype)


def drawn_as(x: Tensor) -> torch.dtype:
    """Return the dtype of random numbers for x: bfloat16 draws differ and round 1/(1 − p) by 0.4 %."""
    return torch.float32 if x.dtype is torch.bfloat16 else x.dtype


def replace_layers(module: nn.Module, kind: type[nn.Module], make: Callable[[nn.Module], nn.Module]) -> None:
    """Replace every layer of exactly the class `kind` by `make(layer)`."""
    for parent in list(module.modules()):
        for name, layer in list(parent._modules.items()):  # every place, as a layer may stand in several
            if type(layer) is kind:
                setattr(parent, name, make(layer))


def replace_dropout(module: nn.Module) -> None:
    """Replace torch's dropout layers by `Dropout`."""
    replace_layers(module, nn.Dropout, lambda layer: Dropout(layer.p))  # type: ignore[arg-type]
    for kind in (nn.Dropout1d, nn.Dropout2d, nn.Dropout3d):
        replace_layers(module, kind, lambda layer: Dropout(layer.p, 2))  # type: ignore[arg-type]
