"""Any nn.Module as a network: lanes in one program by torch.func.vmap or in a loop, roles of parameters."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from copy import copy, deepcopy
from functools import cached_property, partial
from typing import Self

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils.parametrizations import _WeightNorm
from torch.nn.utils.parametrize import ParametrizationList

from lrwd_sweep.errors import UsageError, arg, brief
from lrwd_sweep.nets.dry_run import copied, dry_run, examine
from lrwd_sweep.nets.kronecker import Layers, layers_seen
from lrwd_sweep.nets.loop import (
    LoopLanes,
    UserLoopLanes,
    average_statistics,
    plain_numbers,
    set_plain_numbers,
    sometimes_trained,
    untrained,
)
from lrwd_sweep.nets.network import (
    Inputs,
    Lanes,
    Network,
    Noise,
    Way,
    call,
    compute_type,
    computing,
    copy_of,
    joined,
    made_up,
    parts,
)
from lrwd_sweep.nets.randomness import Noisy, seeded
from lrwd_sweep.spec.catalog import REAL, DataSet

Make = Callable[[], nn.Module]
State = Mapping[str, Tensor]

FEW = 4  # items of a pass that only looks for layers
WIDE = 8_000_000  # parameters of dense convolutions from which a CPU trains faster channels first
BATCH = 8  # of two items, batch normalisation makes ±1: all layers before it would seem invariant
TOLERANCE = 1e-9  # of the cosine; rounding leaves 1e-13, an ordinary layer of 10⁸ weights more than 1e-6

_NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, *filter(None, [getattr(nn, "RMSNorm", None)]))
_OF_WEIGHTS = (
    *(nn.Linear, nn.Bilinear, _ConvNd, nn.Embedding, nn.EmbeddingBag),
    *(nn.RNNBase, nn.RNNCellBase, nn.MultiheadAttention),
)
_LISTS = (nn.ParameterList, nn.ParameterDict)  # entries take the list's name
_BIAS = re.compile(r"(.*bias(es)?|bias_.*)\Z", re.IGNORECASE)
_WEIGHT = re.compile(r"token|embed|pos|quer|prompt|linear|conv|dense|proj", re.IGNORECASE)


class ModuleNetwork(Network):
    """The network that `make` builds for an item.

    Raises UsageError if its lanes could not follow their seeds, and any exception of the module on such
    inputs. Parameters that are frozen, or that the loss does not depend on, do not train: like buffers they
    are part of the module, as under torch.optim.
    """

    def __init__(self, make: Make, item: DataSet, way: Way) -> None:
        self.make = partial(_partly_frozen, make, way.train) if way.train else make
        self.item, self.way, self.stacked = item, way, way.vmap
        module = _initialised(self.make, seed=0)
        found = examine(module, item, way)
        self.layout, self.by_item, self.output = found.layout, found.by_item, tuple(found.output.shape[1:])
        self.shapes = {
            name: tuple(value.shape)
            for name, value in module.named_parameters()
            if value.requires_grad and name in found.trained
        }
        self.norm_and_bias = norm_and_bias(module)
        self.module = self._hollow(module)
        if way.user_code and _initialised(make, seed=1) is module:
            raise UsageError("it returns the same network at every call; make a new one for every seed")
        self.wide = _is_wide(self.module)

    @cached_property
    def scale_invariant(self) -> tuple[str, ...]:
        """The weights followed by a normalisation; found by one pass in float64."""
        try:
            init = self.init(torch.Generator().manual_seed(0))
            return scale_invariant(self.module, init, self.item, self.way)
        except Exception:
            if self.way.user_code:  # which need not support float64
                return ()
            raise

    @cached_property
    def factored(self) -> Layers:
        """The layers with Kronecker factors, found by a forward pass. Raises UsageError as `layers_seen`."""
        init, stream = self.init(torch.Generator().manual_seed(0)), torch.Generator()
        theta = {name: value.float().unsqueeze(0) for name, value in init.items()}
        with torch.inference_mode(mode=False), torch.enable_grad():
            lanes = LoopLanes(self.module, theta, theta, self.way, self.layout)
            for part in lanes.noisy[0]:
                part.noise = stream
            x = copy_of(made_up(self.item, FEW, stream)[0], self.layout)
            return layers_seen(lanes.modules[0], list(self.shapes), lambda: lanes.outputs(0, x))

    def init(self, generator: torch.Generator) -> dict[str, Tensor]:
        """Return the module's own initialisation by the generator: float64, in the network's layout."""
        found = dict(self._seeded(generator).named_parameters())
        return {name: _laid_out(found[name].detach().double(), self.layout) for name in self.shapes}

    def of_seed(self, generator: torch.Generator, device: torch.device) -> Self:
        """Return the network for a device, its untrained tensors initialised as by `init`."""
        network = self._channels_first if self.wide and device.type == "cpu" else self
        if not (self.way.user_code or self.way.train):
            return network
        network = copy(network)
        network.module = self._hollow(self._seeded(generator))
        return network

    def check_precision(self) -> None:
        """Do a dry run in the network's precision. Raises any exception of the module."""
        module, dtype = _initialised(self.make, seed=0), compute_type(self.way.precision, torch.zeros(0))
        dry_run(module, self.item, self.way, self.layout, dtype)

    def lanes(self, theta: Mapping[str, Tensor], grad: Mapping[str, Tensor], batch: int) -> Lanes:
        """Return as many modules as `theta` holds, for batches of any size."""
        if self.way.vmap:
            return VmapLanes(self.module, theta, grad, self.way)
        if self.way.user_code:
            return UserLoopLanes(self.module, theta, grad, self.way, self.layout, self.output)
        return LoopLanes(self.module, theta, grad, self.way, self.layout)

    @cached_property
    def _channels_first(self) -> Self:
        network = copy(self)
        network.layout = torch.contiguous_format
        return network

    def _seeded(self, generator: torch.Generator) -> nn.Module:
        return _initialised(self.make, int(torch.randint(2**62, (), generator=generator)))

    def _hollow(self, module: nn.Module) -> nn.Module:
        """Copy the module with trained parameters on the meta device, without values."""
        found = dict(module.named_parameters())
        return copied(module, {id(found[name]): nn.Parameter(found[name].to("meta")) for name in self.shapes})


