"""Multilayer perceptrons on a CPU in numba's loops, lane after lane: the rules of `mlp`, faster.

A lane stays in the core's cache: between two products lie one or two passes over its numbers, and nothing is
called from Python. The products are scipy's BLAS. Activations are (H, B), so that rows are contiguous.
"""
# mypy: allow-untyped-defs

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lrwd_sweep.nets.network import EPS, Noise, weight_of  # numba's cache notices changes of this file only
from lrwd_sweep.optim.jit import compiled

COLUMNS = 48  # inputs predicted at a time: products of such a width with 128 × 128 are OpenBLAS's fastest
SMALL = 1_000_000  # multiplications in a product, up to which OpenBLAS on AVX-512 copies no matrix first


class MlpScratch(NamedTuple):
    """Buffers for one lane's step on a batch of B."""

    n: np.ndarray  # (units · B,), normalised values of all layers, from the forward pass
    h: np.ndarray  # (units · B,), max(n, 0)
    d: np.ndarray  # (widest · B,), gradient by a layer's output
    e: np.ndarray  # (widest · B,), gradient by the output of the layer below
    rstd: np.ndarray  # (units,), 1/√(var + ε)
    means: np.ndarray  # (widest,)
    slopes: np.ndarray  # (widest,)
    share: np.ndarray  # (B,), 1/B


@compiled
def row_means(a, share, means):
    """Write means (rows,) of a (rows, B); share is (B,), 1/B."""
    means[:] = 0  # BLAS adds to 0 times the old values, which may be NaN
    np.dot(a, share, means)


@compiled
def normalise(z, rstd, running_mean, running_var, momentum, share, means, products):
    """Compute z (H, B) ← (z − mean)/√(var + ε) in place; write rstd, update the running statistics.

    momentum is the weight of the batch in these, share (B,) 1/B; means (H,) and products (H, B) are scratch.
    """
    kind = z.dtype.type
    rows, batch = z.shape
    row_means(z, share, means)
    for j in range(rows):
        row, square, mean = z[j], products[j], means[j]
        for b in range(batch):
            row[b] -= mean
            square[b] = row[b] * row[b]
        running_mean[j] += momentum * (mean - running_mean[j])
    row_means(products, share, means)
    unbiased = kind(batch) / kind(batch - 1)
    for j in range(rows):
        running_var[j] += momentum * (means[j] * unbiased - running_var[j])
        rstd[j] = kind(1) / math.sqrt(means[j] + kind(EPS))
    for j in range(rows):
        row, scale = z[j], rstd[j]
        for b in range(batch):
            row[b] *= scale


@compiled
def denormalise(n, rstd, dn, share, means, slopes, products):
    """Compute dn (H, B) ← dz = (dn − mean(dn) − n mean(dn·n)) rstd in place; n is from `normalise`.

    share is (B,), 1/B; means and slopes (H,) and products (H, B) are scratch.
    """
    rows, batch = n.shape
    for j in range(rows):
        row, d, product = n[j], dn[j], products[j]
        for b in range(batch):
            product[b] = d[b] * row[b]
    row_means(dn, share, means)
    row_means(products, share, slopes)
    for j in range(rows):
        row, d, mean, slope, scale = n[j], dn[j], means[j], slopes[j], rstd[j]
        for b in range(batch):
            d[b] = (d[b] - mean - row[b] * slope) * scale


@compiled
def apply_running(z, running_mean, running_rstd):
    """Compute z (H, B) ← (z − running mean) · running 1/√(var + ε) in place."""
    for j in range(len(z)):
        row, mean, rstd = z[j], running_mean[j], running_rstd[j]
        for b in range(len(row)):
            row[b] = (row[b] - mean) * rstd


@compiled
def apply_running_and_rectify(z, running_mean, running_rstd):
    """Do `apply_running`, then z ← max(z, 0); NaN stays NaN."""
    zero = z.dtype.type(0)
    for j in range(len(z)):
        row, mean, rstd = z[j], running_mean[j], running_rstd[j]
        for b in range(len(row)):
            n = (row[b] - mean) * rstd
            row[b] = zero if n < zero else n


@compiled
def rectify(n, h):
    """Compute h ← max(n, 0); NaN stays NaN."""
    zero = n.dtype.type(0)
    for j in range(len(n)):
        source, target = n[j], h[j]
        for b in range(len(source)):
            target[b] = zero if source[b] < zero else source[b]


@compiled
def rectify_backward(n, dh):
    """Compute dh ← dh where n > 0, else 0, in place."""
    zero = n.dtype.type(0)
    for j in range(len(n)):
        row, d = n[j], dh[j]
        for b in range(len(row)):
            d[b] = d[b] if row[b] > zero else zero


