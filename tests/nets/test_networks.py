"""Networks of the catalog, of torchvision and their layers: sizes, inputs, dropout, Shake-Shake."""

from itertools import product

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import shufflenet_v2_x0_5
from torchvision.ops import StochasticDepth

from lrwd_sweep.errors import UnknownName
from lrwd_sweep.nets import CONVOLUTIONAL, network
from lrwd_sweep.nets.image_classifiers import Shake, ShakeShortcut
from lrwd_sweep.nets.modules import ModuleNetwork
from lrwd_sweep.nets.network import Network
from lrwd_sweep.nets.randomness import Dropout
from lrwd_sweep.spec.catalog import NETWORKS, DataSet, find_network
from lrwd_sweep.spec.task import Task
from tests.refusal import assert_raises

F64 = torch.float64
SMALL = ["mlp-norm", "mlp", "embed-norm", "cnn-norm", "cnn", "resnet20", "vgg16-bn", "shake26-2x32d"]
SIZES = {  # parameters on CIFAR-10, as the papers give them
    "resnet20": 0.27e6,
    "resnet32": 0.46e6,
    "resnet56": 0.85e6,
    "wrn-28-10": 36.5e6,
    "vgg16-bn": 14.7e6,
    "shake26-2x32d": 2.9e6,
    "shake26-2x64d": 11.6e6,
    # 26 2x96d as Gastaldi defines it and the AdamW authors' code builds it; their paper writes 25.6M
    "shake26-2x96d": 26.2e6,
}


def _built(name: str, shape: tuple[int, ...]) -> Network:
    return network(Task(net=name, sizes=DataSet(400, 100, 100, 10, shape)))


def _stream(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_catalog_has_the_networks_and_sizes_of_the_papers() -> None:
    for name, expected in SIZES.items():
        with torch.device("meta"):
            count = sum(value.numel() for value in CONVOLUTIONAL[name](3, 10).parameters())
        assert count == pytest.approx(expected, rel=0.01), name
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


ONES = torch.ones(40, 50, 6, 6)


def _dropped(layer: Dropout, seed: int = 0) -> Tensor:
    layer.noise = _stream(seed)
    out = layer(ONES)
    assert isinstance(out, Tensor)
    return out


def test_dropout_draws_once_for_the_dimensions_behind() -> None:
    for dims, draws in ((None, 72000), (2, 2000), (1, 40), (0, 1)):
        out = _dropped(Dropout(0.25, dims))
        units = out.reshape(draws, -1)
        assert torch.equal(units, units[:, :1].expand_as(units)), dims
        assert set(out.flatten().tolist()) <= {0.0, ONES[0, 0, 0, 0].div(0.75).item()}, dims
        share = (units[:, 0] == 0).double().mean().item()
        assert draws < 100 or share == pytest.approx(0.25, abs=5 * (0.25 * 0.75 / draws) ** 0.5), dims


def _shaken(a: Tensor, b: Tensor, seed: int) -> Tensor:
    shake = Shake()
    shake.noise = _stream(seed)
    out = shake(a, b)
    assert isinstance(out, Tensor)
    return out


def test_shake_mixes_by_different_coefficients_forward_and_backward() -> None:
    stream = _stream(1)
    a, b = (torch.randn(5, 3, 2, 2, generator=stream, dtype=F64).requires_grad_() for _ in range(2))
    alpha, beta = torch.rand((2, 5, 1, 1, 1), generator=_stream(7), dtype=F64)
    out = _shaken(a, b, 7)
    torch.testing.assert_close(out, alpha * a + (1 - alpha) * b)
    g = torch.randn(out.shape, generator=_stream(2), dtype=F64)
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
