"""torchvision's classifiers by name: trained as they are, or refused in one line."""

from __future__ import annotations

import pytest
import torch

from lrwd_sweep.data import Splits
from lrwd_sweep.engine.pack import PackTrainer
from lrwd_sweep.errors import UnknownName, UsageError
from lrwd_sweep.nets import ModuleNetwork, build, of_seed
from lrwd_sweep.nets.randomness import Dropout
from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.science.optimizer import Optimizer
from tests.nets.conftest import task


def _network(name: str, shape: tuple[int, ...]) -> ModuleNetwork:
    network = build(f"torchvision:{name}", shape, 10)
    assert isinstance(network, ModuleNetwork)
    return network


def test_parameters_are_torchvisions_in_name_and_order() -> None:
    from torchvision.models import shufflenet_v2_x0_5

    theirs = shufflenet_v2_x0_5(num_classes=10)
    assert list(_network("shufflenet_v2_x0_5", (1, 8, 8)).shapes) == [n for n, _ in theirs.named_parameters()]


def test_grey_images_are_seen_in_every_colour() -> None:
    grey, colour = (_network("shufflenet_v2_x0_5", shape) for shape in ((1, 32, 32), (3, 32, 32)))
    init = colour.init(torch.Generator().manual_seed(0))
    x = torch.randn(4, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    logits = []
    for network, images in ((grey, x), (colour, x.repeat(1, 3, 1, 1))):
        theta = {name: value[None].float() for name, value in init.items()}
        grad = {name: torch.zeros_like(value) for name, value in theta.items()}
        logits.append(network.lanes(theta, grad, 4).predictor().predict(images))
    assert torch.equal(*logits)
    with pytest.raises(UsageError, match="1 or 3 channels, not 2×32×32"):
        build("torchvision:shufflenet_v2_x0_5", (2, 32, 32), 10)


@pytest.mark.parametrize("name", ["resnet81", "fasterrcnn_resnet50_fpn", "NAME", ""])
def test_what_is_no_classifier_there_is_unknown(name: str) -> None:
    with pytest.raises(UnknownName, match=r"unknown classifier of torchvision\.models"):
        build(f"torchvision:{name}", (1, 8, 8), 10)


@pytest.mark.parametrize("name", ["squeezenet1_1", "vit_b_16", "maxvit_t"])
def test_images_that_are_too_small_are_refused_in_one_line(name: str) -> None:
    with pytest.raises(UsageError) as refused:
        build(f"torchvision:{name}", (1, 8, 8), 10)
    text = str(refused.value)
    assert text.startswith(f"net='torchvision:{name}' does not take images of 1×8×8 (")
    assert "\n" not in text
    assert "resnet20" in text


@pytest.mark.parametrize("name", ["googlenet", "swin_t"])
def test_constructors_that_need_telling_are_told(name: str) -> None:
    assert _network(name, (3, 32, 32)).trained


def test_dropout_and_stochastic_depth_are_ours() -> None:
    from torchvision.ops import StochasticDepth

    module = _network("efficientnet_b0", (3, 32, 32)).module
    found = [layer for layer in module.modules() if isinstance(layer, Dropout)]
    assert {layer.dims for layer in found} == {None, 1}
    assert not [part for part in module.modules() if isinstance(part, torch.nn.Dropout | StochasticDepth)]


def test_lanes_with_dropout_repeat_and_keep_apart(tiny32: Splits) -> None:
    # mobilenet_v3_small has dropout; two lanes of one cell are one lane twice
    request = task("torchvision:mobilenet_v3_small", epochs=1)
    cell = Cell(0.001, 0.01)
    runs = []
    for cells in ([cell, cell], [cell]):
        trainer = PackTrainer(Optimizer.parse("adamw"), request, cells, 0, tiny32)
        trainer.run()
        runs += list(trainer.arena.theta)
    assert torch.equal(runs[0], runs[1])
    assert torch.equal(runs[0], runs[2])


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        ("resnet18", torch.contiguous_format),
        ("resnext50_32x4d", torch.channels_last),  # as wide, in groups
        ("squeezenet1_1", torch.channels_last),
    ],
)
def test_wide_dense_convolutions_are_channels_first_on_a_cpu(name: str, layout: torch.memory_format) -> None:
    net = _network(name, (3, 32, 32))
    for device, expected in (("cpu", layout), ("cuda", torch.channels_last)):
        placed = of_seed(net, torch.Generator().manual_seed(0), torch.device(device))
        weights = [value for value in placed.init(torch.Generator()).values() if value.dim() == 4]
        assert any(not weight.is_contiguous() for weight in weights) == (expected is torch.channels_last)
        assert of_seed(net, torch.Generator(), torch.device(device)) is placed  # what it has found out stays
