"""Roles of parameters: exempt from weight decay by type or pattern, and scale-invariant."""

from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from lrwd_sweep.nets import decaying, network
from lrwd_sweep.nets.loss import DEFAULT_LOSS
from lrwd_sweep.nets.modules import ModuleNetwork, norm_and_bias
from lrwd_sweep.nets.network import Way
from lrwd_sweep.runner.runner import complete
from lrwd_sweep.spec.catalog import NETWORKS, DataSet
from lrwd_sweep.spec.task import Task
from tests.nets.awkward import Base
from tests.refusal import assert_raises
from tests.small import F64, splits, task


def _layer(name: str, **parts: nn.Module | Tensor | tuple[int, ...]) -> nn.Module:
    """Make a layer of a class of this name; tensors and shapes of random ones become its parameters."""
    layer: nn.Module = type(name, (nn.Module,), {})()
    for part, value in parts.items():
        made = torch.randn(value) if isinstance(value, tuple) else value
        setattr(layer, part, nn.Parameter(made) if isinstance(made, Tensor) else made)
    return layer


def _affine(*shape: int) -> nn.Module:
    return _layer("ChannelNorm", weight=torch.ones(shape), bias=torch.zeros(shape))


AFFINE = "weight bias"
ZEROS = torch.zeros(1, 1, 1, 8)
LAYERS: list[tuple[nn.Module, str]] = [  # a layer, and its parameters without decay
    (_affine(1, 8), AFFINE),
    (_affine(1, 8, 1, 1), AFFINE),
    (_affine(8, 4, 4), AFFINE),
    (nn.LayerNorm((8, 4, 4)), AFFINE),
    (nn.BatchNorm2d(4), AFFINE),
    (_layer("Grn", gamma=ZEROS, beta=ZEROS), "gamma beta"),  # ConvNeXt V2's, whose name does not tell
    (_layer("NormedLinear", weight=(4, 3)), ""),  # of a cosine classifier
    (_layer("PreNorm", norm=nn.LayerNorm(4), fn=nn.Linear(4, 4)), "norm.weight norm.bias fn.bias"),
    (_layer("PreNormBlock", norm=nn.LayerNorm(4), w1=(4, 4)), "norm.weight norm.bias"),
    (nn.utils.parametrizations.weight_norm(nn.Conv1d(4, 4, 3)), "bias parametrizations.weight.original0"),
    (nn.ParameterDict({"bias": torch.randn(1, 4), "w": torch.randn(4, 4)}), "bias"),
    (_layer("ClassToken", cls_token=torch.zeros(1, 1, 4)), ""),
    (_layer("Row", weight=(1, 4)), ""),
    (nn.Conv2d(1, 8, 1), "bias"),
    (nn.Embedding(1, 4, _weight=torch.zeros(1, 4)), ""),
    (nn.MultiheadAttention(4, 2, add_bias_kv=True), "in_proj_bias bias_k bias_v out_proj.bias"),
    (_layer("Biases", q_bias=(2, 4), bias_k=(1, 1, 4), debiased_weight=(3, 2)), "q_bias bias_k"),
    (_layer("Tables", attention_biases=(2, 9), relative_position_bias_table=(9, 2)), "attention_biases"),
    (_layer("List", biases=nn.ParameterList([torch.randn(2, 3), torch.randn(1, 3)])), "biases.0 biases.1"),
]


def test_biases_and_normalisation_are_found_by_type_and_name() -> None:
    for layer, spared in LAYERS:
        assert norm_and_bias(nn.Sequential(layer)) == {f"0.{name}" for name in spared.split()}, layer
    network = _layer("Norm", cls_token=torch.zeros(1, 1, 4), matrix=torch.ones(4, 4), head=nn.Linear(4, 1))
    assert norm_and_bias(network) == {"head.bias"}  # the whole network is not a layer


def test_biases_and_normalisation_of_catalog_networks_are_vectors() -> None:
    for name in {*NETWORKS, "torchvision:resnet18", "torchvision:vit_b_16"} - {"torchvision:NAME"}:
        sizes = DataSet(400, 100, 100, 10, (3, 224, 224) if "vit" in name else (3, 32, 32))
        of = Task(net=name, sizes=sizes, decay_all=False, data="folder:/nowhere")
        assert complete(of).undecayed == (), name