@compiled
def output(z, scale, bias, logits):
    """Compute logits (C, B) = scale z + bias."""
    for c in range(len(z)):
        source, target, shift = z[c], logits[c], bias[c]
        for b in range(len(source)):
            target[b] = scale * source[b] + shift


@compiled
def cross_entropy(logits, y, d):
    """Return the batch mean for logits (C, B) and classes (B,); d ← softmax − one-hot, its gradient · B."""
    kind = logits.dtype.type
    classes, batch = logits.shape
    loss = kind(0)
    for b in range(batch):
        top = logits[0, b]
        for c in range(1, classes):
            if not logits[c, b] <= top:  # or it is NaN
                top = logits[c, b]
        total = kind(0)
        for c in range(classes):
            d[c, b] = math.exp(logits[c, b] - top)
            total += d[c, b]
        loss += top + math.log(total) - logits[y[b], b]
        for c in range(classes):
            d[c, b] /= total
        d[y[b], b] -= kind(1)
    return loss / kind(batch)


@compiled
def output_backward(d, scale, share, db):
    """Compute db (C,) = means of d (C, B), and d ← scale/B d. share is (B,), 1/B."""
    row_means(d, share, db)
    for c in range(len(d)):
        row = d[c]
        for b in range(len(row)):
            row[b] *= scale * share[0]


@compiled
def matrix(flat, start, rows, columns):
    """Return the matrix (rows, columns) that begins at `start`."""
    return flat[start : start + rows * columns].reshape(rows, columns)


@compiled
def multiply_transposed(a, b, c, room):
    """Compute c (K, N) = aᵀ b of a (M, K) and b (M, N), in halves of M if those are small.

    room (K, N) is scratch.
    """
    if not SMALL < len(a) * c.size <= 2 * SMALL:
        np.dot(a.T, b, c)
        return
    half = len(a) // 2
    np.dot(a[:half].T, b[:half], c)
    np.dot(a[half:].T, b[half:], room)
    for k in range(len(c)):
        one, other = c[k], room[k]
        for i in range(len(one)):
            one[i] += other[i]


@compiled
def transpose(a, b):
    """Compute b (K, M) = aᵀ of a (M, K)."""
    for k in range(len(b)):
        for m in range(len(a)):
            b[k, m] = a[m, k]


@compiled
def gradient(
    theta,  # (L, P), the matrices (out, in) one after another, then the bias
    grad,  # (L, P), written
    widths,  # of the input and of every layer
    normed,  # number of normalised layers
    scale,  # of the last layer's output
    x,  # (B, in)
    xt,  # (in, B)
    y,  # (B,)
    scratch,
    running_mean,  # (L, units)
    running_var,  # (L, units)
    losses,  # (L,), written
    logits,  # (L, C, B), written
    momentum,  # of the running statistics
):
    """Compute every lane's loss on a batch and its gradient."""
    batch, last = len(x), len(widths) - 2
    n, h, d, e, rstd, means, slopes, share = scratch
    for lane in range(len(theta)):
        start = row = 0
        below = xt
        for k in range(last + 1):
            fan_in, units = widths[k], widths[k + 1]
            z = matrix(n, row * batch, units, batch)
            np.dot(matrix(theta[lane], start, units, fan_in), below, z)
            room = matrix(h, row * batch, units, batch)
            if k < normed:
                here = slice(row, row + units)
                mean, var = running_mean[lane, here], running_var[lane, here]
                normalise(z, rstd[here], mean, var, momentum, share, means[:units], room)
            if k < last:
                rectify(z, room)
                below = room
                start += units * fan_in
                row += units
        classes = widths[last + 1]
        bias = start + classes * widths[last]
        output(z, scale, theta[lane, bias : bias + classes], logits[lane])
        dz = matrix(d, 0, classes, batch)
        losses[lane] = cross_entropy(logits[lane], y, dz)
        output_backward(dz, scale, share, grad[lane, bias : bias + classes])
        for k in range(last, -1, -1):
            fan_in, units = widths[k], widths[k + 1]
            z = matrix(n, row * batch, units, batch)
            if k < last:
                rectify_backward(z, dz)
            if k < normed:
                room = matrix(h, row * batch, units, batch)  # h is not needed any more
                denormalise(z, rstd[row : row + units], dz, share, means[:units], slopes[:units], room)
            dw = matrix(grad[lane], start, units, fan_in)
            if k == 0:
                np.dot(dz, x, dw)
                break
            row -= fan_in
            below = matrix(h, row * batch, fan_in, batch)
            np.dot(dz, below.T, dw)
            dh = matrix(e, 0, fan_in, batch)
            multiply_transposed(matrix(theta[lane], start, units, fan_in), dz, dh, below)
            dz, d, e = dh, e, d
            start -= fan_in * widths[k - 1]


