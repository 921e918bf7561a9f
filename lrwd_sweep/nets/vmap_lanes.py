"""Anyone's nn.Module as lanes in one program: torch.func.vmap over stacked parameters and buffers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from lrwd_sweep.nets.loss import Loss
from lrwd_sweep.nets.module_lanes import sometimes_trained, untrained
from lrwd_sweep.nets.noise import Noisy
from lrwd_sweep.nets.precision import compute_type, computing
from lrwd_sweep.spec.catalog import FLOAT32

State = Mapping[str, Tensor]


class VmapLanes:
    """L modules in training; parameters and gradients are views of an arena, buffers stacked likewise."""

    def __init__(
        self,
        module: nn.Module,  # the architecture, with the first values of all that is not in `theta`
        theta: Mapping[str, Tensor],
        grad: Mapping[str, Tensor],
        loss: Loss,
        precision: str = FLOAT32,
    ) -> None:
        like = next(iter(theta.values()))
        lanes, self.dtype = len(like), compute_type(precision, like)
        self.module = deepcopy(module, untrained(module, theta)).train()  # its own: a call changes it
        self.noisy = [part for part in self.module.modules() if isinstance(part, Noisy)]
        self.theta = {name: nn.Parameter(value) for name, value in theta.items()}
        self.grads = [grad[name] for name in theta]
        self.left_out = {
            name: one
            for name, one in self.module.named_parameters()
            if name not in theta and one.requires_grad
        }
        self.buffers: State = {
            name: value.repeat(lanes, *[1] * value.dim()) for name, value in self.module.named_buffers()
        }
        self.loss = loss

    def gradient(
        self,
        x: Tensor,  # (B, *shape), the same batch in every lane
        y: Tensor,  # (B,) int64
        noise: Sequence[torch.Generator],  # the first is drawn from, once for all lanes
    ) -> tuple[Tensor, Tensor]:  # (L,), (L, C, B)
        """Every lane's mean loss on the batch, and its logits; the gradients are written."""
        with torch.inference_mode(mode=False), torch.enable_grad():
            x, y = x.clone(), y.clone()  # what inference mode makes is not recorded
            for part in self.noisy:
                part.noise = noise[0]
            losses, logits, buffers = vmap(self._pass, (0, 0, None, None), randomness="same")(
                self.theta, self.buffers, x, y
            )
            # no lane's loss depends on another's parameters
            found = self._gradients(losses.sum())
            for grad, value in zip(self.grads, found, strict=True):
                grad.copy_(value)
            for name, value in buffers.items():
                if value is not self.buffers[name]:  # not changed in place, but put in its place
                    self.buffers[name].copy_(value.detach())
        return losses.detach(), logits.detach().transpose(1, 2)

    def _gradients(self, loss: Tensor) -> list[Tensor]:  # one of each in `theta`
        """Raises UsageError where one is missing, or another parameter has one."""
        every = {**self.theta, **self.left_out}
        values = torch.autograd.grad(loss, list(every.values()), allow_unused=True)
        found: dict[str, Tensor | None] = dict(zip(every, values, strict=True))
        new = [name for name in self.left_out if found[name] is not None]
        trained = {name: one for name in self.theta if (one := found[name]) is not None}
        if new or len(trained) < len(self.theta):
            raise sometimes_trained(self.module, new, [name for name in self.theta if name not in trained])
        return list(trained.values())

    def _pass(self, theta: State, buffers: State, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, State]:
        """One lane's loss, logits (B, C) and buffers."""
        state = {**theta, **buffers}
        with computing(self.dtype, x.device, stacked=True):
            logits = functional_call(self.module, state, (x,)).to(x.dtype)
        return self.loss(logits.clone(), y), logits, {name: state[name] for name in buffers}

    def predictor(self) -> VmapPredictor:
        """The networks themselves: what they predict follows their training."""
        return VmapPredictor(self.module, self.theta, self.buffers, self.dtype)


@dataclass(frozen=True, slots=True)
class VmapPredictor:
    """Modules in evaluation: running statistics, nothing random."""

    module: nn.Module
    theta: State
    buffers: State
    dtype: torch.dtype  # what products are computed in

    def predict(self, x: Tensor) -> Tensor:  # (L, classes, B)
        """The logits on x (B, *shape)."""
        self.module.eval()
        with torch.inference_mode(mode=False), torch.no_grad():
            logits: Tensor = vmap(self._pass, (0, 0, None))(self.theta, self.buffers, x.clone())
        self.module.train()
        return logits.transpose(1, 2)

    def _pass(self, theta: State, buffers: State, x: Tensor) -> Tensor:  # (B, classes)
        with computing(self.dtype, x.device, stacked=True):
            logits: Tensor = functional_call(self.module, {**theta, **buffers}, (x,)).to(x.dtype)
        return logits
