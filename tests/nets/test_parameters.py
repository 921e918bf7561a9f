"""Roles of parameters: exempt from weight decay by type or pattern, and scale-invariant."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from lrwd_sweep.errors import UsageError
from lrwd_sweep.nets import CONVOLUTIONAL, ModuleNetwork, build, decaying, network, undecayed
from lrwd_sweep.nets.parameters import norm_and_bias
from lrwd_sweep.nets.randomness import Noisy
from lrwd_sweep.nets.resnet import WideResNet
from lrwd_sweep.runner.runner import complete
from lrwd_sweep.spec.catalog import NETWORKS, DataSet
from lrwd_sweep.spec.task import Task


class ChannelNorm(nn.Module):
    """Gain and shift as wide as images."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(shape)), nn.Parameter(torch.zeros(shape))

    def forward(self, x: Tensor) -> Tensor:
        """Without statistics."""
        return x * self.weight + self.bias


class Grn(nn.Module):
    """ConvNeXt V2's, whose name does not tell."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1, 1, 1, width))
        self.beta = nn.Parameter(torch.zeros(1, 1, 1, width))


class NormedLinear(nn.Module):
    """A matrix of a cosine classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 3))


class PreNorm(nn.Module):
    """Normalises ahead of what it holds."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.fn = nn.LayerNorm(4), nn.Linear(4, 4)


class ClassToken(nn.Module):
    """One row and nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, 4))


class PreNormBlock(nn.Module):
    """Weights of its own, of which one begins with zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4)
        self.w1, self.w2 = nn.Parameter(torch.randn(4, 4)), nn.Parameter(torch.zeros(4, 4))


class Row(nn.Module):
    """A matrix of one row."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(1, 4))


class Biases(nn.Module):
    """Biases of every kind beside matrices."""

    def __init__(self) -> None:
        super().__init__()
        self.q_bias = nn.Parameter(torch.randn(2, 4))
        self.bias_k = nn.Parameter(torch.randn(1, 1, 4))
        self.attention_biases = nn.Parameter(torch.randn(2, 9))
        self.biases = nn.ParameterList([torch.randn(2, 3), torch.randn(1, 3)])
        self.relative_position_bias_table = nn.Parameter(torch.randn(9, 2))
        self.debiased_weight = nn.Parameter(torch.randn(3, 2))