@compiled
def predict(theta, widths, normed, scale, x, xt, z, h, running_mean, running_rstd, logits):
    """Compute logits (L, C, B) of inputs x (B, in) by running statistics.

    xt (in · B,) is scratch, as are z and h (widest · COLUMNS,).
    """
    batch, last = len(x), len(widths) - 2
    starts = range(0, batch, COLUMNS)
    for begin in starts:
        end = min(begin + COLUMNS, batch)
        transpose(x[begin:end], matrix(xt, begin * widths[0], widths[0], end - begin))
    for lane in range(len(theta)):
        for begin in starts:
            end = min(begin + COLUMNS, batch)
            below = matrix(xt, begin * widths[0], widths[0], end - begin)
            start = row = 0
            for k in range(last + 1):
                fan_in, units = widths[k], widths[k + 1]
                above = matrix(z, 0, units, end - begin)
                np.dot(matrix(theta[lane], start, units, fan_in), below, above)
                start += units * fan_in
                here = slice(row, row + units)
                if k < last:
                    apply_running_and_rectify(above, running_mean[lane, here], running_rstd[lane, here])
                    below, z, h = above, h, z
                    row += units
                elif k < normed:
                    apply_running(above, running_mean[lane, here], running_rstd[lane, here])
            found = logits[lane, :, begin:end]
            output(above, scale, theta[lane, start : start + len(found)], found)


class NumbaMlpLanes:
    """L perceptrons in training, one lane after another.

    The first `normed` layers are normalised; logits are `scale` times the last layer, plus a bias.
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
        self.losses, self.logits = like.new_empty(lanes), like.new_empty(lanes, widths[-1], batch)
        self.running_mean, self.running_var = like.new_zeros(lanes, units), like.new_ones(lanes, units)
        self.average_statistics(None)
        sizes = (units * batch, units * batch, widest * batch, widest * batch, units, widest, widest)
        buffers = [like.new_empty(size) for size in sizes]
        self.scratch = MlpScratch(*_numbers(*buffers, like.new_full((batch,), 1 / batch)))

    def gradient(self, x: Tensor, y: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
        """Return every lane's mean cross-entropy on the batch and its logits; write the gradients.

        Both results are buffers that the next call overwrites.
        """
        x = x.flatten(1)
        gradient(
            *_numbers(self.theta, self.grad),
            self.widths,
            self.normed,
            self.scale,
            *_numbers(x.contiguous(), x.t().contiguous(), y),
            self.scratch,
            *_numbers(self.running_mean, self.running_var, self.losses, self.logits),
            self.momentum,
        )
        return self.losses, self.logits

    def predictor(self) -> NumbaMlpPredictor:
        """Return the networks by running statistics, valid until the next step."""
        return NumbaMlpPredictor(self)

    def average_statistics(self, batch: int | None) -> bool:
        """Make running statistics a mean over batches, as `Lanes` has it."""
        self.momentum = self.theta.new_tensor(weight_of(batch)).numpy()[()]
        return self.normed > 0

    def state(self) -> dict[str, Tensor]:
        """Return the running statistics, (L, units) each; not copies."""
        return {"mean": self.running_mean, "var": self.running_var}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Set what `state` returned."""
        for name, value in self.state().items():
            value.copy_(state[name])


class NumbaMlpPredictor:
    """Perceptrons for evaluation."""

    def __init__(self, lanes: NumbaMlpLanes) -> None:
        self.lanes = lanes
        self.running_rstd = torch.rsqrt(lanes.running_var + EPS)

    def predict(self, x: Tensor) -> Tensor:  # (L, classes, B)
        """Return the logits on x (B, *shape)."""
        lanes, x = self.lanes, x.flatten(1)
        widest = int(lanes.widths[1:].max())
        logits = x.new_empty(len(lanes.theta), int(lanes.widths[-1]), len(x))
        buffers = [x.new_empty(size) for size in (x.numel(), *[widest * COLUMNS] * 2)]
        predict(
            lanes.theta.numpy(),
            lanes.widths,
            lanes.normed,
            lanes.scale,
            *_numbers(x.contiguous(), *buffers, lanes.running_mean, self.running_rstd, logits),
        )
        return logits


def _numbers(*tensors: Tensor) -> list[np.ndarray[Any, Any]]:
    return [tensor.numpy() for tensor in tensors]


def _rows(views: Mapping[str, Tensor]) -> Tensor:  # (L, P)
    """Return the arena of the views: the matrices one after another, then the bias."""
    first, bias = views["weight1"], views["bias"]
    columns = first.stride(0) if len(first) > 1 else bias.storage_offset() + bias.shape[1]
    return first.as_strided((len(first), columns), (columns, 1), 0)
