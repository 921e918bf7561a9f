"""Networks of the catalog and of torchvision: sizes, inputs, layers, initial weights, gradients."""

import math
from itertools import product
from pathlib import Path
from typing import Any

import numba
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torchvision.models import shufflenet_v2_x0_5
from torchvision.ops import StochasticDepth

from lrwd_sweep.engine.lane_state import Arena
from lrwd_sweep.errors import DataError, UnknownName
from lrwd_sweep.nets import CONVOLUTIONAL, network
from lrwd_sweep.nets.cnn import Windows
from lrwd_sweep.nets.gpt import Gpt
from lrwd_sweep.nets.image_classifiers import Shake, ShakeShortcut
from lrwd_sweep.nets.loss import DEFAULT_LOSS
from lrwd_sweep.nets.mlp import Mlp, MlpLanes, MlpModule
from lrwd_sweep.nets.mlp_numba import COLUMNS, NumbaMlpLanes, row_means
from lrwd_sweep.nets.modules import ModuleNetwork
from lrwd_sweep.nets.network import Network, Way
from lrwd_sweep.nets.randomness import Dropout
from lrwd_sweep.optim.jit import compiled
from lrwd_sweep.runner.runner import complete
from lrwd_sweep.spec.catalog import NETWORKS, DataSet, find_network
from lrwd_sweep.spec.net_options import options_text
from lrwd_sweep.spec.task import Task
from tests.refusal import assert_raises
from tests.small import CPU, F32, F64, TOKENS, begun, task

SMALL = ["mlp-norm", "mlp", "embed-norm", "cnn-norm", "cnn", "resnet20", "vgg16-bn", "shake26-2x32d"]
RESNETS = {"resnet20": 0.27, "resnet32": 0.46, "resnet56": 0.85, "wrn-28-10": 36.5}
# 26 2x96d as Gastaldi defines it and the AdamW authors' code builds it; their paper writes 25.6M
SHAKES = {"shake26-2x32d": 2.9, "shake26-2x64d": 11.6, "shake26-2x96d": 26.2}
MILLIONS = {**RESNETS, **SHAKES, "vgg16-bn": 14.7}  # of parameters on CIFAR-10, as the papers give them


def _built(name: str, shape: tuple[int, ...]) -> Network:
    return network(Task(net=name, sizes=DataSet(400, 100, 100, 10, shape)))


def test_the_catalog_has_the_networks_and_sizes_of_the_papers() -> None:
    for name, expected in MILLIONS.items():
        with torch.device("meta"):
            count = sum(value.numel() for value in CONVOLUTIONAL[name](3, 10).parameters())
        assert count == pytest.approx(1e6 * expected, rel=0.01), name
    assert {"mlp-norm", "mlp", "embed-norm", "gpt", "torchvision:NAME", *CONVOLUTIONAL} == set(NETWORKS)


@pytest.mark.parametrize("names", [SMALL, pytest.param(NETWORKS, marks=pytest.mark.slow)])
def test_networks_take_grey_and_colour_images_from_8_pixels(names: list[str]) -> None:
    for name, shape in product({*names} - {"torchvision:NAME", "gpt"}, ((1, 8, 8), (3, 9, 12))):
        assert _built(name, shape).shapes, name  # with a dry run


def test_unfit_inputs_and_unknown_names_are_refused_in_one_line() -> None:
    small = "takes images of at least 8×8, not .*mlp-norm"
    colours = "takes images of 1 or 3 channels, not 2×32×32"
    pixels = r"does not take images of 1×8×8 \(.*resnet20"
    for name, shape, complaint in (
        ("cnn-norm", (30,), small),
        ("cnn-norm", (1, 7, 8), small),
        ("torchvision:shufflenet_v2_x0_5", (2, 32, 32), colours),
        *((f"torchvision:{name}", (1, 8, 8), pixels) for name in ("squeezenet1_1", "vit_b_16", "maxvit_t")),
    ):
        assert_raises(f"^net='?{name}'? {complaint}", _built, name, shape)
    for name in ("resnet81", "fasterrcnn_resnet50_fpn", "NAME", ""):
        unknown = r"unknown classifier of torchvision\.models"
        assert_raises(unknown, _built, f"torchvision:{name}", (1, 8, 8), error=UnknownName)
    assert find_network("torchvision:resnet18") == "torchvision:resnet18"
    assert_raises("did you mean resnet", find_network, "resnet21", error=UnknownName)


def test_torchvision_networks_keep_their_parameters_and_lose_torchs_random_layers() -> None:
    expected = [name for name, _ in shufflenet_v2_x0_5(num_classes=10).named_parameters()]
    assert list(_built("torchvision:shufflenet_v2_x0_5", (1, 8, 8)).shapes) == expected
    assert _built("torchvision:googlenet", (3, 32, 32)).shapes  # its constructor needs arguments
    net = _built("torchvision:efficientnet_b0", (3, 32, 32))
    assert isinstance(net, ModuleNetwork)
    layers = list(net.module.modules())
    assert {layer.dims for layer in layers if isinstance(layer, Dropout)} == {None, 1}
    assert not [layer for layer in layers if isinstance(layer, nn.Dropout | StochasticDepth)]


