"""The interface of networks: batches, precision, networks, and lanes that train side by side."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol, Self

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

from lrwd_sweep.spec.catalog import (
    BFLOAT16,
    CLASS,
    FLOAT,
    FLOAT32,
    IGNORED,
    MULTI_HOT,
    POSITION,
    REAL,
    DataSet,
    Input,
)

Inputs = Tensor | tuple[Tensor, ...]  # (B, *shape); several reach the network as arguments
Loss = Callable[[Tensor, Tensor], Tensor]  # outputs (B, …) and targets (B, …) → their mean loss, one number
Noise = Sequence[torch.Generator]  # with equal states: one per lane, or one for all

EPS, MOMENTUM = 1e-5, 0.1  # of batch normalisation and its running statistics, as in torch.nn


@dataclass(frozen=True, slots=True)
class Way:
    """The way in which the lanes of a network train."""

    loss: Loss
    precision: str = FLOAT32  # of matrix products and convolutions
    vmap: bool = False  # one program for all lanes of a module; else a loop over lanes
    train: str = ""  # pattern of the parameters that train; "": all
    classifies: bool = True  # one class per item; else outputs have the batch first
    user_code: bool = False  # an unknown module or loss: it may branch on values or have random buffers


class Predictor(Protocol):
    """L networks in evaluation mode: running statistics, no random layers."""

    def predict(self, x: Any) -> Tensor:
        """Return logits (L, C, B) of the inputs x (B, *shape); of targets other than classes (L, B, …).

        Those of a network in EMBEDDINGS are (L, C + D, B): the embedding stands behind the logits.
        """


class Lanes(Protocol):
    """L networks in training; parameters and gradients are views (L, *shape) of an arena."""

    def gradient(self, x: Any, y: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
        """Return every lane's mean loss (L,) and outputs as `predict` does, and write the gradients.

        The batch x (B, *shape), or a tuple of inputs, and y (B, …) are the same in every lane. Runs in
        inference mode, without autograd recording.
        """

    def predictor(self) -> Predictor:
        """Return the networks as they are now, for evaluation."""

    def average_statistics(self, batch: int | None) -> bool:
        """Make running statistics of batch norm the mean over batches 0, 1, …, of which `batch` comes next.

        None makes them follow training again. Returns False if there are none.
        """

    def state(self) -> dict[str, Tensor]:
        """Return what training changes besides parameters, by name, each (L, …)."""

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Set what `state` returned."""


def weight_of(batch: int | None) -> float:
    """Return the weight of a batch in running statistics: 1/(k + 1) for batch k of a mean, else MOMENTUM."""
    return MOMENTUM if batch is None else 1 / (batch + 1)


class Network(ABC):
    """One architecture for one kind of item: inputs and target."""

    way: Way
    stacked: bool  # all lanes train in one program; else one after another, with one lane's activations
    shapes: dict[str, tuple[int, ...]]  # of every trained parameter of one network, in the arena's order
    output: tuple[int, ...]  # shape for one item
    by_item = True  # in evaluation an item's output does not depend on the others of its batch
    norm_and_bias: frozenset[str] = frozenset()  # parameters that only `decay_all` decays, besides vectors

    @property
    @abstractmethod
    def scale_invariant(self) -> tuple[str, ...]:
        """The parameters whose scale does not change the output: f(cθ) = f(θ)."""

    @abstractmethod
    def init(self, generator: torch.Generator) -> dict[str, Tensor]:
        """Return initial parameters of one network, float64."""

    @abstractmethod
    def lanes(self, theta: Mapping[str, Tensor], grad: Mapping[str, Tensor], batch: int) -> Lanes:
        """Return as many networks as `theta` holds, for training on batches of `batch` items."""

    def of_seed(self, generator: torch.Generator, device: torch.device) -> Self:
        """Return the network for a device, untrained tensors initialised by the generator as in `init`."""
        return self


def call(module: nn.Module, x: Inputs) -> object:
    """Call a module with one input or several."""
    return module(*x) if isinstance(x, tuple) else module(x)


def parts(x: Inputs) -> tuple[Tensor, ...]:
    """Return the inputs as a tuple."""
    return x if isinstance(x, tuple) else (x,)


def joined(found: tuple[Tensor, ...]) -> Inputs:
    """Return the inputs as a network takes them."""
    return found if len(found) > 1 else found[0]


def each(function: Callable[[Tensor], Tensor], x: Inputs) -> Inputs:
    """Apply a function to every input."""
    return tuple(map(function, x)) if isinstance(x, tuple) else function(x)


def rows(x: Inputs, some: slice) -> Inputs:
    """Return some items of a batch."""
    return each(lambda one: one[some], x)


