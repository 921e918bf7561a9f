"""Every network of the catalog exists, has its paper's size, and takes images or says which it would."""

from __future__ import annotations

import math

import pytest

from lrwd_sweep.errors import UnknownName, UsageError
from lrwd_sweep.nets import CONVOLUTIONAL, build
from lrwd_sweep.spec.catalog import NETWORKS, find_network

SIZES = {  # parameters on CIFAR-10, as the papers give them
    "resnet20": 0.27e6,
    "resnet32": 0.46e6,
    "resnet56": 0.85e6,
    "wrn-28-10": 36.5e6,
    "shake26-2x32d": 2.9e6,
    "shake26-2x64d": 11.6e6,
    # 26 2x96d as Gastaldi defines it and the AdamW authors' code builds it; their paper writes 25.6M
    "shake26-2x96d": 26.2e6,
}


@pytest.mark.parametrize("name", SIZES)
def test_parameters_are_as_many_as_in_the_paper(name: str) -> None:
    count = sum(map(math.prod, build(name, (3, 32, 32), 10).shapes.values()))
    assert count == pytest.approx(SIZES[name], rel=0.01)


def test_catalog_and_builders_name_the_same_networks() -> None:
    assert {"mlp-norm", "mlp", "torchvision:NAME", *CONVOLUTIONAL} == set(NETWORKS)


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "torchvision:NAME"])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 9, 12)])
def test_every_network_takes_grey_and_colour_down_to_8_pixels(name: str, shape: tuple[int, int, int]) -> None:
    assert build(name, shape, 7).shapes  # a pass without arithmetic is part of building


@pytest.mark.parametrize("shape", [(30,), (1, 7, 8)])
def test_images_too_small_and_what_is_no_image_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match=r"--net cnn-norm takes images of at least 8×8, not .*mlp-norm"):
        build("cnn-norm", shape, 10)


def test_unknown_network_gets_the_near_names() -> None:
    assert find_network("torchvision:resnet18") == "torchvision:resnet18"
    with pytest.raises(UnknownName, match="did you mean resnet"):
        find_network("resnet21")


def test_a_network_is_built_once() -> None:
    assert build("resnet20", (1, 8, 8), 10) is build("resnet20", (1, 8, 8), 10)
