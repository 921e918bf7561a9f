"""In bfloat16 products are rounded and nothing else is: what lasts stays float32, and lanes stay apart."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from lrwd_sweep.data import Splits
from lrwd_sweep.engine.arena import Arena
from lrwd_sweep.engine.choice import obstacle
from lrwd_sweep.engine.pack import PackTrainer
from lrwd_sweep.errors import UsageError
from lrwd_sweep.nets import Lanes, network
from lrwd_sweep.nets.loop import LoopLanes
from lrwd_sweep.nets.mlp import MlpLanes
from lrwd_sweep.nets.precision import compute_type, computing
from lrwd_sweep.nets.randomness import Dropout
from lrwd_sweep.nets.resnet import Shake
from lrwd_sweep.nets.vmap import VmapLanes
from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.science.optimizer import Optimizer
from lrwd_sweep.science.trial import Status
from tests.nets import awkward
from tests.nets.conftest import task

pytestmark = pytest.mark.usefixtures("without_numba")

CPU = torch.device("cpu")
HERE = "tests.nets.test_precision"
CELLS = [Cell(0.004, 1e-2), Cell(0.002, 0.1), Cell(0.001, 0.0)]
WAYS = [  # every way to train: network and engine
    ("mlp-norm", "native"),
    ("mlp", "native"),
    ("mlp-norm", "loop"),
    ("mlp", "vmap"),
    ("cnn-norm", "loop"),
    ("cnn", "vmap"),
    ("tests.nets.awkward:Normed", "loop"),
    ("tests.nets.awkward:Normed", "vmap"),
]
PRODUCTS = ("mm", "addmm", "bmm", "baddbmm", "convolution", "convolution_backward")


def _lanes(
    net: str, engine: str, precision: str = "bfloat16", dtype: torch.dtype = torch.float32
) -> tuple[Arena, Lanes]:
    """Three lanes that differ."""
    made = network(task(net, engine=engine, precision=precision))
    arena = Arena.stack(made.init(torch.Generator().manual_seed(0)), 3, device=CPU, dtype=dtype)
    arena.theta.mul_(torch.tensor([[1.0], [1.3], [0.8]], dtype=dtype))
    return arena, made.lanes(arena.named, arena.named_grad, 16)


def _passed(arena: Arena, lanes: Lanes, splits: Splits) -> dict[str, Tensor]:
    """What a few steps on one batch and an evaluation give."""
    x, y = splits.train.x[:16], splits.train.y[:16]
    with torch.inference_mode():
        for _ in range(3):  # for the running statistics
            noise = [torch.Generator().manual_seed(0) for _ in range(3)]
            losses, logits = lanes.gradient(x, y, noise)
        predicted = lanes.predictor().predict(splits.test.x)
    return {"gradient": arena.grad, "losses": losses, "logits": logits, "predicted": predicted}


def _buffers(lanes: Lanes) -> list[Tensor]:
    if isinstance(lanes, MlpLanes):
        return [buffer for norm in lanes.norms for buffer in (norm.running_mean, norm.running_var)]
    if isinstance(lanes, VmapLanes):
        return list(lanes.buffers.values())
    assert isinstance(lanes, LoopLanes)
    return [buffer for lane in lanes.modules for buffer in lane.buffers()]


def _rounded(x: Tensor) -> Tensor:
    return x.bfloat16().to(x.dtype)


@pytest.mark.parametrize(("net", "engine"), WAYS)
def test_results_agree_within_the_rounding_of_bfloat16(net: str, engine: str, tiny32: Splits) -> None:
    """How far rounding takes a result depends on the network, so it is measured: with parameters and images
    rounded once and all else in float32. Products round their operands and results, forward and backward,
    and come out at most about twice as far; and not nearer than a quarter of one rounding, 2⁻⁸.
    """
    exact = _passed(*_lanes(net, engine, "float32"), tiny32)
    found = _passed(*_lanes(net, engine), tiny32)
    arena, lanes = _lanes(net, engine, "float32")
    arena.theta.copy_(_rounded(arena.theta))
    once = _passed(arena, lanes, tiny32.to(CPU, torch.bfloat16).to(CPU, torch.float32))
    for name in ("gradient", "logits", "predicted"):
        for lane in range(3):
            reference = exact[name][lane]
            distance, yardstick = ((other[name][lane] - reference).norm() for other in (found, once))
            assert distance < 4 * yardstick, name
            assert 2**-10 < distance / reference.norm() < 0.2, name


class _Watched(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The types of what is multiplied."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.types: set[tuple[str, torch.dtype]] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = func.overloadpacket.__name__
        if name in PRODUCTS:
            self.types |= {(name, value.dtype) for value in args if isinstance(value, Tensor)}
        return func(*args, **kwargs or {})


@contextmanager
def _watched() -> Iterator[set[tuple[str, torch.dtype]]]:
    with _Watched() as watch:
        yield watch.types


@pytest.mark.parametrize(("net", "engine"), WAYS)
def test_every_product_is_of_bfloat16(net: str, engine: str, tiny32: Splits) -> None:
    arena, lanes = _lanes(net, engine)
    with _watched() as types:
        _passed(arena, lanes, tiny32)
    assert types
    assert {dtype for _, dtype in types} == {torch.bfloat16}
    assert ("convolution_backward" in dict(types)) is ("cnn" in net or "Normed" in net)
    arena, lanes = _lanes(net, engine, "float32")
    with _watched() as types:
        _passed(arena, lanes, tiny32)
    assert {dtype for _, dtype in types} == {torch.float32}


@pytest.mark.parametrize(("net", "engine"), WAYS)
def test_all_that_lasts_or_is_handed_out_is_float32(net: str, engine: str, tiny32: Splits) -> None:
    request = task(net, engine=engine, precision="bfloat16")
    trainer = PackTrainer(Optimizer.parse("adamw"), request, CELLS, 0, tiny32)
    assert {trial.status for trial in trainer.run()} == {Status.COMPLETE}
    lasting = [trainer.arena.theta, trainer.arena.grad, *trainer.update.family.moments()]
    lasting += [buffer for buffer in _buffers(trainer.lanes) if buffer.is_floating_point()]
    lasting += _passed(trainer.arena, trainer.lanes, tiny32).values()
    assert {value.dtype for value in lasting} == {torch.float32}
    # more digits than bfloat16 has: masters, not copies
    assert not torch.equal(trainer.arena.theta, _rounded(trainer.arena.theta))


@pytest.mark.parametrize(("net", "engine"), WAYS)
def test_in_float64_nothing_is_rounded(net: str, engine: str, tiny64: Splits) -> None:
    plain, asked = (
        _passed(*_lanes(net, engine, precision, torch.float64), tiny64)
        for precision in ("float32", "bfloat16")
    )
    assert all(torch.equal(plain[name], asked[name]) for name in plain)


def test_whether_vmap_can_train_a_network_is_seen_in_float64() -> None:
    assert obstacle(task("cnn", precision="bfloat16"), CPU) == ""


@pytest.mark.parametrize("place", range(3))
@pytest.mark.parametrize(("net", "engine"), WAYS)
def test_neighbours_of_a_lane_that_is_not_finite_keep_every_bit(
    net: str, engine: str, place: int, tiny32: Splits
) -> None:
    arena, lanes = _lanes(net, engine)
    expected = {name: value.clone() for name, value in _passed(arena, lanes, tiny32).items()}
    arena, lanes = _lanes(net, engine)
    arena.theta[place] = torch.nan
    found = _passed(arena, lanes, tiny32)
    for name, value in expected.items():
        assert found[name][place].isnan().any()
        for lane in {0, 1, 2} - {place}:
            assert torch.equal(found[name][lane], value[lane])


@pytest.mark.parametrize(("net", "engine"), [way for way in WAYS if way[1] != "vmap"])
def test_a_lane_keeps_every_bit_in_packs_of_any_size(net: str, engine: str, tiny32: Splits) -> None:
    request = task(net, engine=engine, precision="bfloat16")
    cells = [Cell(2.0 ** (-6 - k / 4), 0.01) for k in range(17)]
    adamw = Optimizer.parse("adamw")
    whole = PackTrainer(adamw, request, cells, 0, tiny32)
    trials = whole.run()
    for size in (1, 2, 5, 16):
        few = PackTrainer(adamw, request, cells[:size], 0, tiny32)
        assert few.run() == trials[:size]
        assert torch.equal(few.arena.theta, whole.arena.theta[:size])


def test_what_training_begins_with_and_draws_is_that_of_float32() -> None:
    nets = [network(task("cnn", precision=precision)) for precision in ("float32", "bfloat16")]
    first, other = (net.init(torch.Generator().manual_seed(3)) for net in nets)
    assert all(torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize("p", [0.1, 0.5, 1.0])
def test_dropout_drops_the_same_and_keeps_the_mean(p: float) -> None:
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        layer = Dropout(p).train()
        layer.noise = torch.Generator().manual_seed(1)
        found.append(layer(torch.ones(64, 64, dtype=dtype)))
        assert found[-1].dtype is dtype
    assert torch.equal(found[0].bfloat16(), found[1])


def test_branches_are_mixed_alike() -> None:
    a, b = torch.randn(2, 6, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        layer = Shake().train()
        layer.noise = torch.Generator().manual_seed(1)
        found.append(layer(a.to(dtype), b.to(dtype)))
        assert found[-1].dtype is dtype
    torch.testing.assert_close(found[1].float(), found[0], rtol=0.02, atol=0.02)


def test_packs_share_no_rounded_weights() -> None:
    with computing(torch.bfloat16, CPU):
        assert torch.is_autocast_enabled("cpu")
        assert not torch.is_autocast_cache_enabled()
    assert not torch.is_autocast_enabled("cpu")
    for dtype in (torch.float32, torch.float64):
        with computing(dtype, CPU):
            assert not torch.is_autocast_enabled("cpu")


def test_packs_in_threads_beside_each_other_give_the_same(tiny32: Splits) -> None:
    request = task("tests.nets.awkward:Tied", 6, engine="loop", precision="bfloat16")

    def train(_: int) -> object:
        return PackTrainer(Optimizer.parse("adamw"), request, CELLS, 0, tiny32).run()

    expected = train(0)
    with ThreadPoolExecutor(4) as threads:
        assert all(found == expected for found in threads.map(train, range(8)))


@pytest.mark.parametrize(
    ("precision", "dtype", "expected"),
    [
        ("float32", torch.float32, torch.float32),
        ("float32", torch.float64, torch.float64),
        ("bfloat16", torch.float32, torch.bfloat16),
        ("bfloat16", torch.float64, torch.float64),
    ],
)
def test_bfloat16_takes_the_place_of_float32_alone(
    precision: str, dtype: torch.dtype, expected: torch.dtype
) -> None:
    assert compute_type(precision, torch.zeros(1, dtype=dtype)) is expected


@pytest.mark.parametrize(
    ("kind", "engine"),
    [(kind, "loop") for kind in (*awkward.VECTORISED, *awkward.LOOPED)]
    + [(kind, "vmap") for kind in awkward.VECTORISED],
)
def test_anyones_network_trains_in_it(kind: type[nn.Module], engine: str, tiny32: Splits) -> None:
    losses = []
    for precision in ("float32", "bfloat16"):
        request = task(f"tests.nets.awkward:{kind.__name__}", 3, engine=engine, precision=precision)
        trials = PackTrainer(Optimizer.parse("adamw"), request, CELLS, 0, tiny32).run()
        losses.append([trial.metrics["val_loss"] for trial in trials])
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], rel=0.02)


class Filling(nn.Module):
    """Puts what it computed into a tensor of the type of its inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(64, 4)

    def forward(self, x: Tensor) -> Tensor:
        logits = torch.zeros(len(x), 4, dtype=x.dtype, device=x.device)
        logits[torch.arange(len(x))] = self.head(x.flatten(1))
        return logits