def copy_of(x: Inputs, layout: torch.memory_format = torch.preserve_format) -> Inputs:
    """Copy a batch into a layout; channels last is only for images."""

    def copy(one: Tensor) -> Tensor:
        plain = layout is torch.channels_last and one.dim() != 4
        return one.clone(memory_format=torch.contiguous_format if plain else layout)

    return each(copy, x)


def moved(x: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Move a tensor to a device, floating-point numbers as `dtype`; others keep their type."""
    return x.to(device, dtype) if x.is_floating_point() else x.to(device)


def fits(shape: tuple[int, ...], item: DataSet) -> bool:
    """Test whether one item's output of this shape can be held against its target.

    Of a target of numbers, sizes of 1 may be missing or too many.
    """
    if item.target in (CLASS, POSITION):
        return shape in item.output_shapes
    return [size for size in shape if size != 1] == [size for size in item.target_shape if size != 1]


def by_class(output: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return logits (N, C) and classes (N,) of outputs (B, C), (B, *positions, C) or (B, C, *positions)."""
    if y.dim() == 1:
        return output, y
    if output.shape[:-1] != y.shape:
        output = output.movedim(1, -1)
    return output.flatten(0, -2), y.flatten()


def counted(y: Tensor) -> Tensor:
    """Count the positions with a class."""
    return (y != IGNORED).sum()


def made_up(item: DataSet, count: int, stream: torch.Generator) -> tuple[Inputs, Tensor]:
    """Draw a batch of inputs and targets.

    Floating-point inputs lie between 0 and 1, the first number of each is 1: as tokens, sentences of a word.
    """
    x = joined(tuple(_drawn(one, count, stream) for one in item.every_input))
    return x, targets(item, count, stream)


def _drawn(one: Input, count: int, stream: torch.Generator) -> Tensor:
    if one.type == REAL:
        x = torch.rand(count, *one.shape, generator=stream)  # 0 as whole numbers: padding
        x.view(count, -1)[:, :1] = 1
        return x
    dtype: torch.dtype = getattr(torch, one.type)
    if dtype is torch.bool:
        return torch.ones(count, *one.shape, dtype=dtype)  # a mask that hides nothing
    return torch.randint(max(0, one.most) + 1, (count, *one.shape), generator=stream).to(dtype)


def targets(item: DataSet, count: int, stream: torch.Generator) -> Tensor:
    """Draw targets."""
    if item.target == FLOAT:
        return torch.randn(count, *item.target_shape, generator=stream)
    if item.target == MULTI_HOT:
        return torch.randint(2, (count, *item.target_shape), generator=stream).float()
    return torch.randint(item.classes, (count, *item.target_shape), generator=stream)


_NORMALISATIONS = (
    functional.batch_norm,
    functional.group_norm,
    functional.instance_norm,
    functional.layer_norm,
    torch.batch_norm,
    torch.group_norm,
    torch.instance_norm,
    torch.layer_norm,
)
_CONVOLUTIONS = (
    torch.conv1d,
    torch.conv2d,
    torch.conv3d,
    torch.conv_transpose1d,
    torch.conv_transpose2d,
    torch.conv_transpose3d,
)


def compute_type(precision: str, like: Tensor) -> torch.dtype:
    """Return the dtype of products for parameters like `like`.

    bfloat16 replaces only float32: float64 serves comparisons to the last digit.
    """
    return torch.bfloat16 if precision == BFLOAT16 and like.dtype is torch.float32 else like.dtype


@contextmanager
def computing(dtype: torch.dtype, device: torch.device, *, stacked: bool = False) -> Iterator[None]:
    """Compute a module's products in bfloat16 if `dtype` is bfloat16; else change nothing.

    Autocast's weight cache is off: packs in several threads would share and clear it, so that timing would
    decide whether the gradients of a weight used twice are added in bfloat16 or float32.
    """
    if dtype is not torch.bfloat16:
        yield
        return
    autocast = torch.autocast(device.type, dtype=dtype, cache_enabled=False)
    with autocast, _UnderVmap() if stacked else nullcontext():
        yield


class _UnderVmap(TorchFunctionMode):
    """The part of autocast that does not work under vmap.

    On a CPU vmap hides convolutions from autocast, and it has no rule to normalise bfloat16 by float32
    statistics and parameters: normalisations are computed in float32.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func in _CONVOLUTIONS:
            args, kwargs = tree_map_only(Tensor, Tensor.bfloat16, (args, kwargs))
        elif func in _NORMALISATIONS:
            args, kwargs = tree_map_only(Tensor, Tensor.float, (args, kwargs))
        return func(*args, **kwargs)
