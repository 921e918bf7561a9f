"""Whoever races trains the engine's lanes: the same curves, to the rounding of a few steps."""

from __future__ import annotations

import math
import os
import shutil
from functools import cache
from importlib import import_module

import pytest
import torch
from torch import Tensor, nn

from lrwd_sweep.data import digits
from lrwd_sweep.errors import UnknownName, UsageError
from lrwd_sweep.lab.bench import contenders
from lrwd_sweep.lab.bench.contenders import ENGINE, ENTRIES, entries
from lrwd_sweep.lab.bench.made_up import cifar10
from lrwd_sweep.lab.bench.task import Contender, Curves, Lane
from lrwd_sweep.runner.runner import complete
from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.spec.catalog import DATA_SETS
from lrwd_sweep.spec.task import Task
from tests.lab.bench.made_up import TRAINING

LANES: list[Lane] = [(Cell(2**-11, 128.0), 0), (Cell(2**-10, 16.0), 0), (Cell(2**-11, 128.0), 1)]
CPU = torch.device("cpu")
TOLERANCE = 1e-5  # of a loss after twelve float32 steps, which differ by 2e-7; other lanes are further apart
ROUNDED = 2e-3  # the same in bfloat16, whose products have eight bits


def run(name: str) -> Contender:
    (entry,) = (entry for entry in ENTRIES if entry.name == name)
    found: Contender = import_module(f"lrwd_sweep.lab.bench.{entry.module}").run
    return found


def noisy() -> list[tuple[Tensor, Tensor]]:
    """The digits with noise on every pixel.

    Where a pixel is the same in every image, its weights have no gradient but the rounding of a sum, which
    Adam divides by itself: there two ways to sum differ by 1e-3 of a loss after a few steps.
    """
    stream, clean = torch.Generator().manual_seed(0), digits.load()
    splits = (clean.train, clean.validation, clean.test)
    return [(split.x + 0.1 * torch.randn(split.x.shape, generator=stream), split.y) for split in splits]


@cache
def raced() -> Task:
    """What is raced, on these."""
    return complete(TRAINING.changed(data=f"{__name__}:noisy"))


def curves(name: str, task: Task | None = None) -> Curves:
    outcome = run(name)(task or raced(), LANES, CPU)
    assert outcome.seconds > 0
    return outcome.curves


def distance(a: Curves, b: Curves) -> float:
    """The largest relative difference of two losses of a lane and an epoch."""
    assert a.keys() == b.keys() == set(LANES)
    pairs = [pair for lane in LANES for pair in zip(a[lane], b[lane], strict=True)]
    return max(abs(x - y) / x for x, y in pairs)


@pytest.mark.parametrize("net", ["mlp-norm", "mlp", "cnn-norm"])
@pytest.mark.parametrize("name", ["plain", "graphs", "vmap"])
def test_it_trains_what_the_engine_trains(name: str, net: str) -> None:
    task = raced().changed(net=net)
    assert distance(curves(ENGINE, task), curves(name, task)) < TOLERANCE


@pytest.mark.parametrize("name", ["plain", "graphs", "vmap"])
def test_it_computes_in_the_precision_that_is_asked_for(name: str) -> None:
    rounded = raced().changed(precision="bfloat16")
    found = curves(name, rounded)
    assert distance(curves(name), found) > 5 * TOLERANCE
    assert distance(curves(ENGINE, rounded), found) < ROUNDED


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "svhn", "cifar10", "cifar100"])
def test_published_data_have_a_stand_in(name: str) -> None:
    task = complete(TRAINING.changed(data=f"lrwd_sweep.lab.bench.made_up:{name.replace('-', '_')}"))
    assert task.data_set == DATA_SETS[name]


