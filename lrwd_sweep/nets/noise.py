"""Layers that draw random numbers, from a generator that they are handed.

torch's own draw from one generator of the whole process: what a lane draws would depend on its neighbours
and on the threads beside it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


class Noisy(nn.Module):
    """A layer that draws in training, from `noise`; whoever trains it sets that before every pass."""

    noise: torch.Generator | None = None


class Dropout(Noisy):
    """x · k/(1 − p), k = 0 with probability p and else 1; in evaluation x.

    One draw serves all that lies behind the first `dims` dimensions: every dimension is torch.nn.Dropout,
    2 is Dropout1d to 3d (whole channels), 1 and 0 are stochastic depth by image and by batch.
    """

    def __init__(self, p: float, dims: int | None = None) -> None:
        super().__init__()
        self.p, self.dims = p, dims

    def forward(self, x: Tensor) -> Tensor:
        """x (B, …), some of it zero."""
        if not self.training or self.p == 0:
            return x
        dims = x.dim() if self.dims is None else self.dims
        shape = (*x.shape[:dims], *[1] * (x.dim() - dims))
        # not `new_empty` of x: under vmap all lanes share the draw
        kept = torch.empty(shape, dtype=drawn_as(x), device=x.device)
        kept.bernoulli_(1 - self.p, generator=self.noise)
        return (x * (kept.div_(1 - self.p) if self.p < 1 else kept)).to(x.dtype)


def drawn_as(x: Tensor) -> torch.dtype:
    """What random numbers for x are drawn as: in bfloat16 they would be others, and 1/(1 − p) 0.4 % off."""
    return torch.float32 if x.dtype is torch.bfloat16 else x.dtype


def replace_layers(module: nn.Module, kind: type[nn.Module], make: Callable[[nn.Module], nn.Module]) -> None:
    """Put `make(layer)` where `module` has a layer of that kind."""
    for parent in list(module.modules()):
        for name, layer in list(parent._modules.items()):  # each place, though a layer may stand in several
            if type(layer) is kind:  # others need not do what it does
                setattr(parent, name, make(layer))


def replace_dropout(module: nn.Module) -> None:
    """Put ours where `module` has torch's dropout."""
    replace_layers(module, nn.Dropout, lambda layer: Dropout(layer.p))  # type: ignore[arg-type]
    for kind in (nn.Dropout1d, nn.Dropout2d, nn.Dropout3d):
        replace_layers(module, kind, lambda layer: Dropout(layer.p, 2))  # type: ignore[arg-type]
