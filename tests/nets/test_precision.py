"""In bfloat16 only products are rounded: parameters, gradients and statistics stay float32."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from lrwd_sweep.data import Splits
from lrwd_sweep.engine.lane_state import Arena
from lrwd_sweep.nets import network
from lrwd_sweep.nets.network import Lanes
from lrwd_sweep.science.trial import Status
from tests.nets import awkward
from tests.refusal import assert_raises
from tests.small import CELLS, CPU, F64, WAYS, pack, splits, task

pytestmark = pytest.mark.usefixtures("without_numba")

HERE = "tests.nets.test_precision"
PRODUCTS = ("mm", "addmm", "bmm", "baddbmm", "convolution", "convolution_backward")


def _lanes(net: str, engine: str, precision: str, dtype: torch.dtype = torch.float32) -> tuple[Arena, Lanes]:
    made = network(task(net, engine=engine, precision=precision))
    arena = Arena.stack(made.init(torch.Generator().manual_seed(0)), 3, device=CPU, dtype=dtype)
    arena.theta.mul_(torch.tensor([[1.0], [1.3], [0.8]], dtype=dtype))
    return arena, made.lanes(arena.named, arena.named_grad, 16)


def _passed(arena: Arena, lanes: Lanes, data: Splits) -> dict[str, Tensor]:
    """Return what three steps on one batch and an evaluation give."""
    with torch.inference_mode():
        for _ in range(3):  # for the running statistics
            noise = [torch.Generator().manual_seed(0) for _ in range(3)]
            losses, logits = lanes.gradient(data.train.x[:16], data.train.y[:16], noise)
        predicted = lanes.predictor().predict(data.test.x)
    return {"gradient": arena.grad, "losses": losses, "logits": logits, "predicted": predicted}


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


def _passed_watched(net: str, engine: str, precision: str, dtype: torch.dtype) -> dict[str, Tensor]:
    arena, lanes = _lanes(net, engine, precision)
    with _Watch() as watch:
        found = _passed(arena, lanes, splits())
    assert {operand for _, operand in watch.types} == {dtype}, (net, engine)
    convolves = engine != "native" and ("cnn" in net or "Normed" in net)
    assert ("convolution_backward" in dict(watch.types)) is convolves, (net, engine)
    return found


def test_every_product_and_nothing_else_is_rounded() -> None:
    """The yardstick: parameters and images rounded once, all else in float32. Products round their operands
    and results, forward and backward: at most about twice as far, and at least a quarter of a rounding, 2⁻⁸.
    """
    for net, engine in WAYS:
        exact = _passed_watched(net, engine, "float32", torch.float32)
        found = _passed_watched(net, engine, "bfloat16", torch.bfloat16)
        arena, lanes = _lanes(net, engine, "float32")
        arena.theta.copy_(_rounded(arena.theta))
        once = _passed(arena, lanes, splits().to(CPU, torch.bfloat16).to(CPU, torch.float32))
        for name in ("gradient", "logits", "predicted"):
            for lane in range(3):
                reference = exact[name][lane]
                distance, yardstick = ((other[name][lane] - reference).norm() for other in (found, once))
                assert distance < 4 * yardstick, (net, engine, name)
                assert 2**-10 < distance / reference.norm() < 0.2, (net, engine, name)
        both = [_lanes(net, engine, precision, torch.float64) for precision in ("float32", "bfloat16")]
        plain, asked = (_passed(*each, splits(F64)) for each in both)
        assert all(torch.equal(plain[name], asked[name]) for name in plain), (net, engine)  # float64 stays


def test_what_lasts_or_is_returned_is_float32() -> None:
    for net, engine in WAYS:
        request = task(net, engine=engine, precision="bfloat16")
        trainer = pack("adamw", request)
        assert {trial.status for trial in trainer.run()} == {Status.COMPLETE}
        lasting = [trainer.arena.theta, trainer.arena.grad, *trainer.update.family.moments()]
        kept = trainer.lanes.state().items()
        lasting += [one for name, one in kept if one.is_floating_point() and "(number)" not in name]
        lasting += _passed(trainer.arena, trainer.lanes, splits()).values()
        assert {value.dtype for value in lasting} == {torch.float32}, (net, engine)
        # more digits than bfloat16 has: masters, not copies
        assert not torch.equal(trainer.arena.theta, _rounded(trainer.arena.theta)), (net, engine)


def test_user_networks_train_in_bfloat16() -> None:
    for engine in ("loop", "vmap"):
        for kind in (*awkward.VECTORISED, *(awkward.LOOPED if engine == "loop" else ())):
            of = task(f"tests.nets.awkward:{kind.__name__}", 1, engine=engine)
            rounded = of.changed(precision="bfloat16")
            one, other = (
                pack("adamw", each, CELLS[:1]).run()[0].metrics["val_loss"] for each in (of, rounded)
            )
            assert one != other == pytest.approx(one, rel=0.02), (kind, engine)


class Filling(awkward.Base):  # writes logits into a tensor of the type of its inputs
    def logits(self, x: Tensor) -> Tensor:
        logits = torch.zeros(len(x), 4, dtype=x.dtype, device=x.device)
        logits[torch.arange(len(x))] = self.head(x)
        return logits


def test_network_that_cannot_compute_in_bfloat16_is_refused_in_one_line() -> None:
    of = task(f"{HERE}:Filling", engine="loop")
    assert network(of).shapes
    complaint = rf"^net='{HERE}:Filling' cannot compute in bfloat16: RuntimeError: .* in Filling itself"
    assert_raises(rf"{complaint}.*; choose precision='float32'$", network, of.changed(precision="bfloat16"))