@pytest.mark.parametrize("standardize", [True, False])
def test_images_in_bytes_are_trained_on_as_well(standardize: bool) -> None:
    task = TRAINING.changed(data=f"{__name__}:pictures", net="cnn", epochs=1, standardize=standardize)
    task = complete(task)
    assert distance(curves(ENGINE, task), curves("plain", task)) < TOLERANCE


@pytest.mark.parametrize("name", [ENGINE, "plain", "vmap"])
def test_without_a_test_split_there_is_no_test_loss(name: str) -> None:
    task = complete(TRAINING.changed(data=f"{__name__}:untested", epochs=1))
    for curve in curves(name, task).values():
        assert [math.isnan(value) for value in curve] == [False, True]


def untested() -> list[tuple[Tensor, Tensor]]:
    """Without a test split."""
    stream = torch.Generator().manual_seed(0)
    return [(torch.randn(count, 1, 8, 8, generator=stream), torch.arange(count) % 10) for count in (128, 64)]


def pictures() -> list[tuple[Tensor, Tensor]]:
    """A few of those that are made up, and dark: rounding grows with pixels that are not standardised."""
    return [(x[:count] // 64, y[:count]) for (x, y), count in zip(cifar10(), (256, 64, 64), strict=True)]


def test_a_process_per_core_trains_what_the_engine_trains() -> None:
    assert distance(curves(ENGINE), curves("processes")) < TOLERANCE


def test_the_compiled_network_is_begun_anew_for_every_lane(monkeypatch: pytest.MonkeyPatch) -> None:
    traced = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda net: traced(net, backend="eager"))
    assert distance(curves(ENGINE), curves("compiled")) < TOLERANCE


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which(os.environ.get("CXX", "g++")), reason="no C++ compiler")
def test_compiled_code_trains_what_the_engine_trains() -> None:
    assert distance(curves(ENGINE), curves("compiled")) < TOLERANCE


@pytest.mark.slow
def test_ray_trains_what_the_engine_trains() -> None:
    pytest.importorskip("ray")
    assert distance(curves(ENGINE), curves("ray")) < TOLERANCE


def test_the_tolerance_tells_lanes_seeds_and_decays_apart() -> None:
    first, other, again = (curves(ENGINE)[lane] for lane in LANES)
    (decayed_less,) = run(ENGINE)(raced(), [(Cell(2**-11, 16.0), 0)], CPU).curves.values()
    for one in (other, again, decayed_less):
        assert max(abs(x - y) / x for x, y in zip(first, one, strict=True)) > 5 * TOLERANCE


def test_the_engine_always_takes_part_and_comes_first() -> None:
    assert [entry.name for entry in entries(["vmap", "plain"])] == [ENGINE, "plain", "vmap"]
    assert entries()[0].name == ENGINE
    assert [entry.name for entry in entries()] == [ENGINE, "plain", "compiled", "processes", "ray", "vmap"]
    assert [entry.name for entry in entries(None, "cuda")] == [ENGINE, "plain", "compiled", "graphs", "vmap"]


@pytest.mark.parametrize(("name", "kind", "only"), [("graphs", "cpu", "cuda"), ("ray", "cuda", "cpu")])
def test_who_cannot_race_on_a_device_is_refused(name: str, kind: str, only: str) -> None:
    with pytest.raises(UsageError, match=f"--contenders {name} races on {only} alone, not on {kind}; leave"):
        entries(["plain", name], kind)


def test_a_contender_nobody_knows_or_named_twice_is_refused() -> None:
    with pytest.raises(UnknownName, match="did you mean plain"):
        entries(["plane"])
    with pytest.raises(UsageError, match="names plain twice"):
        entries(["plain", "plain"])


def test_what_this_machine_lacks_is_said_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setattr(contenders, "find_spec", lambda name: None)
    missing = {entry.name: entry.missing for entry in entries() if entry.missing}
    assert missing == {
        "compiled": "no C++ compiler (no-such-compiler); install one, or set CXX",
        "ray": "Ray is not installed; pip install 'lrwd-sweep[ray]'",
    }
