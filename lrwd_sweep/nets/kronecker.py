"""Kronecker factors of a network's Fisher matrix, from its forward pass and sampled targets, for K-FAC.

A watch sees the calls of linear layers and convolutions by their weights, however a module makes them.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from lrwd_sweep.errors import UsageError, arg
from lrwd_sweep.optim import FactoredLayer, Factors

Layers = tuple[FactoredLayer, ...]


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a layer in a forward pass: Σ ā āᵀ of its inputs, and its output's place in the graph."""

    layer: FactoredLayer
    inputs: Tensor  # (n, n), with the 1 of the bias; summed over items and positions
    output: GradientEdge  # before any in-place operation on it
    is_image: bool  # channels are the second dimension, else the last


class Watch(TorchFunctionMode):
    """The factors of the batch, which every training pass of a lane adds to."""

    def __init__(self, lanes: Iterable[nn.Module], trained: Collection[str], factors: Factors) -> None:
        super().__init__()
        self.factors, self.pairs = factors, factors.pairs()
        self.index = {layer: k for k, layer in enumerate(factors.layers)}
        self.names = [
            {id(value): name for name, value in lane.named_parameters() if name in trained} for lane in lanes
        ]
        self.noise: torch.Generator | None = None  # that targets are sampled by; lanes set it
        self.lane = 0
        self.calls: list[Call] = []

    def forward(self, lane: int, output: Callable[[int, Any], Tensor], x: Any) -> Tensor:
        """Return a lane's outputs on x, and add the factors of the batch."""
        self.lane = lane
        self.calls.clear()
        with self:
            logits = output(lane, x)
        self._add(logits)
        return logits

    def _add(self, logits: Tensor) -> None:  # (B, C)
        """Sample a class per item by the softmax; add A = E[ā āᵀ] and G = E[g gᵀ] of every call."""
        calls, self.calls = self.calls, []
        count = len(logits)
        _refuse_other_calls(tuple(call.layer for call in calls), self.factors.layers)
        log_p = torch.log_softmax(logits, dim=1)
        draws = torch.rand(count, 1, generator=self.noise, dtype=torch.float64, device=logits.device)
        up_to = log_p.detach().double().exp().cumsum(1)
        y = (up_to < draws * up_to[:, -1:]).sum(1).clamp_max(logits.shape[1] - 1)
        loss = functional.nll_loss(log_p, y, reduction="sum")
        slopes = torch.autograd.grad(loss, [call.output for call in calls], retain_graph=True)
        for call, slope in zip(calls, slopes, strict=True):
            a, g = (factor[self.lane] for factor in self.pairs[self.index[call.layer]])
            rows = (slope.movedim(1, -1) if call.is_image else slope).reshape(-1, call.layer.outputs).to(g)
            a.add_(call.inputs, alpha=1 / count)
            g.addmm_(rows.T, rows, alpha=1 / len(rows))

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if func in _FUNCTIONS and isinstance(out, Tensor) and out.requires_grad:
            given = dict(zip(_FUNCTIONS[func], args, strict=False)) | dict(kwargs or {})
            self._see(given, out, is_image=func is torch.conv2d)
        return out

    def _see(self, given: Mapping[str, Any], out: Tensor, *, is_image: bool) -> None:
        """Keep the call of a layer that trains."""
        names = self.names[self.lane]
        if "weight" not in given:  # a sum, which may be with a bias that stands alone
            one: Any = given["input"]
            other: Any = given.get("other")
            for bias, x in ((other, one), (one, other)):
                if id(bias) in names and len(given) == 2 and _is_bias_of(bias, x):
                    self._keep("", names[id(bias)], x.detach()[:, :0], out, is_image=False)
                    return
            return
        weight, x = given["weight"], given["input"].detach()
        if id(weight) not in names or given.get("groups", 1) != 1 or (is_image and x.dim() != 4):
            return
        rows = _windows(x, given) if is_image else x.reshape(-1, x.shape[-1])
        self._keep(names[id(weight)], names.get(id(given.get("bias")), ""), rows, out, is_image=is_image)

    def _keep(self, weight: str, bias: str, rows: Tensor, out: Tensor, *, is_image: bool) -> None:
        layer = FactoredLayer(weight, bias, rows.shape[1], out.shape[1 if is_image else -1])
        if bias:
            rows = torch.cat([rows, rows.new_ones(len(rows), 1)], dim=1)
        rows = rows.to(self.factors.flat.dtype)
        self.calls.append(Call(layer, rows.T @ rows, get_gradient_edge(out), is_image))


_FUNCTIONS: dict[Any, tuple[str, ...]] = {  # that a watch sees, and their arguments
    functional.linear: ("input", "weight", "bias"),
    torch.conv2d: ("input", "weight", "bias", "stride", "padding", "dilation", "groups"),
    torch.Tensor.add: ("input", "other"),
    torch.add: ("input", "other"),
}


def _is_bias_of(bias: Tensor, x: object) -> bool:
    return isinstance(x, Tensor) and x.dim() == 2 and bias.shape == x.shape[1:]


def _windows(x: Tensor, given: Mapping[str, Any]) -> Tensor:  # (B, C, H, W) → (rows, C·kernel)
    """Return the windows that a convolution sees, in the order of its weight in memory."""
    weight, padding, dilation = given["weight"], given.get("padding", 0), given.get("dilation", 1)
    kernel = tuple(weight.shape[2:])
    if isinstance(padding, str):  # "same" or "valid"
        wide = [dilation] * 2 if isinstance(dilation, int) else list(dilation)
        sides = [d * (k - 1) * (padding == "same") for d, k in zip(wide, kernel, strict=True)]
        x = functional.pad(x, [n for total in reversed(sides) for n in (total // 2, total - total // 2)])
        padding = 0
    found = functional.unfold(x, kernel, dilation, padding, given.get("stride", 1))  # (B, C·kernel, T)
    if not weight.is_contiguous():  # channels last
        found = found.view(len(x), x.shape[1], -1, found.shape[2]).transpose(1, 2).flatten(1, 2)
    return found.transpose(1, 2).flatten(0, 1)


def layers_seen(module: nn.Module, trained: Sequence[str], forward: Callable[[], object]) -> Layers:
    """Return the layers of a module, which `forward` calls, in the order of their calls.

    Raises UsageError if a parameter that trains belongs to none of them, or to several.
    """
    parameters = dict(module.named_parameters())
    watch = Watch([module], trained, Factors.of((), parameters[trained[0]][None]))
    with watch:
        forward()
    found = tuple(call.layer for call in watch.calls)
    uses = Counter(name for layer in found for name in (layer.weight, layer.bias))
    for name in trained:
        if uses[name] != 1:
            path = name.rpartition(".")[0]
            kind = type(module.get_submodule(path)).__name__
            where = f"the parameter {name} of {f'the layer {path} ({kind})' if path else kind}"
            what = f"uses {where} {uses[name]} times" if uses[name] else f"trains {where}"
            raise UsageError(
                f"it {what}, and kfac has factors for linear layers, Conv2d without groups and biases of "
                f"vectors, each used once; choose another optimizer, or leave it out of {arg('train')}"
            )
    return found


def _refuse_other_calls(found: Layers, tried: Layers) -> None:
    """Raise UsageError if a pass calls other layers than the one that was tried out."""
    if found != tried:
        names = [layer.weight or layer.bias for layer in {*found} ^ {*tried} or {*found}]
        raise UsageError(
            f"the layer of {names[0]} is not called as often as when the network was tried out, which kfac "
            "needs; call every layer once in every step, or choose another optimizer"
        )
