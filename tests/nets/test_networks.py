"""Every network of the catalog has its paper's size, and takes images or says which it needs."""

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


def test_parameter_counts_are_those_of_the_papers() -> None:
    for name, expected in SIZES.items():
        count = sum(map(math.prod, build(name, (3, 32, 32), 10).shapes.values()))
        assert count == pytest.approx(expected, rel=0.01), name


def test_catalog_and_builders_name_the_same_networks() -> None:
    assert {"mlp-norm", "mlp", "torchvision:NAME", *CONVOLUTIONAL} == set(NETWORKS)


def test_every_network_takes_grey_and_colour_images_from_8_pixels() -> None:
    for name in NETWORKS:
        for shape in ((1, 8, 8), (3, 9, 12)):
            assert name == "torchvision:NAME" or build(name, shape, 7).shapes, (name, shape)  # with a dry run


@pytest.mark.parametrize("shape", [(30,), (1, 7, 8)])
def test_small_images_and_vectors_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match=r"net='cnn-norm' takes images of at least 8×8, not .*mlp-norm"):
        build("cnn-norm", shape, 10)


def test_unknown_network_suggests_near_names() -> None:
    assert find_network("torchvision:resnet18") == "torchvision:resnet18"
    with pytest.raises(UnknownName, match="did you mean resnet"):
        find_network("resnet21")


def test_a_network_is_built_once() -> None:
    assert build("resnet20", (1, 8, 8), 10) is build("resnet20", (1, 8, 8), 10)
