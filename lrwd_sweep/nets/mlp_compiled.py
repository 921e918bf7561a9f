"""Multilayer perceptrons with a lane axis, in compiled loops on a CPU: the rules of `mlp`, faster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lrwd_sweep.nets import mlp_loops
from lrwd_sweep.nets.batch_norm import EPS


class CompiledMlpLanes:
    """L networks in training, as `MlpLanes`: all is computed for one lane before it is for the next.

    The first `normed` layers are normalised; the logits are `scale` times the last one, and a bias.
    """

    def __init__(
        self,
        theta: Mapping[str, Tensor],
        grad: Mapping[str, Tensor],
        batch: int,
        *,
        widths: Sequence[int],
        normed: int,
        scale: float,
    ) -> None:
        self.theta, self.grad = _rows(theta), _rows(grad)
        like, lanes = self.theta, len(self.theta)
        self.widths, self.normed = np.array(widths), normed
        self.scale = like.new_tensor(scale).numpy()[()]
        units, widest = sum(widths[1:]), max(widths[1:])
        self.losses = like.new_empty(lanes)
        self.logits = like.new_empty(lanes, widths[-1], batch)
        self.running_mean, self.running_var = like.new_zeros(lanes, units), like.new_ones(lanes, units)
        sizes = (units * batch, units * batch, widest * batch, widest * batch, units, widest, widest)
        rooms = [like.new_empty(size) for size in sizes]
        self.scratch = mlp_loops.Scratch(*_numbers(*rooms, like.new_full((batch,), 1 / batch)))

    def gradient(
        self,
        x: Tensor,  # (B, *shape), the same batch in every lane
        y: Tensor,  # (B,) int64
        noise: Sequence[torch.Generator],  # not used
    ) -> tuple[Tensor, Tensor]:  # (L,), (L, C, B)
        """Every lane's mean cross-entropy on the batch, and its logits; the gradients are written.

        Both results are buffers that the next call overwrites.
        """
        x = x.flatten(1)
        mlp_loops.gradient(
            self.theta.numpy(),
            self.grad.numpy(),
            self.widths,
            self.normed,
            self.scale,
            *_numbers(x.contiguous(), x.t().contiguous(), y),
            self.scratch,
            *_numbers(self.running_mean, self.running_var, self.losses, self.logits),
        )
        return self.losses, self.logits

    def predictor(self) -> CompiledPredictor:
        """The networks by running statistics; for as long as they are not trained on."""
        return CompiledPredictor(self)


class CompiledPredictor:
    """Networks for evaluation."""

    def __init__(self, lanes: CompiledMlpLanes) -> None:
        self.lanes = lanes
        self.running_rstd = torch.rsqrt(lanes.running_var + EPS)

    def predict(self, x: Tensor) -> Tensor:  # (L, classes, B)
        """The logits on x (B, *shape)."""
        lanes, x = self.lanes, x.flatten(1)
        widest = int(lanes.widths[1:].max())
        logits = x.new_empty(len(lanes.theta), int(lanes.widths[-1]), len(x))
        rooms = [x.new_empty(size) for size in (x.numel(), *[widest * mlp_loops.COLUMNS] * 2)]
        mlp_loops.predict(
            lanes.theta.numpy(),
            lanes.widths,
            lanes.normed,
            lanes.scale,
            *_numbers(x.contiguous(), *rooms, lanes.running_mean, self.running_rstd, logits),
        )
        return logits


def _numbers(*tensors: Tensor) -> list[np.ndarray[Any, Any]]:
    return [tensor.numpy() for tensor in tensors]


def _rows(views: Mapping[str, Tensor]) -> Tensor:  # (L, P)
    """The arena that the views are of: the matrices one after another, then the bias."""
    first, bias = views["weight1"], views["bias"]
    columns = first.stride(0) if len(first) > 1 else bias.storage_offset() + bias.shape[1]
    return first.as_strided((len(first), columns), (columns, 1), 0)
