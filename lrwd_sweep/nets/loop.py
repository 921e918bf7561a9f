"""Any nn.Module as lanes, one after another, each on its part of the arena's memory.

If one lane fills the device (convolutions on a CPU, wide networks on a GPU), stacking gains nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from math import inf, nan
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lrwd_sweep.errors import UsageError
from lrwd_sweep.nets.kronecker import Watch
from lrwd_sweep.nets.network import Inputs, Noise, Way, call, compute_type, computing, copy_of, parts
from lrwd_sweep.nets.randomness import Noisy

Found = TypeVar("Found")
_OWN_MOMENTUM = "momentum in training"
_TORCHS_OWN = {*vars(nn.Module()), _OWN_MOMENTUM}  # attributes of every module


class LoopLanes:
    """L modules in training; parameters and gradients are views of an arena, everything else their own."""

    def __init__(
        self,
        module: nn.Module,  # the architecture, with the initial values of everything not in `theta`
        theta: Mapping[str, Tensor],
        grad: Mapping[str, Tensor],
        way: Way,
        layout: torch.memory_format = torch.contiguous_format,  # of images
    ) -> None:
        like = next(iter(theta.values()))
        self.modules = [_lane(module, theta, grad, lane) for lane in range(len(like))]
        self.grads = list(grad.values())
        self.noisy = [[part for part in one.modules() if isinstance(part, Noisy)] for one in self.modules]
        self.way, self.layout, self.dtype = way, layout, compute_type(way.precision, like)
        self.device, self.real = like.device, like.dtype
        self.watch: Watch | None = None  # for K-FAC

    def gradient(self, x: Inputs, y: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
        """Return every lane's mean loss on the batch and its outputs; write the gradients."""
        losses, found = [], []
        with torch.inference_mode(mode=False), torch.enable_grad():
            x, y = copy_of(x, self.layout), y.clone()  # autograd does not record tensors of inference mode
            for grad in self.grads:
                grad.zero_()
            for k, (noisy, stream) in enumerate(zip(self.noisy, noise, strict=True)):
                for part in noisy:
                    part.noise = stream
                if self.watch is not None:
                    self.watch.noise = stream
                loss, logits = self._train(k, x, y)
                losses.append(loss)
                found.append(logits.t() if self.way.classifies else logits)
        return torch.stack(losses), torch.stack(found)

    def _train(self, k: int, x: Inputs, y: Tensor) -> tuple[Tensor, Tensor]:  # (), (B, …)
        """Return loss and outputs of lane k; add its gradients to those in the arena."""
        logits = self.outputs(k, x) if self.watch is None else self.watch.forward(k, self.outputs, x)
        loss = self._loss(logits, y)
        torch.autograd.backward(loss)
        return loss.detach(), logits.detach()

    def outputs(self, k: int, x: Inputs) -> Tensor:  # (B, …)
        """Return the outputs of lane k as its module is, in training or evaluation mode."""
        with computing(self.dtype, self.device):
            output = call(self.modules[k], x)
            assert isinstance(output, Tensor)
            return output.to(self.real)

    def _loss(self, logits: Tensor, y: Tensor) -> Tensor:  # (B, …), (B, …) → ()
        return self.way.loss(logits, y)

    def _evaluate(self, k: int, x: Inputs) -> Tensor:  # (B, …)
        """Return the outputs of lane k in evaluation mode."""
        self.modules[k].eval()
        logits = self.outputs(k, x)
        self.modules[k].train()
        return logits.detach()

    def predict(self, x: Inputs) -> Tensor:  # (L, classes, B) or (L, B, …)
        """Return the outputs on x (B, *shape) in evaluation mode."""
        with torch.inference_mode(mode=False), torch.no_grad():  # a module may keep a tensor for its training
            found = [self._evaluate(k, copy_of(x, self.layout)) for k in range(len(self.modules))]
            return torch.stack([one.t() if self.way.classifies else one for one in found])

    def predictor(self) -> LoopLanes:
        """Return the lanes themselves: predictions follow their training."""
        return self

    def average_statistics(self, batch: int | None) -> bool:
        """Make running statistics a mean over batches, as `Lanes` has it."""
        found = [average_statistics(module, batch) for module in self.modules]
        return any(found)

    def state(self) -> dict[str, Tensor]:
        """Return the buffers of every lane, (L, …) by name."""
        return _stacked([dict(module.named_buffers()) for module in self.modules])

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Set what `state` returned."""
        with torch.inference_mode(mode=False), torch.no_grad():
            for k, module in enumerate(self.modules):
                for name, buffer in module.named_buffers():
                    buffer.copy_(state[name][k])


def _lane(module: nn.Module, theta: Mapping[str, Tensor], grad: Mapping[str, Tensor], lane: int) -> nn.Module:
    """Copy `module` onto one lane's memory."""
    copies = untrained(module, theta)
    for name, hollow in module.named_parameters():
        if name in theta:
            parameter = nn.Parameter(theta[name][lane])
            parameter.grad = grad[name][lane]
            copies[id(hollow)] = parameter
    return deepcopy(module, copies).train()


