"""Multilayer perceptrons on a CPU, lane after lane: compiled loops that keep a lane in the core's cache.

What lies between two products is a pass or two over numbers that are there already, and nothing is called
from Python for a lane. The products are scipy's BLAS. Activations are (H, B), so that rows are contiguous.
"""
# mypy: allow-untyped-defs

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from lrwd_sweep.nets.batch_norm import EPS, MOMENTUM  # compiled in, and kept until this file changes
from lrwd_sweep.optim.jit import compiled

COLUMNS = 48  # inputs predicted at a time: products of such a width with 128 × 128 are OpenBLAS's fastest
SMALL = 1_000_000  # multiplications in a product, up to which OpenBLAS on AVX-512 copies no matrix first


class Scratch(NamedTuple):
    """Room for one lane's step on a batch of B."""

    n: np.ndarray  # (units · B,), of all layers: as the forward pass left it, for the backward pass
    h: np.ndarray  # likewise, rectified
    d: np.ndarray  # (widest · B,), the gradient by what a layer computes
    e: np.ndarray  # (widest · B,), that of the layer below
    rstd: np.ndarray  # (units,), 1/√(var + ε)
    means: np.ndarray  # (widest,)
    slopes: np.ndarray  # (widest,)
    share: np.ndarray  # (B,), 1/B


@compiled
def row_means(a, share, means):
    """means (rows,) of a (rows, B); share is (B,), 1/B."""
    means[:] = 0  # BLAS adds to 0 times what is there, which may be NaN
    np.dot(a, share, means)


@compiled
def normalise(z, rstd, running_mean, running_var, share, means, products):
    """z (H, B) ← (z − mean)/√(var + ε) in place; 1/√(var + ε) is kept, the running statistics move along.

    share is (B,), 1/B; means (H,) and products (H, B) are scratch.
    """
    kind = z.dtype.type
    rows, batch = z.shape
    row_means(z, share, means)
    for j in range(rows):
        row, square, mean = z[j], products[j], means[j]
        for b in range(batch):
            row[b] -= mean
            square[b] = row[b] * row[b]
        running_mean[j] += kind(MOMENTUM) * (mean - running_mean[j])
    row_means(products, share, means)
    unbiased = kind(batch) / kind(batch - 1)
    for j in range(rows):
        running_var[j] += kind(MOMENTUM) * (means[j] * unbiased - running_var[j])
        rstd[j] = kind(1) / math.sqrt(means[j] + kind(EPS))
    for j in range(rows):
        row, scale = z[j], rstd[j]
        for b in range(batch):
            row[b] *= scale


@compiled
def denormalise(n, rstd, dn, share, means, slopes, products):
    """dn (H, B) ← dz = (dn − mean(dn) − n mean(dn·n)) rstd, in place; n as `normalise` left it.

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
    """z (H, B) ← (z − running mean) · running 1/√(var + ε), in place."""
    for j in range(len(z)):
        row, mean, rstd = z[j], running_mean[j], running_rstd[j]
        for b in range(len(row)):
            row[b] = (row[b] - mean) * rstd


@compiled
def apply_running_and_rectify(z, running_mean, running_rstd):
    """What `apply_running` does, and z ← max(z, 0); NaN stays NaN."""
    zero = z.dtype.type(0)
    for j in range(len(z)):
        row, mean, rstd = z[j], running_mean[j], running_rstd[j]
        for b in range(len(row)):
            n = (row[b] - mean) * rstd
            row[b] = zero if n < zero else n


@compiled
def rectify(n, h):
    """h ← max(n, 0); NaN stays NaN."""
    zero = n.dtype.type(0)
    for j in range(len(n)):
        source, target = n[j], h[j]
        for b in range(len(source)):
            target[b] = zero if source[b] < zero else source[b]


@compiled
def rectify_backward(n, dh):
    """dn = dh where n > 0, else 0; in the place of dh."""
    zero = n.dtype.type(0)
    for j in range(len(n)):
        row, d = n[j], dh[j]
        for b in range(len(row)):
            d[b] = d[b] if row[b] > zero else zero


@compiled
def output(z, scale, bias, logits):
    """logits (C, B) = scale z + bias."""
    for c in range(len(z)):
        source, target, shift = z[c], logits[c], bias[c]
        for b in range(len(source)):
            target[b] = scale * source[b] + shift


@compiled
def cross_entropy(logits, y, d):
    """The mean over the batch of logits (C, B) and classes (B,); d ← softmax − one-hot, its gradient · B."""
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
    """db (C,) = the means of d (C, B); d ← scale/B d. share is (B,), 1/B."""
    row_means(d, share, db)
    for c in range(len(d)):
        row = d[c]
        for b in range(len(row)):
            row[b] *= scale * share[0]


@compiled
def matrix(flat, start, rows, columns):
    """The matrix (rows, columns) that begins at `start`."""
    return flat[start : start + rows * columns].reshape(rows, columns)


@compiled
def multiply_transposed(a, b, c, room):
    """c (K, N) = aᵀ b of a (M, K) and b (M, N), in halves of M if those are small; room (K, N) is scratch."""
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
    """b (K, M) = aᵀ of a (M, K)."""
    for k in range(len(b)):
        for m in range(len(a)):
            b[k, m] = a[m, k]


@compiled
def gradient(
    theta,  # (L, P), the matrices (out, in) one after another, then the bias
    grad,  # (L, P), written
    widths,  # of the input and of every layer
    normed,  # how many layers are normalised
    scale,  # of what comes out of the last one
    x,  # (B, in)
    xt,  # (in, B)
    y,  # (B,)
    scratch,
    running_mean,  # (L, units)
    running_var,  # (L, units)
    losses,  # (L,), written
    logits,  # (L, C, B), written
):
    """Every lane's loss on a batch, and its gradient."""
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
                normalise(z, rstd[here], mean, var, share, means[:units], room)
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
                room = matrix(h, row * batch, units, batch)  # what was there is used up
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
    """The logits (L, C, B) of inputs x (B, in) by running statistics.

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