def _initialised(make: Make, seed: int) -> nn.Module:
    """Make a module initialised by `seed`; the global generators keep their states."""
    with seeded(seed):
        return make()


def _partly_frozen(make: Make, pattern: str) -> nn.Module:
    """Make a module of which only the parameters that match train. Raises UsageError if none does."""
    module = make()
    names = [name for name, value in module.named_parameters() if value.requires_grad]
    if not any(re.search(pattern, name) for name in names):
        raise UsageError(
            f"{arg('train', pattern)} matches no parameter of the network that could train; they are "
            f"{brief(', '.join(names))}"
        )
    for name, value in module.named_parameters():
        value.requires_grad_(value.requires_grad and re.search(pattern, name) is not None)
    return module


def _is_wide(module: nn.Module) -> bool:
    convolutions = [part for part in module.modules() if isinstance(part, nn.Conv2d)]
    dense = all(part.groups == 1 for part in convolutions)
    return dense and sum(part.weight.numel() for part in convolutions) > WIDE


def _laid_out(value: Tensor, layout: torch.memory_format) -> Tensor:
    """Put the weight of a convolution into the layout of its images."""
    return value.contiguous(memory_format=layout) if value.dim() == 4 else value


def norm_and_bias(module: nn.Module) -> frozenset[str]:
    """Return the names of biases and of normalisation's gains and shifts, whatever their shapes.

    `module` is freshly initialised. A bias has a name like one. A normalisation is one of torch's layers, a
    layer with "norm" in its class's name, or a layer without a matrix whose parameters begin constant, as
    GRN; in a class named so, a matrix counts only if it begins constant and no other matrix does not. The
    gains of weight normalisation count too. The whole network is never taken for a layer.
    """
    return frozenset(_exempt(module))


def _exempt(module: nn.Module) -> Iterator[str]:
    for path, layer in module.named_modules():
        for own, value in layer.named_parameters(recurse=False):
            name = path.rpartition(".")[2] if isinstance(layer, _LISTS) else own
            biased = _BIAS.match(name) or _BIAS.match(own)
            if biased or _is_gain_of_weights(layer, own) or (path and _normalises(layer, name, value)):
                yield f"{path}.{own}" if path else own


def _is_gain_of_weights(layer: nn.Module, name: str) -> bool:
    """Test for g of weight normalisation, W = g·V/‖V‖."""
    return (
        isinstance(layer, ParametrizationList) and name == "original0" and isinstance(layer[0], _WeightNorm)
    )


def _normalises(layer: nn.Module, name: str, value: Tensor) -> bool:
    """Test whether a layer's parameter is the gain or the shift of a normalisation."""
    if isinstance(layer, _NORMS):
        return True
    kinds = [kind.__name__ for kind in type(layer).__mro__]
    if isinstance(layer, _OF_WEIGHTS) or _WEIGHT.search(name) or _WEIGHT.search(kinds[0]):
        return False
    constant = _is_constant(value)
    if any("norm" in kind.lower() for kind in kinds):
        others = (one for one in layer.parameters(recurse=False) if _is_matrix(one) and not _is_constant(one))
        return not _is_matrix(value) or (constant and next(others, None) is None)
    return constant and not any(
        isinstance(part, _OF_WEIGHTS) or any(map(_is_matrix, part.parameters(recurse=False)))
        for part in layer.modules()
    )