class Own(Base):  # a user network
    def make(self) -> None:
        self.cls_token = nn.Parameter(torch.zeros(1, 4))
        self.stem, self.norm, self.head = nn.Linear(64, 4), _affine(1, 4), nn.Linear(4, 10)

    def logits(self, x: Tensor) -> Any:
        return self.head(self.norm.weight * (self.stem(x) + self.cls_token) + self.norm.bias)


OWN = f"{__name__}:Own"
EVERY = ["cls_token", "stem.weight", "stem.bias", "norm.weight", "norm.bias", "head.weight", "head.bias"]
NORM_AND_BIAS = "stem.bias norm.weight norm.bias head.bias"


def test_named_parameters_do_not_decay() -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({}, ""),
        ({"decay_all": False}, NORM_AND_BIAS),
        ({"no_decay": "cls_token|head"}, "cls_token head.weight head.bias"),
        ({"decay_all": False, "no_decay": "^cls"}, f"cls_token {NORM_AND_BIAS}"),
    ]
    for engine, (options, spared) in product(("loop", "vmap"), cases):
        of = complete(Task(net=OWN, engine=engine, **options))
        found = decaying(of)
        assert list(found) == EVERY == list(network(of).shapes)
        assert [name for name, decays in found.items() if not decays] == spared.split(), options
    of = complete(Task(no_decay="weight3", decay_all=False))
    assert [name for name, decays in decaying(of).items() if decays] == ["weight1", "weight2"]


def test_invalid_pattern_is_refused() -> None:
    cases: list[tuple[str, dict[str, Any], str]] = [
        (OWN, {"no_decay": "zzz"}, "'zzz' matches no parameter of .* that trains; they are cls_token, stem"),
        (OWN, {"no_decay": "."}, r"no_decay='.' leaves no parameter of .* that decays; leave it out"),
        ("mlp", {"no_decay": "weight", "decay_all": False}, "no_decay='weight' leaves no parameter of mlp"),
        ("mlp", {"no_decay": "a\nb"}, r"no_decay='a\\nb' is not printable text"),
    ]
    for net, options, complaint in cases:
        assert_raises(complaint, lambda: complete(Task(net=net, **options)))  # noqa: B023


class _Mixed(Base):  # a layer that begins at zero, one before a normalisation, and an unused one
    def make(self) -> None:
        self.before, self.norm, self.unused = nn.Linear(64, 16), nn.LayerNorm(16), nn.Linear(3, 3)
        self.head = nn.Linear(16, 4)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.before.bias)

    def logits(self, x: Tensor) -> Any:
        return self.head(torch.relu(self.norm(self.before(x))))


def test_doubling_a_weight_changes_logits_unless_it_is_scale_invariant() -> None:
    x, y = splits(F64).train.batch(torch.arange(16))
    for name in ("mlp-norm", "mlp", "embed-norm", "cnn-norm", "cnn", "resnet20"):
        net = network(task(name, engine="loop"))
        init = net.init(torch.Generator().manual_seed(4))

        def logits(doubled: str) -> Tensor:
            theta = {n: (2 * v if n == doubled else v).unsqueeze(0) for n, v in init.items()}  # noqa: B023
            grad = {n: torch.zeros_like(v) for n, v in theta.items()}
            return net.lanes(theta, grad, 16).gradient(x, y, [torch.Generator()])[1]  # noqa: B023

        plain = logits("")
        for weight in (one for one, shape in net.shapes.items() if len(shape) > 1):
            change = (logits(weight) - plain).abs().max() / plain.abs().max()
            assert (change < 1e-3) == (weight in net.scale_invariant), (name, weight, change)
        assert network(task(name)).scale_invariant == net.scale_invariant, name
    mixed = ModuleNetwork(_Mixed, DataSet(0, 0, 0, 4, (1, 8, 8)), Way(DEFAULT_LOSS))
    assert mixed.scale_invariant == ()
