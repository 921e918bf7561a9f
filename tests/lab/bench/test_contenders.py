"""Every contender trains the engine's lanes: the same curves, up to the rounding of a few steps."""

import math
import os
import shutil
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lrwd_sweep.data import load
from lrwd_sweep.errors import HostError
from lrwd_sweep.lab import bench
from lrwd_sweep.lab.bench import ENGINE, Measurement, measurements
from lrwd_sweep.lab.bench.contenders import BASELINES, Curves, Lane, module
from lrwd_sweep.lab.bench.measurements import bookkeeping, contender, engine, products
from lrwd_sweep.runner.runner import complete
from lrwd_sweep.science.lattice import Cell, Lattice
from lrwd_sweep.spec.task import Task
from tests.refusal import assert_raises
from tests.small import CPU

TASK = Task(epochs=2)
ASKED = Measurement(TASK, Lattice((2**-9, 2**-8, 2**-7), (1.0, 8.0, 32.0)))
LANES: list[Lane] = [(Cell(2**-11, 128.0), 0), (Cell(2**-10, 16.0), 0), (Cell(2**-11, 128.0), 1)]
TOLERANCE = 1e-5  # of a loss after twelve float32 steps, which differ by 2e-7; other lanes are further apart
ROUNDED = 2e-3  # the same in bfloat16, whose products have eight bits


def noisy() -> list[tuple[Tensor, Tensor]]:
    """Return the digits with noise on every pixel: Adam divides the rounding of a constant one by itself."""
    stream, clean = torch.Generator().manual_seed(0), load("digits", Task().data_set)
    splits = (clean.train, clean.validation, clean.test)
    return [(split.x + 0.1 * torch.randn(split.x.shape, generator=stream), split.y) for split in splits]


@cache
def noisy_task() -> Task:
    return complete(TASK.changed(data=f"{__name__}:noisy"))


def curves(name: str, task: Task) -> Curves:
    with BASELINES.get(name, engine)(task, CPU) as train:
        return train(task, LANES)


@cache
def engines(**changes: str) -> Curves:
    return curves(ENGINE, noisy_task().changed(**changes))


def distance(a: Curves, b: Curves) -> float:
    assert a.keys() == b.keys() == set(LANES)
    pairs = [pair for lane in LANES for pair in zip(a[lane], b[lane], strict=True)]
    return max(abs(x - y) / x for x, y in pairs)


def apart(name: str, **changes: str) -> float:
    return distance(engines(**changes), curves(name, noisy_task().changed(**changes)))


def test_contenders_follow_the_engine() -> None:
    for name in ("plain", "graphs", "vmap"):
        for net in ("mlp-norm", "mlp"):
            assert apart(name, net=net) < TOLERANCE, (name, net)
        rounded = curves(name, noisy_task().changed(precision="bfloat16"))
        assert distance(engines(net="mlp-norm"), rounded) > 5 * TOLERANCE, name
        assert distance(engines(precision="bfloat16"), rounded) < ROUNDED, name


def test_compiled_network_needs_a_compiler_and_starts_afresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    complaint = r"no C\+\+ compiler \(no-such-compiler\); install one, or set CXX"
    assert_raises(complaint, curves, "compiled", noisy_task(), error=HostError)
    traced = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda net: traced(net, backend="eager"))
    monkeypatch.setattr("shutil.which", lambda name: name)
    assert apart("compiled", net="mlp-norm") < TOLERANCE


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which(os.environ.get("CXX", "g++")), reason="no C++ compiler")
def test_every_contender_follows_the_engine() -> None:
    for names, net in (("plain", "graphs", "vmap"), "cnn-norm"), (("processes", "compiled"), "mlp-norm"):
        for name in names:
            assert apart(name, net=net) < TOLERANCE, name


def pictures() -> list[tuple[Tensor, Tensor]]:
    """Return a few dark images, none for testing: rounding grows with pixels that are not standardised."""
    stream = torch.Generator().manual_seed(0)
    images = [torch.randint(4, (n, 1, 8, 8), generator=stream, dtype=torch.uint8) for n in (256, 64)]
    return [(x, torch.arange(len(x)) % 10) for x in images]