def untrained(module: nn.Module, theta: Mapping[str, Tensor]) -> dict[int, object]:
    """Copy the tensors that are not in `theta`, on its device and in its dtype; keys are their ids."""
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
    """Make the error for parameters that gain a gradient (`new`) or lose it (`missing`) during training."""
    what = (
        f"{new[0]} of {type(module).__name__} has a gradient, and had none when the network was tried out"
        if new
        else f"{missing[0]} of {type(module).__name__} has no gradient at a step, at which torch.optim would "
        "not update it"
    )
    return UsageError(
        f"the parameter {what}; use it in every step, such as by 0 * parameter.sum() in the logits"
    )


def _stacked(lanes: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Join what the lanes have under each name, (L, …)."""
    return {name: torch.stack([lane[name].detach() for lane in lanes]) for name in lanes[0]}


def average_statistics(module: nn.Module, batch: int | None) -> bool:
    """Give layers of batch norm the momentum of a batch in a mean over batches, or their own if it is None.

    As torch.optim.swa_utils.update_bn. Returns False if none keeps running statistics.
    """
    layers = [part for part in module.modules() if isinstance(part, _BatchNorm) and part.track_running_stats]
    for layer in layers:
        layer.__dict__.setdefault(_OWN_MOMENTUM, layer.momentum)
        layer.momentum = layer.__dict__.pop(_OWN_MOMENTUM) if batch is None else 1 / (batch + 1)
    return bool(layers)


def plain_numbers(module: nn.Module) -> dict[str, Tensor]:
    """Return the numbers that a module and its parts keep as attributes, such as a count, (1,) each."""
    found = {}
    for path, part in module.named_modules():
        for key, value in vars(part).items():
            if key not in _TORCHS_OWN and isinstance(value, int | float) and abs(value) < 2**53:
                found[f"{path}.{key} (number)"] = torch.tensor([value], dtype=torch.float64)
    return found


def set_plain_numbers(module: nn.Module, values: Mapping[str, Tensor]) -> None:
    """Set what `plain_numbers` returned, each ()."""
    for path, part in module.named_modules():
        for key, value in list(vars(part).items()):
            if (new := values.get(f"{path}.{key} (number)")) is not None:
                setattr(part, key, type(value)(new.item()))


class UserLoopLanes(LoopLanes):
    """Lanes of user code, which may change its tensors in any way, yet train as under torch.optim or stop.

    Raises UsageError if a trained parameter has no gradient, another parameter has one, or one has left the
    arena. A lane whose code raises while numbers are not finite has diverged.
    """

    def __init__(
        self,
        module: nn.Module,
        theta: Mapping[str, Tensor],
        grad: Mapping[str, Tensor],
        way: Way,
        layout: torch.memory_format,
        output: tuple[int, ...],  # shape of an item's
    ) -> None:
        super().__init__(module, theta, grad, way, layout)
        self.theta, self.grad, self.output = theta, grad, output
        self.left_out = [
            {name: one for name, one in lane.named_parameters() if name not in theta} for lane in self.modules
        ]
        self.in_place: set[tuple[int, bool]] = set()  # lanes checked in a first step and a first evaluation
        self.diverged: set[int] = set()

    def _train(self, k: int, x: Inputs, y: Tensor) -> tuple[Tensor, Tensor]:  # (), (B, …)
        arena = self.grads[0]  # or any other view: a write into one raises the version of all
        before = arena._version
        found = self._unless_diverged(k, lambda: super(UserLoopLanes, self)._train(k, copy_of(x), y))
        if found is None:
            for grad in self.grads:
                grad[k].zero_()
            return self._nan(), self._nan(len(parts(x)[0]), *self.output)
        self._check_place(k, training=True)
        missing = arena._version - before < len(self.grads)
        if missing or any(one.grad is not None for one in self.left_out[k].values()):
            self._refuse(k, loss=found[0])
        return found

    def _nan(self, *shape: int) -> Tensor:
        return torch.full(shape, nan, dtype=self.real, device=self.device)

    def _loss(self, logits: Tensor, y: Tensor) -> Tensor:  # (B, …), (B, …) → ()
        """Compute the loss of copies, as outputs are measured too. Raises UsageError if nothing trains."""
        loss = super()._loss(logits.clone(), y.clone())
        if not loss.requires_grad:
            raise UsageError("the loss of a batch does not depend on any parameter that trains")
        return loss

    def _evaluate(self, k: int, x: Inputs) -> Tensor:  # (B, …)
        """Return the outputs of lane k in evaluation mode, NaN if it has diverged."""
        found = self._unless_diverged(k, lambda: super(UserLoopLanes, self)._evaluate(k, x))
        if found is None:
            return self._nan(len(parts(x)[0]), *self.output)
        self._check_place(k, training=False)
        return found

    def state(self) -> dict[str, Tensor]:
        """Return buffers, parameters that do not train, and numbers that modules keep, each (L, …)."""
        found = [
            dict(module.named_buffers()) | left_out | {n: v[0] for n, v in plain_numbers(module).items()}
            for module, left_out in zip(self.modules, self.left_out, strict=True)
        ]
        return _stacked(found)

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Set what `state` returned."""
        super().restore(state)
        with torch.inference_mode(mode=False), torch.no_grad():
            for k, (module, left_out) in enumerate(zip(self.modules, self.left_out, strict=True)):
                for name, parameter in left_out.items():
                    parameter.copy_(state[name][k])
                set_plain_numbers(module, {name: value[k] for name, value in state.items()})

    def _unless_diverged(self, k: int, work: Callable[[], Found]) -> Found | None:
        """Run a lane's work; return None if it raises on numbers that are not finite, and from then on."""
        if k in self.diverged:
            return None
        try:
            return work()
        except Exception:
            if not _overflows(self.modules[k], work):
                raise
            self.diverged.add(k)
            return None

    def _check_place(self, k: int, *, training: bool) -> None:
        """Raise UsageError if a parameter is no longer in the arena, where the optimizer updates it."""
        if (k, training) in self.in_place:
            return
        self.in_place.add((k, training))
        lane = self.modules[k]
        found = dict(lane.named_parameters())
        for name, theta in self.theta.items():
            if (one := found.get(name)) is None or one.data_ptr() != theta[k].data_ptr():
                raise UsageError(
                    f"the parameter {name} of {type(lane).__name__} is not where an optimizer looks for it, "
                    "because forward replaces it; change its values instead, by .data.copy_()"
                )

    def _refuse(self, k: int, loss: Tensor) -> None:
        """Raise UsageError that names the parameter, unless the lane has diverged."""
        if loss.isfinite():
            without = [name for name, grad in self.grad.items() if not grad[k].any()]
            surprising = [name for name, one in self.left_out[k].items() if one.grad is not None]
            raise sometimes_trained(self.modules[k], surprising, without)


def _overflows(lane: nn.Module, work: Callable[[], object]) -> bool:
    """Test whether a lane's tensors, or those computed by its work, hold numbers that are not finite."""
    watch = _Overflow()
    with suppress(Exception), watch:
        for value in (*lane.parameters(), *lane.buffers()):
            watch.see(value)
        work()
    return watch.seen


class _Overflow(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A watch on every operator for NaN or +∞; −∞ is ignored, as masks use it."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen = False

    def see(self, value: object) -> None:
        """Look at a tensor's numbers."""
        if isinstance(value, Tensor) and value.is_floating_point() and not self.seen:
            self.seen = bool((value.isnan() | (value == inf)).any())

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if "empty" not in func._schema.name:  # uninitialised memory
            for value in tree_leaves(out):
                self.see(value)
        return out