class Norm(nn.Module):
    """A network that is called as a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, 4))
        self.matrix = nn.Parameter(torch.ones(4, 4))
        self.head = nn.Linear(4, 1)


@pytest.mark.parametrize(
    ("make", "spared"),
    [
        (lambda: ChannelNorm(1, 8), {"0.weight", "0.bias"}),
        (lambda: ChannelNorm(1, 8, 1, 1), {"0.weight", "0.bias"}),
        (lambda: ChannelNorm(8, 4, 4), {"0.weight", "0.bias"}),
        (lambda: nn.LayerNorm((8, 4, 4)), {"0.weight", "0.bias"}),
        (lambda: nn.BatchNorm2d(4), {"0.weight", "0.bias"}),
        (lambda: nn.GroupNorm(2, 4), {"0.weight", "0.bias"}),
        (lambda: Grn(8), {"0.gamma", "0.beta"}),
        (NormedLinear, set()),
        (PreNorm, {"0.norm.weight", "0.norm.bias", "0.fn.bias"}),
        (PreNormBlock, {"0.norm.weight", "0.norm.bias"}),
        (
            lambda: nn.utils.parametrizations.weight_norm(nn.Conv1d(4, 4, 3)),
            {"0.bias", "0.parametrizations.weight.original0"},
        ),
        (lambda: nn.ParameterDict({"bias": torch.randn(1, 4), "w": torch.randn(4, 4)}), {"0.bias"}),
        (ClassToken, set()),
        (Row, set()),
        (lambda: nn.Linear(4, 1), {"0.bias"}),
        (lambda: nn.Conv2d(1, 8, 1), {"0.bias"}),
        (lambda: nn.Embedding(9, 4), set()),
        (lambda: nn.Embedding(1, 4, _weight=torch.zeros(1, 4)), set()),
        (
            lambda: nn.MultiheadAttention(4, 2, add_bias_kv=True),
            {"0.in_proj_bias", "0.bias_k", "0.bias_v", "0.out_proj.bias"},
        ),
        (Biases, {"0.q_bias", "0.bias_k", "0.attention_biases", "0.biases.0", "0.biases.1"}),
    ],
)
def test_biases_and_normalisation_are_found_by_type_and_name(
    make: Callable[[], nn.Module], spared: set[str]
) -> None:
    assert norm_and_bias(nn.Sequential(make())) == spared


def test_network_named_norm_is_not_a_normalisation_layer() -> None:
    assert norm_and_bias(Norm()) == {"head.bias"}


SIZES = DataSet(400, 100, 100, 10, (3, 32, 32))


@pytest.mark.parametrize(
    "name", [*(name for name in NETWORKS if ":" not in name), "torchvision:resnet18", "torchvision:vit_b_16"]
)
def test_biases_and_normalisation_of_catalog_networks_are_vectors(name: str) -> None:
    sizes = DataSet(400, 100, 100, 10, (3, 224, 224)) if "vit" in name else SIZES
    task = Task(net=name, sizes=sizes, decay_all=False, data="folder:/nowhere")
    assert undecayed(task) == ()
    assert complete(task).undecayed == ()


class Own(nn.Module):
    """What a user brings."""

    def __init__(self) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 4))
        self.stem, self.norm, self.head = nn.Linear(64, 4), ChannelNorm(1, 4), nn.Linear(4, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.head(self.norm(self.stem(x.flatten(1)) + self.cls_token))
        return logits


OWN = f"{__name__}:Own"
EVERY = ["cls_token", *(f"{name}.{part}" for name in ("stem", "norm", "head") for part in ("weight", "bias"))]


@pytest.mark.parametrize(
    ("options", "spared"),
    [
        ({}, []),
        ({"decay_all": False}, ["stem.bias", "norm.weight", "norm.bias", "head.bias"]),
        ({"no_decay": "cls_token|head"}, ["cls_token", "head.weight", "head.bias"]),
        (
            {"decay_all": False, "no_decay": "^cls"},
            ["cls_token", "stem.bias", "norm.weight", "norm.bias", "head.bias"],
        ),
    ],
)
@pytest.mark.parametrize("engine", ["loop", "vmap"])
def test_named_parameters_do_not_decay(options: dict[str, object], spared: list[str], engine: str) -> None:
    task = complete(Task(net=OWN, engine=engine, **options))  # type: ignore[arg-type]
    found = decaying(task)
    assert list(found) == EVERY == list(network(task).shapes)
    assert [name for name, decays in found.items() if not decays] == spared


def test_pattern_applies_to_native_networks() -> None:
    task = complete(Task(no_decay="weight3", decay_all=False))
    assert [name for name, decays in decaying(task).items() if decays] == ["weight1", "weight2"]


@pytest.mark.parametrize(
    ("net", "options", "complaint"),
    [
        (
            OWN,
            {"no_decay": "zzz"},
            "'zzz' matches no parameter of .* that trains; they are cls_token, stem.w",
        ),
        (OWN, {"no_decay": "."}, r"no_decay='.' leaves no parameter of .* that decays; leave it out"),
        ("mlp", {"no_decay": "weight", "decay_all": False}, "no_decay='weight' leaves no parameter of mlp"),
        ("mlp", {"no_decay": "("}, r"no_decay='\(' is not a regular expression \(missing \), unterminated"),
        ("mlp", {"no_decay": 3}, "no_decay=3 is not text"),
        ("mlp", {"no_decay": "a\nb"}, r"no_decay='a\\nb' is not printable text"),
    ],
)
def test_invalid_pattern_is_refused(net: str, options: dict[str, object], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        complete(Task(net=net, **options))  # type: ignore[arg-type]


SHAPE = (1, 8, 8)


def _weights(network: ModuleNetwork) -> list[str]:
    return [name for name, shape in network.shapes.items() if len(shape) > 1]


@pytest.mark.parametrize("name", ["cnn-norm", "cnn", "resnet20", "shake26-2x32d"])
def test_all_layers_but_the_last_are_scale_invariant(name: str) -> None:
    network = build(name, SHAPE, 10)
    assert isinstance(network, ModuleNetwork)
    expected = set(_weights(network)) - (set() if name == "cnn-norm" else {"head.weight"})
    assert set(network.scale_invariant) == expected


def test_preactivation_leaves_the_ends_of_the_branches_free() -> None:
    network = ModuleNetwork(partial(WideResNet, 1, 10, depth=10, k=1), SHAPE, 10)
    found = set(network.scale_invariant)
    assert found >= {f"blocks.{k}.conv1.weight" for k in range(3)}
    assert not found & {"head.weight", *(f"blocks.{k}.conv2.weight" for k in range(3))}


class _Mixed(nn.Module):
    """A layer that begins at zero, one in front of a normalisation, and an unused one."""

    def __init__(self) -> None:
        super().__init__()
        self.before = nn.Linear(64, 16)
        self.norm = nn.LayerNorm(16)
        self.unused = nn.Linear(3, 3)
        self.head = nn.Linear(16, 4)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.before.bias)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(torch.relu(self.norm(self.before(x.flatten(1)))))
        return logits


def _logits(network: ModuleNetwork, doubled: str = "") -> Tensor:
    module = network.make().double()
    values = network.init(torch.Generator().manual_seed(4))
    module.load_state_dict(
        {name: value * (2 if name == doubled else 1) for name, value in values.items()}, strict=False
    )
    for layer in module.modules():
        if hasattr(layer, "eps"):
            layer.eps = 1e-20  # type: ignore[assignment]
        if isinstance(layer, Noisy):
            layer.noise = torch.Generator().manual_seed(0)
    x = torch.randn(8, *network.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    logits = module(x)
    assert isinstance(logits, Tensor)
    return logits


@pytest.mark.parametrize(
    "make",
    [
        partial(CONVOLUTIONAL["cnn-norm"], 1, 4),
        partial(CONVOLUTIONAL["cnn"], 1, 4),
        partial(WideResNet, 1, 4, depth=10, k=1),
    ],
)
def test_doubling_a_weight_changes_logits_unless_it_is_scale_invariant(make: Callable[[], nn.Module]) -> None:
    network = ModuleNetwork(make, SHAPE, 4)
    plain = _logits(network)
    for name in _weights(network):
        change = (_logits(network, name) - plain).abs().max() / plain.abs().max()
        assert (change < 1e-9) == (name in network.scale_invariant), name


def test_zeros_and_unused_layers_are_not_mistaken() -> None:
    # the bias, zero at first, makes a difference as soon as it is not
    assert ModuleNetwork(_Mixed, SHAPE, 4).scale_invariant == ()
