"""Multilayer perceptrons: with a lane axis and the gradient written out, and as ordinary modules.

Activations are (L, H, B), features by batch as in W h: with the batch last, statistics are over contiguous
rows, whatever the number of lanes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, normalize

from lrwd_sweep.nets.modules import ModuleNetwork
from lrwd_sweep.nets.network import EPS, MOMENTUM, Lanes, Network, Noise, Way, compute_type, weight_of
from lrwd_sweep.optim import jit
from lrwd_sweep.spec.catalog import FLOAT32, DataSet

LOGIT_SCALE = 2.0  # normalised logits have unit variance; this lets the softmax become confident


def multiply(a: Tensor, b: Tensor, out: Tensor) -> Tensor:
    """Write a b of every lane into `out`, whose dtype may be finer."""
    return torch.bmm(a, b, out=out) if out.dtype is a.dtype else out.copy_(torch.bmm(a, b))


def relu(n: Tensor, out: Tensor) -> Tensor:
    """Write max(n, 0) into `out`, whose dtype may be coarser."""
    return torch.clamp_min(n, 0, out=out) if out.dtype is n.dtype else out.copy_(n).clamp_min_(0)


def cross_entropy(logits: Tensor, y: Tensor, one_hot: Tensor) -> tuple[Tensor, Tensor]:
    """Return every lane's mean over the batch, (L,), and its gradient by the logits: (softmax − one-hot)/B.

    Logits are (L, C, B), classes y (B,); `one_hot` is the identity (C, C) in the logits' dtype.
    """
    log_p = torch.log_softmax(logits, dim=1)
    losses = -log_p.gather(1, y.expand(len(log_p), 1, -1)).mean(dim=(1, 2))
    return losses, log_p.exp_().sub_(one_hot.index_select(1, y)).div_(len(y))


class BatchNorm:
    """n = (z − mean)/√(var + ε) over the batch, without affine parameters; running statistics as torch's."""

    def __init__(self, lanes: int, width: int, batch: int, like: Tensor) -> None:
        self.n = like.new_empty(lanes, width, batch)
        self.mean = like.new_empty(lanes, width, 1)
        self.rstd = like.new_empty(lanes, width, 1)  # 1/√(var + ε)
        self.running_mean = like.new_zeros(lanes, width, 1)
        self.running_var = like.new_ones(lanes, width, 1)  # unbiased
        self.eps = like.new_tensor(EPS)
        self.momentum = MOMENTUM

    def forward(self, z: Tensor) -> Tensor:
        """Return n (L, H, B), in a buffer that the next call overwrites; update the running statistics."""
        batch = z.shape[2]
        torch.mean(z, dim=2, keepdim=True, out=self.mean)
        torch.sub(z, self.mean, out=self.n)
        norm = torch.linalg.vector_norm(self.n, dim=2, keepdim=True)
        torch.addcmul(self.eps, norm, norm, value=1 / batch, out=self.rstd).rsqrt_()
        self.running_mean.lerp_(self.mean, self.momentum)
        self.running_var.lerp_(norm.square_().div_(batch - 1), self.momentum)
        return self.n.mul_(self.rstd)

    def backward(self, z: Tensor, dn: Tensor) -> Tensor:
        """Return dz = (dn − mean(dn) − n mean(dn·n)) rstd for the last z given to `forward`."""
        wanted = [True, False, False]  # dz, and no gradients of affine parameters
        rows = [z.shape[2]]
        dz, _, _ = torch.ops.aten.native_layer_norm_backward(
            dn, z, rows, self.mean, self.rstd, None, None, wanted
        )
        assert isinstance(dz, Tensor)
        return dz

    def fold(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return W′ (L, H, in) and b′ (L, H, 1) with W′h + b′ = n of z = W h by the running statistics."""
        scale = torch.rsqrt(self.running_var + EPS)
        return weight * scale, -self.running_mean * scale


class Normalised:
    """Lanes whose state besides parameters is the running statistics of normalisation layers."""

    def __init__(self, norms: Sequence[BatchNorm]) -> None:
        self._norms = norms

    def average_statistics(self, batch: int | None) -> bool:
        """Make running statistics a mean over batches, as `Lanes` has it."""
        for norm in self._norms:
            norm.momentum = weight_of(batch)
        return bool(self._norms)

    def state(self) -> dict[str, Tensor]:
        """Return the running statistics of every layer, (L, H, 1) each; not copies."""
        means = {f"mean{k}": norm.running_mean for k, norm in enumerate(self._norms)}
        return means | {f"var{k}": norm.running_var for k, norm in enumerate(self._norms)}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Set what `state` returned."""
        for name, value in self.state().items():
            value.copy_(state[name])


class Mlp(Network):
    """Linear layers with batch normalisation (no affine parameters) and ReLU between them.

    With `norm_logits` the logits are normalised too, times LOGIT_SCALE: every matrix is then scale-invariant,
    and decay acts only through the effective learning rate.
    """

    def __init__(self, widths: tuple[int, ...], norm_logits: bool, way: Way) -> None:
        self.widths, self.norm_logits, self.way, self.stacked = widths, norm_logits, way, True
        self.output = widths[-1:]
        matrices = {f"weight{k}": pair for k, pair in enumerate(zip(widths[1:], widths, strict=False), 1)}
        self.shapes = {**matrices, "bias": self.output}

    @property
    def scale_invariant(self) -> tuple[str, ...]:
        """The matrices followed by a normalisation."""
        *matrices, _ = self.shapes
        return tuple(matrices if self.norm_logits else matrices[:-1])

    def init(self, generator: torch.Generator) -> dict[str, Tensor]:
        """Draw parameters of one network in float64: torch.nn.Linear's uniform(±1/√fan-in), bias 0."""
        return {
            name: torch.empty(shape, dtype=torch.float64).uniform_(
                -(shape[1] ** -0.5), shape[1] ** -0.5, generator=generator
            )
            if len(shape) == 2
            else torch.zeros(shape, dtype=torch.float64)
            for name, shape in self.shapes.items()
        }

    def lanes(self, theta: Mapping[str, Tensor], grad: Mapping[str, Tensor], batch: int) -> Lanes:
        """Return as many networks as `theta` holds; on a CPU they train in numba's loops if numba works."""
        if theta["bias"].is_cpu and self.way.precision == FLOAT32 and jit.usable():
            from lrwd_sweep.nets.mlp_numba import NumbaMlpLanes  # noqa: PLC0415  # slow to load

            layers = len(self.widths) - 1
            normed, scale = (layers, LOGIT_SCALE) if self.norm_logits else (layers - 1, 1.0)
            return NumbaMlpLanes(theta, grad, batch, widths=self.widths, normed=normed, scale=scale)
        return MlpLanes(self, theta, grad, batch)


class MlpLanes(Normalised):
    """L perceptrons in training: parameters and gradients (views of an arena) and buffers."""

    def __init__(self, net: Mlp, theta: Mapping[str, Tensor], grad: Mapping[str, Tensor], batch: int) -> None:
        weights = [name for name in net.shapes if name.startswith("weight")]
        self.net = net
        self.weights, self.bias = [theta[name] for name in weights], theta["bias"]
        self.weight_grads, self.bias_grad = [grad[name] for name in weights], grad["bias"]
        like, lanes = self.bias, self.bias.shape[0]
        self.dtype = compute_type(net.way.precision, like)
        self.z = [like.new_empty(lanes, width, batch) for width in net.widths[1:]]
        self.h = [torch.empty_like(z, dtype=self.dtype) for z in self.z[:-1]]
        normed = net.widths[1:] if net.norm_logits else net.widths[1:-1]
        self.norms = [BatchNorm(lanes, width, batch, like) for width in normed]
        super().__init__(self.norms)
        self.one_hot = torch.eye(net.widths[-1], dtype=like.dtype, device=like.device)

    def gradient(self, x: Tensor, y: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
        """Return every lane's mean cross-entropy on the batch and its logits; write the gradients."""
        x = x.flatten(1).to(self.dtype)
        weights = [weight.to(self.dtype) for weight in self.weights]  # rounded once per step, if at all
        logits = self._logits(weights, x)
        losses, dz = cross_entropy(logits, y, self.one_hot)
        torch.sum(dz, dim=2, out=self.bias_grad)
        if self.net.norm_logits:
            dz = self.norms[-1].backward(self.z[-1], dz.mul_(LOGIT_SCALE))
        for k in range(len(self.h), 0, -1):
            h, dz = self.h[k - 1], dz.to(self.dtype)
            self.weight_grads[k].copy_(torch.bmm(dz, h.transpose(1, 2)))
            dh = torch.bmm(weights[k].transpose(1, 2), dz)
            torch.ops.aten.threshold_backward.grad_input(dh, h, 0, grad_input=dh)
            dz = self.norms[k - 1].backward(self.z[k - 1], dh.to(self.bias.dtype))
        self.weight_grads[0].copy_(torch.bmm(dz.to(self.dtype), x.expand(len(dz), -1, -1)))
        return losses, logits

    def _logits(self, weights: Sequence[Tensor], x: Tensor) -> Tensor:  # (L, classes, B)
        """Compute logits by batch statistics; leave z and h of every layer in their buffers."""
        h = x.t().expand(self.bias.shape[0], -1, -1)
        for k, (weight, z) in enumerate(zip(weights, self.z, strict=True)):
            multiply(weight, h, out=z)
            if k < len(self.h):
                h = relu(self.norms[k].forward(z), out=self.h[k])
        bias = self.bias.unsqueeze(2)
        if self.net.norm_logits:
            return torch.add(bias, self.norms[-1].forward(self.z[-1]), alpha=LOGIT_SCALE)
        return self.z[-1] + bias

    def predictor(self) -> FoldedMlp:
        """Return the networks by running statistics, each normalisation folded into its layer."""
        *hidden, last = self.weights
        layers = [norm.fold(weight) for weight, norm in zip(hidden, self.norms, strict=False)]
        bias = self.bias.unsqueeze(2)
        if self.net.norm_logits:
            weight, shift = self.norms[-1].fold(last)
            layers.append((weight * LOGIT_SCALE, shift * LOGIT_SCALE + bias))
        else:
            layers.append((last, bias))
        return FoldedMlp.of(layers, self.dtype)


@dataclass(frozen=True, slots=True)
class FoldedMlp:
    """Perceptrons for evaluation: h ← max(W h, floor) in every hidden layer, then W h + bias.

    relu(W h + b) = max(W h, −b) + b, and that last b is moved into the next layer: one pass per activation.
    """

    weights: list[Tensor]  # (L, out, in), in the dtype of products
    floors: list[Tensor]  # (L, out, 1), one per hidden layer, likewise
    bias: Tensor  # (L, classes, 1)

    @classmethod
    def of(cls, layers: list[tuple[Tensor, Tensor]], dtype: torch.dtype) -> FoldedMlp:
        """Fold layers (W, b) with ReLU between them.

        The moved b is the rounded one, so that a unit that is off adds nothing.
        """
        weights, floors, moved = [layers[0][0].to(dtype)], [], layers[0][1]
        for weight, bias in layers[1:]:
            floors.append((-moved).to(dtype))
            weights.append(weight.to(dtype))
            off = weights[-1].to(bias.dtype) * floors[-1].to(bias.dtype).transpose(1, 2)
            moved = bias - off.sum(dim=2, keepdim=True)
        return cls(weights, floors, moved)

    def predict(self, x: Tensor) -> Tensor:  # (L, classes, B)
        """Return the logits on x (B, *shape)."""
        h = x.flatten(1).t().to(self.weights[0].dtype).expand(self.bias.shape[0], -1, -1)
        for weight, floor in zip(self.weights, self.floors, strict=False):
            h = torch.bmm(weight, h).clamp_min_(floor)
        return torch.bmm(self.weights[-1], h).to(self.bias.dtype).add_(self.bias)


class MlpModule(nn.Module):
    """`Mlp` as a module of one network, with the same parameter names, shapes and order, all zero."""

    bias: nn.Parameter

    def __init__(self, net: Mlp) -> None:
        super().__init__()
        for name, shape in net.shapes.items():
            self.register_parameter(name, nn.Parameter(torch.zeros(shape)))
        self.weights = [name for name in net.shapes if name.startswith("weight")]
        normed = net.widths[1:] if net.norm_logits else net.widths[1:-1]
        self.norms = nn.ModuleList(nn.BatchNorm1d(width, affine=False) for width in normed)
        self.scale = LOGIT_SCALE if net.norm_logits else 1.0

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, classes) of x (B, *shape)."""
        *hidden, last = [getattr(self, name) for name in self.weights]
        h = x.flatten(1)
        for weight, norm in zip(hidden, self.norms, strict=False):
            h = torch.relu(norm(linear(h, weight)))
        z = linear(h, last)
        if len(self.norms) > len(hidden):
            z = self.norms[-1](z) * self.scale
        logits: Tensor = z + self.bias
        return logits


class MlpNetwork(ModuleNetwork):
    """`Mlp` by its module, for vmap, loop and any loss; initialised as the native one."""

    def __init__(self, net: Mlp, item: DataSet) -> None:
        super().__init__(partial(MlpModule, net), item, net.way)
        self.net = net

    def init(self, generator: torch.Generator) -> dict[str, Tensor]:
        """Return the native network's initial parameters, float64."""
        return {name: value for name, value in self.net.init(generator).items() if name in self.shapes}

    def _seeded(self, generator: torch.Generator) -> nn.Module:
        module = self.make()
        for name, value in self.net.init(generator).items():
            module.get_parameter(name).data = value
        return module


class EmbedNorm(nn.Module):
    """A perceptron with the embedding e = Wh/‖Wh‖ and the logits s·cos(e, pₖ), a proxy pₖ for each class.

    Its hidden layers are those of `Mlp`: batch normalisation without affine parameters, then ReLU. So every
    matrix is scale-invariant, the last two by their ℓ2 normalisation, as in the retrieval of Heo et al. 2021.
    Cross-entropy of such logits is the normalised softmax (Zhai and Wu 2019). In evaluation the embedding
    stands behind the logits.
    """

    def __init__(self, inputs: int, classes: int, *, width: int, embedding: int, scale: int) -> None:
        super().__init__()
        linear = partial(nn.Linear, bias=False)  # a bias would not be scale-invariant
        self.hidden1, self.hidden2 = linear(inputs, width), linear(width, width)
        self.norm1, self.norm2 = (nn.BatchNorm1d(width, affine=False) for _ in range(2))
        self.last, self.proxies = linear(width, embedding), linear(embedding, classes)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:  # (B, *shape)
        """Return logits (B, classes) in training, and (B, classes + embedding) in evaluation."""
        h = torch.relu(self.norm1(self.hidden1(x.flatten(1))))
        h = torch.relu(self.norm2(self.hidden2(h)))
        e = normalize(self.last(h), dim=1)
        logits: Tensor = self.scale * (e @ normalize(self.proxies.weight, dim=1).t())
        return logits if self.training else torch.cat([logits, e.to(logits.dtype)], dim=1)
