"""Whoever races trains the engine's lanes: the same curves, to the rounding of a few steps."""

from __future__ import annotations

import os
import shutil
from importlib import import_module

import pytest
from torch import nn

from lrwd_sweep.bench import contenders
from lrwd_sweep.bench.contenders import ENGINE, ENTRIES, entries
from lrwd_sweep.bench.task import Contender, Curves, Lane
from lrwd_sweep.errors import UnknownName, UsageError
from lrwd_sweep.lattice import Cell
from tests.bench.made_up import TRAINING

LANES: list[Lane] = [(Cell(2**-11, 128.0), 0), (Cell(2**-10, 16.0), 0), (Cell(2**-11, 128.0), 1)]
TOLERANCE = 1e-3  # of a loss after twelve float32 steps; other lanes are further apart


def run(name: str) -> Contender:
    (entry,) = (entry for entry in ENTRIES if entry.name == name)
    found: Contender = import_module(f"lrwd_sweep.bench.{entry.module}").run
    return found


def curves(name: str, net: str = "mlp-norm") -> Curves:
    outcome = run(name)(TRAINING.changed(net=net), LANES)
    assert outcome.seconds > 0
    return outcome.curves


def distance(a: Curves, b: Curves) -> float:
    """The largest relative difference of two losses of a lane and an epoch."""
    assert a.keys() == b.keys() == set(LANES)
    pairs = [pair for lane in LANES for pair in zip(a[lane], b[lane], strict=True)]
    return max(abs(x - y) / x for x, y in pairs)


@pytest.mark.parametrize("net", ["mlp-norm", "mlp", "cnn-norm"])
@pytest.mark.parametrize("name", ["plain", "vmap"])
def test_it_trains_what_the_engine_trains(name: str, net: str) -> None:
    assert distance(curves(ENGINE, net), curves(name, net)) < TOLERANCE


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
    (decayed_less,) = run(ENGINE)(TRAINING, [(Cell(2**-11, 16.0), 0)]).curves.values()
    for one in (other, again, decayed_less):
        assert max(abs(x - y) / x for x, y in zip(first, one, strict=True)) > 5 * TOLERANCE


def test_the_engine_always_takes_part_and_comes_first() -> None:
    assert [entry.name for entry in entries(["vmap", "plain"])] == [ENGINE, "plain", "vmap"]
    assert entries()[0].name == ENGINE
    assert len(entries()) == 6


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
