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

from lrwd_sweep.errors import UsageError
from lrwd_sweep.nets.loss import Loss
from lrwd_sweep.nets.noise import Noisy
from lrwd_sweep.nets.precision import compute_type, computing
from lrwd_sweep.spec.catalog import FLOAT32


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
            for k, (noisy, stream) in enumerate(zip(self.noisy, noise, strict=True)):
                for part in noisy:
                    part.noise = stream
                loss, logits = self.trained(k, x, y)
                losses.append(loss)
                found.append(logits.t())
        return torch.stack(losses), torch.stack(found)

    def trained(self, k: int, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:  # (), (B, C)
        """The loss and logits of lane k, whose gradients are added to what is there."""
        with computing(self.dtype, x.device):
            logits = self.lanes[k](x).to(x.dtype)
        loss = self.lowered(logits, y)
        torch.autograd.backward(loss)
        return loss.detach(), logits.detach()

    def lowered(self, logits: Tensor, y: Tensor) -> Tensor:  # (B, C), (B,) → ()
        """The loss that a lane's training lowers."""
        return self.loss(logits, y)

    def evaluated(self, k: int, x: Tensor) -> Tensor:  # (B, C)
        """The logits of lane k by its running statistics, nothing random."""
        lane = self.lanes[k].eval()
        with computing(self.dtype, x.device):
            logits: Tensor = lane(x).to(x.dtype)
        lane.train()
        return logits.detach()

    def predictor(self) -> ModulePredictor:
        """The modules themselves: what they predict follows their training."""
        return ModulePredictor(self)


@dataclass(frozen=True, slots=True)
class ModulePredictor:
    """Modules in evaluation."""

    of: ModuleLanes

    def predict(self, x: Tensor) -> Tensor:  # (L, classes, B)
        """The logits on x (B, *shape)."""
        lanes, layout = range(len(self.of.lanes)), self.of.layout
        with torch.inference_mode(mode=False), torch.no_grad():  # a module may keep a tensor for its training
            return torch.stack([self.of.evaluated(k, _ordered(x, layout)).t() for k in lanes])


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
            alike = value.detach().to(like.device, like.dtype, copy=True)
            copies[id(value)] = nn.Parameter(alike, value.requires_grad)
    for buffer in module.buffers():
        dtype = like.dtype if buffer.is_floating_point() else buffer.dtype
        copies[id(buffer)] = buffer.to(like.device, dtype, copy=True)
    return copies


def sometimes_trained(module: nn.Module, new: Sequence[str], missing: Sequence[str]) -> UsageError:
    """What to say where parameters have a gradient that they had not, or have none where they had one."""
    what = (
        f"{new[0]} of {type(module).__name__} has a gradient, and had none when the network was tried out"
        if new
        else f"{missing[0]} of {type(module).__name__} has no gradient at a step, at which torch.optim would "
        "leave it alone"
    )
    return UsageError(
        f"the parameter {what}; let it take part in every step, such as by 0 * parameter.sum() in the logits"
    )
