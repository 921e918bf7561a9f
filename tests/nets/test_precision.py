"""In bfloat16 only products are rounded: parameters, gradients and statistics stay float32."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from lrwd_sweep.data import Splits
from lrwd_sweep.engine.arena import Arena
from lrwd_sweep.engine.pack import PackTrainer
from lrwd_sweep.errors import UsageError
from lrwd_sweep.nets import Lanes, network
from lrwd_sweep.nets.loop import LoopLanes
from lrwd_sweep.nets.mlp import MlpLanes
from lrwd_sweep.nets.modules import VmapLanes
from lrwd_sweep.nets.precision import computing
from lrwd_sweep.nets.randomness import Dropout
from lrwd_sweep.nets.resnet import Shake
from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.science.trial import Status
from tests.nets import awkward
from tests.nets.conftest import ADAMW, WAYS, task

pytestmark = pytest.mark.usefixtures("without_numba")

CPU = torch.device("cpu")
HERE = "tests.nets.test_precision"
CELLS = [Cell(0.004, 1e-2), Cell(0.002, 0.1), Cell(0.001, 0.0)]
PRODUCTS = ("mm", "addmm", "bmm", "baddbmm", "convolution", "convolution_backward")


def _lanes(net: str, engine: str, precision: str, dtype: torch.dtype = torch.float32) -> tuple[Arena, Lanes]:
    """Make three lanes that differ."""
    made = network(task(net, engine=engine, precision=precision))
    arena = Arena.stack(made.init(torch.Generator().manual_seed(0)), 3, device=CPU, dtype=dtype)
    arena.theta.mul_(torch.tensor([[1.0], [1.3], [0.8]], dtype=dtype))
    return arena, made.lanes(arena.named, arena.named_grad, 16)


def _passed(arena: Arena, lanes: Lanes, splits: Splits) -> dict[str, Tensor]:
    """Return what three steps on one batch and an evaluation give."""
    with torch.inference_mode():
        for _ in range(3):  # for the running statistics
            noise = [torch.Generator().manual_seed(0) for _ in range(3)]
            losses, logits = lanes.gradient(splits.train.x[:16], splits.train.y[:16], noise)
        predicted = lanes.predictor().predict(splits.test.x)
    return {"gradient": arena.grad, "losses": losses, "logits": logits, "predicted": predicted}


def _buffers(lanes: Lanes) -> list[Tensor]:
    if isinstance(lanes, MlpLanes):
        return [buffer for norm in lanes.norms for buffer in (norm.running_mean, norm.running_var)]
    if isinstance(lanes, VmapLanes):
        return list(lanes.buffers.values())
    loops = lanes.modules if isinstance(lanes, LoopLanes) else []
    return [buffer for lane in loops for buffer in lane.buffers()]


def _rounded(x: Tensor) -> Tensor:
    return x.bfloat16().to(x.dtype)


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The types of the operands of products."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.types: set[tuple[str, torch.dtype]] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in PRODUCTS:
            self.types |= {(name, value.dtype) for value in args if isinstance(value, Tensor)}
        return func(*args, **kwargs or {})


def _passed_watched(
    net: str, engine: str, precision: str, dtype: torch.dtype, splits: Splits
) -> dict[str, Tensor]:
    arena, lanes = _lanes(net, engine, precision)
    with _Watch() as watch:
        found = _passed(arena, lanes, splits)
    assert {operand for _, operand in watch.types} == {dtype}, (net, engine)
    convolves = engine != "native" and ("cnn" in net or "Normed" in net)
    assert ("convolution_backward" in dict(watch.types)) is convolves, (net, engine)
    return found


def test_every_product_and_nothing_else_is_rounded(tiny32: Splits, tiny64: Splits) -> None:
    """The yardstick: parameters and images rounded once, all else in float32. Products round their operands
    and results, forward and backward: at most about twice as far, and at least a quarter of a rounding, 2⁻⁸.
    """
    for net, engine in WAYS:
        exact, found = (
            _passed_watched(net, engine, precision, dtype, tiny32)
            for precision, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16))
        )
        arena, lanes = _lanes(net, engine, "float32")
        arena.theta.copy_(_rounded(arena.theta))
        once = _passed(arena, lanes, tiny32.to(CPU, torch.bfloat16).to(CPU, torch.float32))
        for name in ("gradient", "logits", "predicted"):
            for lane in range(3):
                reference = exact[name][lane]
                distance, yardstick = ((other[name][lane] - reference).norm() for other in (found, once))
                assert distance < 4 * yardstick, (net, engine, name)
                assert 2**-10 < distance / reference.norm() < 0.2, (net, engine, name)
        plain, asked = (
            _passed(*_lanes(net, engine, precision, torch.float64), tiny64)
            for precision in ("float32", "bfloat16")
        )
        assert all(torch.equal(plain[name], asked[name]) for name in plain), (net, engine)  # float64 stays


def test_what_lasts_or_is_returned_is_float32(tiny32: Splits) -> None:
    for net, engine in WAYS:
        request = task(net, engine=engine, precision="bfloat16")
        trainer = PackTrainer(ADAMW, request, CELLS, 0, tiny32)
        assert {trial.status for trial in trainer.run()} == {Status.COMPLETE}
        lasting = [trainer.arena.theta, trainer.arena.grad, *trainer.update.family.moments()]
        lasting += [buffer for buffer in _buffers(trainer.lanes) if buffer.is_floating_point()]
        lasting += _passed(trainer.arena, trainer.lanes, tiny32).values()
        assert {value.dtype for value in lasting} == {torch.float32}, (net, engine)
        # more digits than bfloat16 has: masters, not copies
        assert not torch.equal(trainer.arena.theta, _rounded(trainer.arena.theta)), (net, engine)


def test_initialisation_and_random_layers_draw_as_in_float32() -> None:
    nets = [network(task("cnn", precision=precision)) for precision in ("float32", "bfloat16")]
    first, other = (net.init(torch.Generator().manual_seed(3)) for net in nets)
    assert all(torch.equal(first[name], other[name]) for name in first)
    a, b = torch.randn(2, 6, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    for layer, inputs, tolerance in (
        *((Dropout(p), [torch.ones(64, 64)], 0.004) for p in (0.1, 0.5, 1.0)),
        (Shake(), [a, b], 0.02),
    ):
        found = []
        for dtype in (torch.float32, torch.bfloat16):
            layer.noise = torch.Generator().manual_seed(1)
            found.append(layer(*(x.to(dtype) for x in inputs)))
            assert found[-1].dtype is dtype, layer
        torch.testing.assert_close(found[1].float(), found[0], rtol=tolerance, atol=tolerance)


def test_packs_in_threads_share_no_rounded_weights(tiny32: Splits) -> None:
    with computing(torch.bfloat16, CPU):
        assert torch.is_autocast_enabled("cpu")
        assert not torch.is_autocast_cache_enabled()
    for dtype in (torch.float32, torch.float64):
        with computing(dtype, CPU):
            assert not torch.is_autocast_enabled("cpu")
    request = task("tests.nets.awkward:Tied", 6, engine="loop", precision="bfloat16")

    def train(_: int) -> object:
        return PackTrainer(ADAMW, request, CELLS, 0, tiny32).run()

    expected = train(0)
    with ThreadPoolExecutor(4) as threads:
        assert all(found == expected for found in threads.map(train, range(8)))


@pytest.mark.parametrize("engine", ["loop", "vmap"])
def test_user_networks_train_in_bfloat16(engine: str, tiny32: Splits) -> None:
    for kind in (*awkward.VECTORISED, *(awkward.LOOPED if engine == "loop" else ())):
        exact, found = (
            PackTrainer(
                ADAMW,
                task(f"tests.nets.awkward:{kind.__name__}", 1, engine=engine, precision=precision),
                CELLS[:1],
                0,
                tiny32,
            )
            .run()[0]
            .metrics["val_loss"]
            for precision in ("float32", "bfloat16")
        )
        assert found != exact, kind
        assert found == pytest.approx(exact, rel=0.02), kind


class Filling(awkward.Base):  # writes logits into a tensor of the type of its inputs
    def logits(self, x: Tensor) -> Tensor:
        logits = torch.zeros(len(x), 4, dtype=x.dtype, device=x.device)
        logits[torch.arange(len(x))] = self.head(x)
        return logits


def test_network_that_cannot_compute_in_bfloat16_is_refused_in_one_line() -> None:
    assert network(task(f"{HERE}:Filling", engine="loop")).shapes
    complaint = rf"^net='{HERE}:Filling' cannot compute in bfloat16: RuntimeError: .* in Filling itself"
    with pytest.raises(UsageError, match=rf"{complaint}.*; choose precision='float32'$") as refused:
        network(task(f"{HERE}:Filling", engine="loop", precision="bfloat16"))
    assert "\n" not in str(refused.value)


class Standardised(awkward.Base):  # reads a weight by `view`, which fails in other layouts
    def make(self) -> None:
        self.first, self.second = nn.Conv2d(1, 6, 3), nn.Conv2d(6, 6, 3)
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Any:
        w = self.second.weight
        rows = w.view(len(w), -1)
        w = (rows / rows.norm(dim=1, keepdim=True)).view(w.shape)
        return self.head(nn.functional.conv2d(self.first(x).tanh(), w).mean(dim=(2, 3)))


def test_weights_keep_the_layout_that_a_network_needs(tiny32: Splits) -> None:
    for engine in ("loop", "vmap"):
        trainer = PackTrainer(ADAMW, task(f"{HERE}:Standardised", engine=engine), CELLS, 0, tiny32)
        assert trainer.arena.named["second.weight"][0].is_contiguous()
        assert {trial.status for trial in trainer.run()} == {Status.COMPLETE}