def test_contenders_follow_the_engine_on_images_of_bytes_without_a_test_split() -> None:
    for name, standardize in (("plain", True), ("plain", False), ("vmap", True)):
        task = complete(TASK.changed(data=f"{__name__}:pictures", epochs=1, standardize=standardize))
        expected, found = curves(ENGINE, task), curves(name, task)
        for lane, (loss, of_test) in expected.items():
            close = pytest.approx((loss, math.nan), rel=TOLERANCE, nan_ok=True)
            assert math.isnan(of_test)
            assert found[lane] == close, (name, standardize)


def test_threads_are_one_or_all_whichever_is_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = torch.get_num_threads()
    for best in (1, 2):
        seconds = {best: 1.0, 3 - best: 2.0}
        monkeypatch.setattr(measurements, "_seconds", lambda *_, s=seconds: s[torch.get_num_threads()])
        torch.set_num_threads(2)
        found = contender(replace(ASKED, name="plain", lanes=(1,), task=TASK.changed(epochs=1)))
        assert (found, torch.get_num_threads()) == ({"rate": 6.0}, best)
    torch.set_num_threads(threads)


def test_every_number_of_lanes_is_timed_and_every_lane_is_proposed_and_stored() -> None:
    asked = replace(ASKED, task=TASK.changed(epochs=1))
    found = measurements.scaling(replace(asked, lanes=(1, 3)))
    assert (len(found["seconds"]), min(*found["seconds"], found["at_once"]) > 0) == (2, True)
    line = bench.fit_line({lanes: 2.5 + 0.3 * lanes for lanes in bench.log_spaced(5)})  # of three points
    assert line is not None
    assert (line.fixed_seconds, line.seconds_per_lane) == pytest.approx((2.5, 0.3))
    found = bookkeeping(replace(asked, lanes=(20,)))
    assert found["lanes"] == 16  # a square lattice of at most 20
    assert min(found["sampler"], found["store"]) > 0


def test_floor_is_three_products_a_layer_and_one_in_validation(monkeypatch: pytest.MonkeyPatch) -> None:
    assert products(module(TASK), torch.zeros(64, 1, 8, 8)) == [(128, 64, 64), (128, 128, 64), (10, 128, 64)]
    monkeypatch.setattr(measurements, "SECONDS", 0.0)
    threads, weights = torch.get_num_threads(), (64 * 128, 128 * 128, 128 * 10)
    tasks = [replace(ASKED, task=TASK.changed(net=net)) for net in ("cnn-norm", "mlp-norm")]
    convolutions, perceptron = map(measurements.floor, tasks)
    torch.set_num_threads(threads)
    assert 0 < convolutions["validation"] < convolutions["flop"]
    validation = 2 * sum(weights) * 697 / TASK.steps_per_epoch
    step = 3 * 2 * 64 * sum(weights) - 2 * 64 * weights[0]  # the data have no gradient
    assert (perceptron["validation"], perceptron["flop"]) == (validation, step + validation)
    assert min(convolutions["rate"], perceptron["rate"]) > 0


def test_process_ignores_files_named_like_libraries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("random", "torch"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('imported')")
    assert replace(ASKED, task=TASK.changed(epochs=1)).in_process("plain", 1)["rate"] > 0


@pytest.mark.slow
def test_error_in_the_process_is_one_line() -> None:
    task = TASK.changed(net="torchvision:squeezenet1_1")
    complaint = "torchvision:squeezenet1_1' does not take images of "
    assert_raises(complaint, replace(ASKED, task=task).in_process, bench.FLOOR, 1)


@pytest.mark.slow
def test_command_line_is_timed_until_its_first_epoch_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 0 < bench.until_first_epoch() < sys.float_info.max
    monkeypatch.setattr(bench, "GRID", ("grid", "--device", "nowhere"))
    complaint = "^bench start-up: lrwd-sweep: unknown device 'nowhere'"
    assert_raises(complaint, bench.until_first_epoch, error=HostError)