def _drawn(layer: Dropout | Shake, *inputs: Tensor, seed: int = 0) -> Tensor:
    layer.noise = torch.Generator().manual_seed(seed)
    out: Tensor = layer(*inputs)
    return out


def test_dropout_draws_once_for_the_dimensions_behind() -> None:
    for dims, draws in ((None, 72000), (2, 2000), (1, 40), (0, 1)):
        units = _drawn(Dropout(0.25, dims), torch.ones(40, 50, 6, 6)).reshape(draws, -1)
        assert torch.equal(units, units[:, :1].expand_as(units)), dims
        assert set(units.flatten().tolist()) <= {0.0, torch.tensor(1.0).div(0.75).item()}, dims
        share = (units[:, 0] == 0).double().mean().item()
        assert draws < 100 or share == pytest.approx(0.25, abs=5 * (0.25 * 0.75 / draws) ** 0.5), dims


def test_shake_mixes_by_different_coefficients_forward_and_backward() -> None:
    a, b, g = torch.randn(3, 5, 3, 2, 2, dtype=F64, requires_grad=True)
    alpha, beta = torch.rand((2, 5, 1, 1, 1), generator=torch.Generator().manual_seed(7), dtype=F64)
    out = _drawn(Shake(), a, b, seed=7)
    torch.testing.assert_close(out, alpha * a + (1 - alpha) * b)
    torch.testing.assert_close(torch.autograd.grad(out, (a, b), g), (beta * g, (1 - beta) * g))
    torch.testing.assert_close(Shake().eval()(a, b), (a + b) / 2)


def test_second_path_of_the_shortcut_sees_odd_pixels() -> None:
    shortcut = ShakeShortcut(1, 2, stride=2).double().eval()
    nn.init.ones_(shortcut.straight.weight)
    nn.init.ones_(shortcut.moved.weight)
    x = torch.arange(1, 17, dtype=F64).view(1, 1, 4, 4)
    out = shortcut(x)[0] * (1 + shortcut.norm.eps) ** 0.5
    torch.testing.assert_close(out[0], x[0, 0, ::2, ::2])
    torch.testing.assert_close(out[1], torch.tensor([[0, 0], [0, 6]], dtype=F64))  # moved right and down


def gpt_options(**more: Any) -> dict[str, Any]:
    small = {"layers": 2, "heads": 2, "width": 8, "context": 6}
    return {"sizes": TOKENS, "net_options": options_text(small | more)}


GPT = task("gpt", **gpt_options())


def test_a_position_sees_only_those_before_it() -> None:
    module, x = begun(GPT), torch.randint(10, (3, 6))
    logits = module(x)
    for k in range(1, 6):
        other = torch.cat([x[:, :k], (x[:, k:] + 1) % 10], 1)
        assert torch.allclose(module(other)[:, :k], logits[:, :k])
        assert not torch.allclose(module(other)[:, k], logits[:, k], atol=1e-3)


def test_weight_norm_makes_directions_of_the_same_function_scale_invariant() -> None:
    normed, x = task("gpt", **gpt_options(weight_norm=True)), torch.randint(10, (3, 6))
    found = network(normed).scale_invariant
    assert len(found) == 8, "four matrices in each of two blocks"
    assert all(name.endswith("weight.original1") for name in found), found
    assert torch.allclose(begun(normed)(x), begun(GPT)(x))


def test_initial_weights_have_gpt2s_spread() -> None:
    torch.manual_seed(0)
    module = Gpt(100, 100, layers=8, heads=4, width=64, context=32, tie=False, weight_norm=False)
    for name, value in module.named_parameters():
        if value.dim() > 1:
            deviation = 0.02 / 4 if "attention.out" in name or "down" in name else 0.02  # √(2·8) = 4
            assert value.std().item() == pytest.approx(deviation, rel=0.05), name
        else:
            assert bool((value == (0 if name.endswith("bias") else 1)).all()), name
    logits = module(torch.randint(100, (8, 32))).flatten(0, 1)
    loss = cross_entropy(logits, torch.arange(256) % 100)
    assert loss.item() == pytest.approx(math.log(100), rel=0.02)


def test_options_shape_the_network() -> None:
    shapes = network(GPT).shapes
    assert shapes["token.weight"] == shapes["head.weight"] == (11, 8)
    assert (shapes["position.weight"], shapes["blocks.1.attention.qkv.weight"]) == ((6, 8), (24, 8))
    assert network(task("gpt", **gpt_options(tie=True))).shapes.keys() == shapes.keys() - {"head.weight"}
    text = Task(net="gpt", data="python-docs", batch_size=16)
    assert text.data_set.shape == (64,)
    assert text.changed(net_options=options_text({"context": 9})).data_set.shape == (9,)


def negative() -> Any:
    x = torch.arange(60).reshape(10, 6) % 7 - 2
    return (x, x + 2), (x, x + 2)


