"""The numba loops give the results of torch's operators, lane by lane."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from lrwd_sweep.data import Splits
from lrwd_sweep.engine.arena import Arena
from lrwd_sweep.engine.trainer import PackTrainer
from lrwd_sweep.nets.mlp import Mlp, MlpLanes
from lrwd_sweep.nets.mlp_numba import COLUMNS, NumbaMlpLanes
from lrwd_sweep.nets.network import Lanes, Way
from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.science.optimizer import Optimizer
from tests.nets.conftest import task

CPU = torch.device("cpu")
NOISE = [torch.Generator()]  # not used


def _arena(net: Mlp, lanes: int, dtype: torch.dtype = torch.float64) -> Arena:
    """Lanes that differ."""
    stream = torch.Generator().manual_seed(1)
    arena = Arena.stack(net.init(stream), lanes, device=CPU, dtype=dtype)
    arena.theta.add_(0.1 * torch.randn(arena.theta.shape, generator=stream, dtype=dtype))
    return arena


def _batch(net: Mlp, batch: int, seed: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    stream = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, net.widths[0], generator=stream, dtype=dtype)
    return x, torch.randint(0, net.widths[-1], (batch,), generator=stream)


def _both(net: Mlp, lanes: int, batch: int) -> list[tuple[Arena, Lanes]]:
    found: list[tuple[Arena, Lanes]] = []
    by_torch, compiled = _arena(net, lanes), _arena(net, lanes)
    found.append((by_torch, MlpLanes(net, by_torch.named, by_torch.named_grad, batch)))
    found.append((compiled, net.lanes(compiled.named, compiled.named_grad, batch)))
    assert isinstance(found[1][1], NumbaMlpLanes)
    return found


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.integers(2, 9), min_size=2, max_size=5),
    st.booleans(),
    st.integers(1, 4),
    st.integers(3, 12),
)
@example([5, 129, 128, 3], True, 2, 64)  # whose products are multiplied in halves, one of them odd
def test_gradients_statistics_and_predictions_are_those_of_torch(
    widths: list[int], norm_logits: bool, lanes: int, batch: int
) -> None:
    net = Mlp(tuple(widths), norm_logits)
    (arena, expected), (other, found) = _both(net, lanes, batch)
    for seed in range(3):
        x, y = _batch(net, batch, seed)
        for one, two in zip(expected.gradient(x, y, NOISE), found.gradient(x, y, NOISE), strict=True):
            torch.testing.assert_close(two, one, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(other.grad, arena.grad, rtol=1e-8, atol=1e-10)
    images, _ = _batch(net, 2 * COLUMNS + 7, 99)
    predictions = (lanes.predictor().predict(images) for lanes in (found, expected))
    torch.testing.assert_close(*predictions, rtol=1e-9, atol=1e-11)


def test_numba_trains_float32_on_a_cpu() -> None:
    arena = _arena(Mlp(), 2, torch.float32)
    assert isinstance(Mlp().lanes(arena.named, arena.named_grad, 8), NumbaMlpLanes)
    assert isinstance(Mlp(way=Way(precision="bfloat16")).lanes(arena.named, arena.named_grad, 8), MlpLanes)


@pytest.mark.usefixtures("without_numba")
def test_torch_trains_without_numba() -> None:
    arena = _arena(Mlp(), 2, torch.float32)
    assert isinstance(Mlp().lanes(arena.named, arena.named_grad, 8), MlpLanes)


@pytest.mark.parametrize("number", [math.nan, math.inf, 1e200])
def test_overflow_in_a_lane_changes_no_bit_of_its_neighbours(number: float) -> None:
    net = Mlp((6, 8, 4), norm_logits=False)
    results = []
    for spoilt in (False, True):
        arena = _arena(net, 3)
        if spoilt:
            arena.named["weight2"][1] = number
        lanes = net.lanes(arena.named, arena.named_grad, 16)
        x, y = _batch(net, 16, 0)
        losses, logits = lanes.gradient(x, y, NOISE)
        assert bool(losses[1].isfinite()) is (not spoilt or number == 1e200)
        results.append([values[[0, 2]] for values in (losses, logits, arena.grad)])
    assert all(map(torch.equal, *results))


def test_padding_of_the_arena_stays_zero() -> None:
    net = Mlp((6, 8, 4))
    results = []
    for align in (1, 50):
        init = net.init(torch.Generator().manual_seed(0))
        arena = Arena.stack(init, 3, device=CPU, dtype=torch.float64, align=align)
        lanes = net.lanes(arena.named, arena.named_grad, 16)
        lanes.gradient(*_batch(net, 16, 0), NOISE)
        results.append(arena.grad)
    narrow, wide = results
    assert torch.equal(wide[:, : narrow.shape[1]], narrow)
    assert not wide[:, narrow.shape[1] :].any()


def test_training_by_torch_gives_the_same_curves(tiny64: Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    request, cells = task("mlp", epochs=3), [Cell(0.002, 0.01), Cell(0.001, 0.1)]
    compiled = PackTrainer(Optimizer.parse("adamw"), request, cells, 0, tiny64)
    trials = compiled.run()
    monkeypatch.setattr("lrwd_sweep.optim.jit.usable", lambda: False)
    by_torch = PackTrainer(Optimizer.parse("adamw"), request, cells, 0, tiny64)
    assert isinstance(by_torch.lanes, MlpLanes)
    assert by_torch.update.one_pass is None
    for one, two in zip(trials, by_torch.run(), strict=True):
        assert one.curves["val_loss"] == pytest.approx(two.curves["val_loss"], rel=1e-8)


def test_functions_compile_without_a_cache_folder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from numba.core import caching

    from lrwd_sweep.optim.jit import compiled

    def twice(x: int) -> int:
        return 2 * x

    monkeypatch.setattr(caching.CompileResultCacheImpl, "_locator_classes", [])
    assert compiled(twice)(21) == 42


BITS = """
import hashlib, logging, torch
from lrwd_sweep.engine.arena import Arena
from lrwd_sweep.nets.mlp import Mlp
logging.basicConfig(format="%(message)s")
logging.getLogger("lrwd_sweep").setLevel("INFO")
net, stream = Mlp(), torch.Generator().manual_seed(0)
arena = Arena.stack(net.init(stream), 2, device=torch.device("cpu"), dtype=torch.float32)
lanes = net.lanes(arena.named, arena.named_grad, 50)
x, y = torch.randn(50, 64, generator=stream), torch.arange(50) % 10
with torch.inference_mode():
    lanes.gradient(x, y, [stream])
    predicted = lanes.predictor().predict(x)
print(hashlib.sha256(arena.grad.numpy().tobytes() + predicted.numpy().tobytes()).hexdigest())
"""


def test_compiled_and_cached_loops_give_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    found, told = [], []
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", BITS], capture_output=True, text=True, check=True)
        found.append(done.stdout)
        told.append(done.stderr)
        assert list(tmp_path.rglob("mlp_numba.gradient*.nbc"))
    assert found[0] == found[1]
    assert told == ["compiling the training loops for this machine\n", ""]


def test_full_disk_changes_no_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    full = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))"  # no file may hold anything
    found, told = [], []
    for code in (f"{full}{BITS}", BITS):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        found.append(done.stdout)
        told.append(done.stderr.splitlines())
    assert found[0] == found[1]
    compiling, unkept = told[0]
    assert compiling == "compiling the training loops for this machine"
    assert unkept.startswith(f"numba's cache '{tmp_path}")
    assert "cannot be written (File too large); the training loops are compiled in every run" in unkept
    assert told[1] == [compiling]