def _is_constant(value: Tensor) -> bool:
    return bool((value == value.flatten()[:1]).all())


def _is_matrix(value: Tensor) -> bool:
    return sum(size > 1 for size in value.shape) > 1


def scale_invariant(module: nn.Module, init: State, item: DataSet, way: Way) -> tuple[str, ...]:
    """Return the parameters of more than one dimension with f(cθ) = f(θ) in training.

    By Euler's theorem those are the ones with ∇f·θ = 0, where f is a random combination of the logits: one
    backward pass finds all. It runs in float64, at a generic point, with every normalisation's ε almost 0.
    """
    stream = torch.Generator().manual_seed(0)
    with torch.inference_mode(mode=False):
        theta = {name: _nearby(value, stream).unsqueeze(0) for name, value in init.items()}
        grad = {name: torch.zeros_like(value) for name, value in theta.items()}
        (net,) = LoopLanes(module, theta, grad, way).modules
        for layer in net.modules():
            if hasattr(layer, "eps"):
                layer.eps = 1e-20  # type: ignore[assignment]
            if isinstance(layer, Noisy):
                layer.noise = stream
        x, _ = made_up(item, BATCH, torch.Generator().manual_seed(0))  # for its whole numbers
        pairs = zip(item.every_input, parts(x), strict=True)
        logits = call(net, joined(tuple(_normal(x, stream) if one.type == REAL else x for one, x in pairs)))
        assert isinstance(logits, Tensor)
        f = (logits * _normal(logits, stream)).sum()
        torch.autograd.backward(f)
    return tuple(name for name, value in theta.items() if value.dim() > 2 and _orthogonal(grad[name], value))


def _normal(like: Tensor, stream: torch.Generator) -> Tensor:
    return torch.randn(like.shape, generator=stream, dtype=torch.float64)


def _nearby(value: Tensor, stream: torch.Generator) -> Tensor:
    """Move a value by a tenth, so that layers that begin at zero take part."""
    spread = value.square().mean().sqrt().item() or 1.0
    return value + 0.1 * spread * _normal(value, stream)


def _orthogonal(g: Tensor, theta: Tensor) -> bool:
    size = g.norm() * theta.norm()
    return bool(size > 0 and (g * theta).sum().abs() < TOLERANCE * size)


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
        self.device, self.real = like.device, like.dtype
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

    def gradient(self, x: Inputs, y: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
        """Return every lane's mean loss on the batch and its outputs; write the gradients."""
        with torch.inference_mode(mode=False), torch.enable_grad():
            x, y = copy_of(x), y.clone()  # autograd does not record tensors of inference mode
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
        return losses.detach(), logits.detach().transpose(1, 2) if self.way.classifies else logits.detach()

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

    def _logits(self, state: dict[str, Tensor], x: Inputs) -> Tensor:  # (B, …)
        """Compute one lane's outputs from its parameters and buffers."""
        with computing(self.dtype, self.device, stacked=True):
            logits: Tensor = functional_call(self.module, state, parts(x)).to(self.real)
        return logits

    def _train(self, theta: State, buffers: State, x: Inputs, y: Tensor) -> tuple[Tensor, Tensor, State]:
        """Compute one lane's loss, outputs (B, …) and new buffers."""
        state = {**theta, **buffers}
        logits = self._logits(state, x)
        return self.way.loss(logits.clone(), y), logits, {name: state[name] for name in buffers}

    def predict(self, x: Inputs) -> Tensor:  # (L, classes, B) or (L, B, …)
        """Return the outputs on x (B, *shape) in evaluation mode."""
        self.module.eval()
        with torch.inference_mode(mode=False), torch.no_grad():
            logits: Tensor = vmap(lambda theta, buffers: self._logits({**theta, **buffers}, copy_of(x)))(
                self.theta, self.buffers
            )
        self.module.train()
        return logits.transpose(1, 2) if self.way.classifies else logits

    def predictor(self) -> VmapLanes:
        """Return the lanes themselves: predictions follow their training."""
        return self

    def average_statistics(self, batch: int | None) -> bool:
        """Make running statistics a mean over batches, as `Lanes` has it."""
        return average_statistics(self.module, batch)

    def state(self) -> dict[str, Tensor]:
        """Return the buffers, and the numbers that a user's module keeps, each (L, …)."""
        lanes = len(next(iter(self.theta.values())))
        numbers = plain_numbers(self.module) if self.way.user_code else {}
        return {**self.buffers, **{name: value.repeat(lanes) for name, value in numbers.items()}}

    def restore(self, state: State) -> None:
        """Set what `state` returned."""
        with torch.inference_mode(mode=False), torch.no_grad():
            for name, buffer in self.buffers.items():
                buffer.copy_(state[name])
            if self.way.user_code:
                set_plain_numbers(self.module, {name: value[0] for name, value in state.items()})