def test_data_that_are_not_windows_of_tokens_are_refused() -> None:
    for of, complaint in (
        (Task(net="gpt"), "net='gpt' takes windows of tokens with a class for each, not items of 1×8×8; ch"),
        (task(sizes=TOKENS), "takes one floating-point input, not inputs of type int64; choose net='gpt'"),
    ):
        assert_raises(complaint, network, of)
    below = r"data='.*:negative': x has the token -2; number tokens from 0"
    of = Task(net="gpt", data=f"{__name__}:negative", batch_size=2)
    assert_raises(below, complete, of, error=DataError)


WAY = Way(DEFAULT_LOSS)
NOISE = [torch.Generator()]  # not used


def _arena(net: Mlp, lanes: int, dtype: torch.dtype = F64) -> Arena:
    stream = torch.Generator().manual_seed(1)
    arena = Arena.stack(net.init(stream), lanes, device=CPU, dtype=dtype)
    for value in arena.named.values():
        value.add_(0.1 * torch.randn(value.shape, generator=stream, dtype=dtype))
    return arena


def _batch(net: Mlp, batch: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    stream = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, net.widths[0], generator=stream, dtype=F64)
    return x, torch.randint(0, net.widths[-1], (batch,), generator=stream)


@given(
    st.lists(st.integers(2, 9), min_size=2, max_size=5), st.booleans(), st.integers(1, 4), st.integers(3, 12)
)
@example([5, 129, 128, 3], True, 2, 64)  # whose products are multiplied in halves, one of them odd
def test_perceptrons_are_those_of_torch(widths: list[int], norm_logits: bool, count: int, batch: int) -> None:
    net = Mlp(tuple(widths), norm_logits, WAY)
    arena, other = _arena(net, count), _arena(net, count)
    lanes = MlpLanes(net, arena.named, arena.named_grad, batch)
    compiled = net.lanes(other.named, other.named_grad, batch)
    assert isinstance(compiled, NumbaMlpLanes)
    alone = [MlpModule(net).double() for _ in range(count)]
    for lane, module in enumerate(alone):
        module.load_state_dict({name: value[lane] for name, value in arena.named.items()}, strict=False)
    for seed in range(3):
        x, y = _batch(net, batch, seed)
        losses, logits = lanes.gradient(x, y, NOISE)
        for one, two in zip((losses, logits), compiled.gradient(x, y, NOISE), strict=True):
            torch.testing.assert_close(two, one, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(other.grad, arena.grad, rtol=1e-8, atol=1e-10)
        for lane, module in enumerate(alone):
            loss = cross_entropy(module(x), y)
            assert losses[lane].item() == pytest.approx(loss.item(), abs=1e-11)
            grads = torch.autograd.grad(loss, list(module.parameters()))
            for found, expected in zip(arena.named_grad.values(), grads, strict=True):
                torch.testing.assert_close(found[lane], expected, rtol=1e-8, atol=1e-9)
    images, _ = _batch(net, 2 * COLUMNS + 7, 99)
    predicted = lanes.predictor().predict(images)
    torch.testing.assert_close(compiled.predictor().predict(images), predicted, rtol=1e-9, atol=1e-11)
    for lane, module in enumerate(alone):
        torch.testing.assert_close(predicted[lane].T, module.eval()(images), rtol=1e-9, atol=1e-10)


def test_saturated_softmax_gives_a_finite_loss() -> None:
    net = Mlp((4, 6, 3), False, WAY)
    arena = _arena(net, 1)
    arena.named["weight2"].mul_(1e6)
    losses, _ = MlpLanes(net, arena.named, arena.named_grad, 8).gradient(*_batch(net, 8), NOISE)
    assert 1e4 < losses[0] < math.inf
    assert torch.isfinite(arena.grad).all()


def test_numba_trains_no_bfloat16() -> None:
    for way, kind in ((WAY, NumbaMlpLanes), (Way(DEFAULT_LOSS, precision="bfloat16"), MlpLanes)):
        net = Mlp((8, 6, 3), True, way)
        arena = _arena(net, 2, F32)
        assert type(net.lanes(arena.named, arena.named_grad, 8)) is kind


def test_compiled_and_cached_loops_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    x, found = torch.randn(50, 60, generator=torch.Generator().manual_seed(0)).numpy(), []
    for hits in (0, 1):
        means, loop = torch.zeros(50).numpy(), compiled(row_means.py_func)
        loop(x, torch.full((60,), 1 / 60).numpy(), means)
        found.append(means.tobytes())
        assert sum(loop.stats.cache_hits.values()) == hits
    assert found[0] == found[1]
    assert list(tmp_path.rglob("mlp_numba.row_means*.nbc"))


def test_nine_windows_of_bfloat16_are_added_without_rounding() -> None:
    windows = Windows((1, 1, 3, 3, 1), 1, torch.empty(0, dtype=torch.bfloat16))
    windows.gradient.fill_(1 + 2**-7)
    found = windows.sum()
    assert found.dtype is torch.float32
    assert float(found[0, 0, 4]) == 9 * (1 + 2**-7)