def test_a_network_that_cannot_is_refused_in_one_line() -> None:
    assert network(task(f"{HERE}:Filling", engine="loop")).shapes
    complaint = rf"net='{HERE}:Filling' cannot compute in bfloat16: RuntimeError: .* in Filling itself"
    with pytest.raises(UsageError, match=rf"{complaint}.*; choose precision='float32'$") as refused:
        network(task(f"{HERE}:Filling", engine="loop", precision="bfloat16"))
    assert "\n" not in str(refused.value)


class Standardised(nn.Module):
    """A convolution whose weight is looked at by `view`, which fails in other layouts than it had."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 6, 3), nn.Conv2d(6, 6, 3)
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        w = self.second.weight
        rows = w.view(len(w), -1)
        w = (rows / rows.norm(dim=1, keepdim=True)).view(w.shape)
        logits: Tensor = self.head(nn.functional.conv2d(self.first(x).tanh(), w).mean(dim=(2, 3)))
        return logits


@pytest.mark.parametrize("engine", ["loop", "vmap"])
def test_weights_keep_their_layout_where_a_network_counts_on_it(engine: str, tiny32: Splits) -> None:
    request = task(f"{HERE}:Standardised", engine=engine)
    trainer = PackTrainer(Optimizer.parse("adamw"), request, CELLS, 0, tiny32)
    assert trainer.arena.named["second.weight"][0].is_contiguous()
    assert {trial.status for trial in trainer.run()} == {Status.COMPLETE}
