"""Any nn.Module as lanes in one program: torch.func.vmap over stacked parameters and buffers."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from lrwd_sweep.nets.loop import sometimes_trained, untrained
from lrwd_sweep.nets.network import Noise, Way
from lrwd_sweep.nets.precision import compute_type, computing
from lrwd_sweep.nets.randomness import Noisy

State = Mapping[str, Tensor]


class VmapLanes:
    """L modules in training; parameters and gradients are views of an arena, buffers are stacked likewise."""

    def __init__(
        self,
        module: nn.Module,  # the architecture, with the initial values of everything not in `theta`
        theta: State,
        grad: State,
        way: Way,
    ) -> None:
        like = next(iter(theta.values()))
        self.way, self.dtype = way, compute_type(way.precision, like)
        self.module = deepcopy(module, untrained(module, theta)).train()  # a copy, as calls change it
        self.noisy = [part for part in self.module.modules() if isinstance(part, Noisy)]
        self.theta = {name: nn.Parameter(value) for name, value in theta.items()}
        self.grads = [grad[name] for name in theta]
        self.left_out = {
            name: one
            for name, one in self.module.named_parameters()
            if name not in theta and one.requires_grad
        }
        self.buffers: State = {
            name: value.repeat(len(like), *[1] * value.dim()) for name, value in self.module.named_buffers()
        }

    def gradient(self, x: Tensor, y: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
        """Return every lane's mean loss on the batch and its logits; write the gradients."""
        with torch.inference_mode(mode=False), torch.enable_grad():
            x, y = x.clone(), y.clone()  # autograd does not record tensors of inference mode
            for part in self.noisy:
                part.noise = noise[0]
            losses, logits, buffers = vmap(self._train, (0, 0, None, None), randomness="same")(
                self.theta, self.buffers, x, y
            )
            # no lane's loss depends on another's parameters
            found = self._gradients(losses.sum())
            for grad, value in zip(self.grads, found, strict=True):
                grad.copy_(value)
            for name, value in buffers.items():
                if value is not self.buffers[name]:  # replaced instead of changed in place
                    self.buffers[name].copy_(value.detach())
        return losses.detach(), logits.detach().transpose(1, 2)

    def _gradients(self, loss: Tensor) -> list[Tensor]:  # one of each in `theta`
        """Compute the gradients. Raises UsageError if one is missing, or another parameter has one."""
        every = {**self.theta, **self.left_out}
        values = torch.autograd.grad(loss, list(every.values()), allow_unused=True)
        found: dict[str, Tensor | None] = dict(zip(every, values, strict=True))
        new = [name for name in self.left_out if found[name] is not None]
        trained = {name: one for name in self.theta if (one := found[name]) is not None}
        if new or len(trained) < len(self.theta):
            raise sometimes_trained(self.module, new, [name for name in self.theta if name not in trained])
        return list(trained.values())

    def _logits(self, state: dict[str, Tensor], x: Tensor) -> Tensor:  # (B, C)
        """Compute one lane's logits from its parameters and buffers."""
        with computing(self.dtype, x.device, stacked=True):
            logits: Tensor = functional_call(self.module, state, (x,)).to(x.dtype)
        return logits

    def _train(self, theta: State, buffers: State, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, State]:
        """Compute one lane's loss, logits (B, C) and new buffers."""
        state = {**theta, **buffers}
        logits = self._logits(state, x)
        return self.way.loss(logits.clone(), y), logits, {name: state[name] for name in buffers}

    def predict(self, x: Tensor) -> Tensor:  # (L, classes, B)
        """Return the logits on x (B, *shape) in evaluation mode."""
        self.module.eval()
        with torch.inference_mode(mode=False), torch.no_grad():
            logits: Tensor = vmap(lambda theta, buffers: self._logits({**theta, **buffers}, x.clone()))(
                self.theta, self.buffers
            )
        self.module.train()
        return logits.transpose(1, 2)

    def predictor(self) -> VmapLanes:
        """Return the lanes themselves: predictions follow their training."""
        return self
