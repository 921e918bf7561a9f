"""Anyone's nn.Module as lanes: one module per lane on the arena's memory, lane after lane.

Where one lane fills the device already (convolutions on a CPU, wide networks on a GPU), nothing is gained by
stacking the arithmetic of several.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from lrwd_sweep.catalog import FLOAT32
from lrwd_sweep.nets.loss import Loss
from lrwd_sweep.nets.noise import Noisy
from lrwd_sweep.nets.precision import compute_type, computing


class ModuleLanes:
    """L modules in training; parameters and gradients are views of an arena, all else is their own."""

    def __init__(
        self,
        module: nn.Module,  # the architecture, with the first values of all that is not in `theta`
        theta: Mapping[str, Tensor],
        grad: Mapping[str, Tensor],
        loss: Loss = functional.cross_entropy,
        layout: torch.memory_format | None = None,  # of the inputs; None: channels last for images
        precision: str = FLOAT32,
    ) -> None:
        like = next(iter(theta.values()))
        lanes, self.dtype = len(like), compute_type(precision, like)
        self.lanes = [_lane(module, theta, grad, lane) for lane in range(lanes)]
        self.grads = list(grad.values())
        self.noisy = [[part for part in lane.modules() if isinstance(part, Noisy)] for lane in self.lanes]
        self.loss, self.layout = loss, layout

    def gradient(
        self,
        x: Tensor,  # (B, *shape), the same batch in every lane
        y: Tensor,  # (B,) int64
        noise: Sequence[torch.Generator],  # alike, one for each lane
    ) -> tuple[Tensor, Tensor]:  # (L,), (L, C, B)
        """Every lane's mean loss on the batch, and its logits; the gradients are written."""
        losses, found = [], []
        with torch.inference_mode(mode=False), torch.enable_grad():
            x, y = _ordered(x, self.layout), y.clone()  # copies: what inference mode makes is not recorded
            for grad in self.grads:
                grad.zero_()
            for lane, noisy, stream in zip(self.lanes, self.noisy, noise, strict=True):
                for part in noisy:
                    part.noise = stream
                with computing(self.dtype, x.device):
                    logits = lane(x).to(x.dtype)
                loss = self.loss(logits, y)
                torch.autograd.backward(loss)
                losses.append(loss.detach())
                found.append(logits.detach().t())
        return torch.stack(losses), torch.stack(found)

    def predictor(self) -> ModulePredictor:
        """The modules themselves: what they predict follows their training."""
        return ModulePredictor(self.lanes, self.layout, self.dtype)


@dataclass(frozen=True, slots=True)
class ModulePredictor:
    """Modules in evaluation: running statistics, nothing random."""

    lanes: Sequence[nn.Module]
    layout: torch.memory_format | None
    dtype: torch.dtype  # what products are computed in

    def predict(self, x: Tensor) -> Tensor:  # (L, classes, B)
        """The logits on x (B, *shape)."""
        x = _ordered(x, self.layout)
        return torch.stack([_evaluated(lane, x, self.dtype).t() for lane in self.lanes])


def _evaluated(lane: nn.Module, x: Tensor, dtype: torch.dtype) -> Tensor:  # (B, classes)
    lane.eval()
    with torch.no_grad(), computing(dtype, x.device):
        logits: Tensor = lane(x).to(x.dtype)
    lane.train()
    return logits


def _ordered(x: Tensor, layout: torch.memory_format | None) -> Tensor:
    """A copy of the batch."""
    if layout is None:
        layout = torch.channels_last if x.dim() == 4 else torch.contiguous_format
    return x.clone(memory_format=layout)


def _lane(module: nn.Module, theta: Mapping[str, Tensor], grad: Mapping[str, Tensor], lane: int) -> nn.Module:
    """A copy of `module` on one lane's memory."""
    copies = untrained(module, theta)
    for name, hollow in module.named_parameters():
        if name in theta:
            parameter = nn.Parameter(theta[name][lane])
            parameter.grad = grad[name][lane]
            copies[id(hollow)] = parameter
    return deepcopy(module, copies).train()


def untrained(module: nn.Module, theta: Mapping[str, Tensor]) -> dict[int, object]:
    """Copies of the tensors that `theta` has not, on its device and in its precision, by their ids."""
    like = next(iter(theta.values()))
    copies: dict[int, object] = {}
    for name, value in module.named_parameters():
        if name not in theta:
            frozen = value.detach().to(like.device, like.dtype, copy=True)
            copies[id(value)] = nn.Parameter(frozen, requires_grad=False)
    for buffer in module.buffers():
        dtype = like.dtype if buffer.is_floating_point() else buffer.dtype
        copies[id(buffer)] = buffer.to(like.device, dtype, copy=True)
    return copies
