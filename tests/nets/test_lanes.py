"""A lane equals a lone module under torch.optim, whatever its neighbours; bfloat16 rounds only products."""

import math
import re
from dataclasses import replace
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from lrwd_sweep.data import Splits
from lrwd_sweep.engine.choice import chosen, obstacle
from lrwd_sweep.engine.lane_state import Arena, generator
from lrwd_sweep.nets import network
from lrwd_sweep.nets.cnn import CnnLanes
from lrwd_sweep.nets.loop import LoopLanes
from lrwd_sweep.nets.network import Lanes
from lrwd_sweep.nets.randomness import seeded
from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.science.trial import Status
from lrwd_sweep.spec.catalog import DataSet
from lrwd_sweep.spec.task import Task
from tests import small
from tests.nets import awkward
from tests.nets.test_networks import gpt_options
from tests.refusal import assert_raises
from tests.small import CELLS, CPU, F64, ILL, WAYS, WELL, begun, pack, splits, task

AWKWARD: tuple[type[nn.Module], ...] = (*awkward.VECTORISED, *awkward.LOOPED)
NORMED = "tests.nets.awkward:Normed"


def _awkward(kind: type[nn.Module], engine: str = "loop", epochs: int = 17, **options: Any) -> Task:
    return task(f"tests.nets.awkward:{kind.__name__}", epochs, schedule="fixed", engine=engine, **options)


def _begun(of: Task, kind: type[nn.Module] | None) -> nn.Module:
    """Make the network of seed 3 without this package, unless its layers or shapes need it."""
    if kind in (None, awkward.Dropping, awkward.Lazy):
        return begun(of)
    with seeded(int(torch.randint(2**62, (), generator=generator(3, "parameters")))):
        return kind().double().train()


LARGE = "shake26-2x32d", "torchvision:mobilenet_v3_small"
CASES = [
    *(("cnn-norm", 9, 2, {}), ("cnn", 9, 2, {}), ("resnet20", 3, 2, {})),
    *((kind, 9, 2, {}) for kind in AWKWARD),
    *(("mlp-norm", 9, 1, {"train": "weight[13]|bias"}), ("cnn", 9, 1, {"train": "head|body.3"})),
    *(("resnet20", 2, 1, {"train": "head|blocks"}), (NORMED, 9, 1, {"train": "hidden|bias"})),
    *(("gpt", 3, 2, gpt_options(**form)) for form in ({}, {"tie": True}, {"weight_norm": True})),
    *(pytest.param(net, 1, 1, {}, marks=pytest.mark.slow) for net in LARGE),
]


@pytest.mark.parametrize(("net", "epochs", "lanes", "options"), CASES)
def test_lane_equals_the_module_under_torch_optim(net: Any, epochs: int, lanes: int, options: Any) -> None:
    if isinstance(net, str):
        kind, request = None, task(net, epochs, schedule="fixed", engine="loop", **options)
    else:
        kind, request = net, _awkward(net, "vmap" if net in awkward.VECTORISED else "loop", epochs)
    # A shift before a normalisation has only rounding errors as gradient, which Adam divides by ε = 1e-8.
    bound = 1e-9 if net == "torchvision:mobilenet_v3_small" else 1e-10
    data, before = small.token_splits(F64) if net == "gpt" else splits(F64), torch.get_rng_state()
    for one in (request, *([replace(request, engine="vmap")] if options else [])):
        trainer = pack("adamw:lr-scaled", one, CELLS[:lanes], seed=3, data=data)
        trials = trainer.run()
        assert torch.equal(torch.get_rng_state(), before)  # draws come from the lanes' own generators
        for lane, cell in enumerate(CELLS[:lanes]):
            module = _begun(one, kind)
            left_out = {n: v.clone() for n, v in module.named_parameters() if not v.requires_grad}
            small.train_alone(module, one, cell, data.train)
            parameters = dict(module.eval().named_parameters())
            assert kind or trainer.arena.named.keys() == parameters.keys() - left_out.keys()
            assert kind or left_out.keys() == {n for n in parameters if not re.search(one.train, n)}
            for name, value in trainer.arena.named.items():
                assert (value[lane] - parameters[name]).abs().max() < bound, name
            found: Any = trainer.lanes
            trained = found.module if one.engine == "vmap" else found.modules[lane]
            for name, value in left_out.items():
                assert torch.equal(trained.get_parameter(name), value), name
            for name, split in (("val", data.validation), ("test", data.test)):
                with torch.no_grad():
                    loss = small.loss_alone(module(split.x.clone()), split.y).item()
                assert trials[lane].metrics[f"{name}_loss"] == pytest.approx(loss, abs=1e-10), name


def test_engines_and_patterns_that_do_not_fit_are_refused() -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"train": "zzz"}, "train='zzz' matches no parameter of the network that could train; they are wei"),
        ({"train": "("}, r"train='\(' is not a regular expression"),
        ({"train": "bias", "engine": "native"}, "engine='native' is not written for train='bias'; choose"),
        ({"label_smoothing": 0.1, "engine": "native"}, "is not written for label_smoothing=0.1; choose auto"),
    ]
    for options, complaint in cases:
        assert_raises(complaint, lambda: network(task("mlp", **options)))  # noqa: B023
    assert chosen(task("mlp", train="weight1"), CPU).engine in ("loop", "vmap")


def test_vmap_equals_the_loop_or_is_refused() -> None:
    for kind in AWKWARD:
        if kind in awkward.VECTORISED:
            assert obstacle(_awkward(kind), CPU) == "", kind
            continue
        complaint = rf"engine='vmap': .*:{kind.__name__} {awkward.LOOPED[kind]} \(.*\); choose auto or loop"
        assert_raises(complaint, chosen, _awkward(kind, "vmap"), CPU)
    binary = _awkward(awkward.Tied, loss="tests.nets.test_loss:binary")  # with float32 targets
    assert obstacle(binary, CPU) == ""
    assert chosen(replace(binary, engine="auto"), CPU).engine in ("loop", "vmap")
    for request in (task("cnn", precision="bfloat16"), task("gpt", precision="bfloat16", **gpt_options())):
        assert obstacle(request, CPU) == "", request.net


def test_native_program_and_loop_are_one_network() -> None:
    for net, shape in product(("cnn-norm", "cnn"), [(3, 9, 12), (2, 16, 10)]):
        of, data = task(net, sizes=DataSet(48, 20, 20, 4, shape)), splits(F64, shape)
        native, loop = (
            pack("adamw", of.changed(engine=one), seed=1, data=data) for one in ("native", "loop")
        )
        assert isinstance(native.lanes, CnnLanes)
        assert isinstance(loop.lanes, LoopLanes)
        for one, other in zip(native.run(), loop.run(), strict=True):
            assert one.metrics == pytest.approx(other.metrics, abs=1e-9), (net, shape)
        for name, value in native.arena.named.items():
            assert (value - loop.arena.named[name]).abs().max() < 1e-9, (net, shape, name)
    both: list[Any] = [pack("sgdw", task("cnn", engine="vmap"), WELL).lanes for _ in range(2)]
    assert not set.intersection(*({*lanes.module.modules()} for lanes in both))  # packs may train in threads


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_neighbours_of_a_diverged_lane_keep_every_bit(precision: str) -> None:
    for k, (net, engine) in enumerate(WAYS):
        request, place = task(net, 3, engine=engine, precision=precision), (k + (precision == "float32")) % 3
        without = pack("sgdw", request, WELL)
        with_ill = pack("sgdw", request, [ILL if lane == place else cell for lane, cell in enumerate(WELL)])
        frozen = list[Tensor]()
        trials = with_ill.run(lambda *_, f=frozen, p=with_ill, k=place: f.append(p.arena.theta[k].clone()))
        expected, ill = without.run(), trials[place]
        assert (ill.status, ill.metrics) == (Status.DIVERGED, {}), (net, engine)
        assert "of 9" in ill.detail
        assert all(len(curve) == 3 and math.isnan(curve[-1]) for curve in ill.curves.values()), (net, engine)
        assert torch.equal(frozen[-2].nan_to_num(), frozen[-1].nan_to_num()), (net, engine)
        for lane in {0, 1, 2} - {place}:
            assert trials[lane] == expected[lane], (net, engine, lane)
            assert torch.equal(with_ill.arena.theta[lane], without.arena.theta[lane]), (net, engine, lane)
            mine, theirs = with_ill.lanes.state(), without.lanes.state()
            assert all(torch.equal(mine[name][lane], theirs[name][lane]) for name in theirs), (net, engine)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_lane_keeps_every_bit_in_packs_of_any_size(precision: str) -> None:
    cells = [Cell(2.0 ** (-6 - k / 4), 0.01) for k in range(17)]
    large = [("resnet20", "loop"), ("torchvision:shufflenet_v2_x0_5", "loop")] * (precision == "float32")
    for net, engine in (*WAYS, *large):
        lanes = cells[:2] if (net, engine) in large else cells
        request = task(net, engine=engine, precision=precision, epochs=2 if lanes is cells else 1)
        whole = pack("adamw", request, lanes)
        trials = whole.run()
        # vmap is one program for each number of lanes: only repetition gives the same bits
        for size in (17,) if engine == "vmap" else (1, 2, 5, 16) if lanes is cells else (1,):
            few = pack("adamw", request, lanes[-size:])
            assert few.run() == trials[-size:], (net, engine, size)
            assert torch.equal(few.arena.theta, whole.arena.theta[-size:]), (net, engine, size)


PRODUCTS = ("mm", "addmm", "bmm", "baddbmm", "convolution", "convolution_backward")


def _lanes(net: str, engine: str, precision: str, dtype: torch.dtype = torch.float32) -> tuple[Arena, Lanes]:
    made = network(task(net, engine=engine, precision=precision))
    arena = Arena.stack(made.init(torch.Generator().manual_seed(0)), 3, device=CPU, dtype=dtype)
    arena.theta.mul_(torch.tensor([[1.0], [1.3], [0.8]], dtype=dtype))
    return arena, made.lanes(arena.named, arena.named_grad, 16)


def _passed(arena: Arena, lanes: Lanes, data: Splits) -> dict[str, Tensor]:
    with torch.inference_mode():
        for _ in range(3):  # for the running statistics
            noise = [torch.Generator().manual_seed(0) for _ in range(3)]
            losses, logits = lanes.gradient(data.train.x[:16], data.train.y[:16], noise)
        predicted = lanes.predictor().predict(data.test.x)
    return {"gradient": arena.grad, "losses": losses, "logits": logits, "predicted": predicted}


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


@pytest.mark.usefixtures("without_numba")
def test_every_product_and_nothing_else_is_rounded() -> None:
    """The yardstick: parameters and images rounded once, all else in float32. Products round their operands
    and results, forward and backward: at most about twice as far, and at least a quarter of a rounding, 2⁻⁸.
    """
    for net, engine in WAYS:
        both, convolves = [], engine != "native" and ("cnn" in net or "Normed" in net)
        for dtype in (torch.float32, torch.bfloat16):
            made = _lanes(net, engine, str(dtype).removeprefix("torch."))
            with _Watch() as watch:
                both.append(_passed(*made, splits()))
            assert {operand for _, operand in watch.types} == {dtype}, (net, engine)
            assert ("convolution_backward" in dict(watch.types)) is convolves, (net, engine)
        exact, found = both
        arena, lanes = _lanes(net, engine, "float32")
        arena.theta.copy_(arena.theta.bfloat16())
        once = _passed(arena, lanes, splits().to(CPU, torch.bfloat16).to(CPU, torch.float32))
        for name in ("gradient", "logits", "predicted"):
            for lane in range(3):
                reference = exact[name][lane]
                distance, yardstick = ((other[name][lane] - reference).norm() for other in (found, once))
                assert distance < 4 * yardstick, (net, engine, name)
                assert 2**-10 < distance / reference.norm() < 0.2, (net, engine, name)
        pair = (_lanes(net, engine, precision, F64) for precision in ("float32", "bfloat16"))
        plain, asked = (_passed(*each, splits(F64)) for each in pair)
        assert all(torch.equal(plain[name], asked[name]) for name in plain), (net, engine)  # float64 stays


@pytest.mark.usefixtures("without_numba")
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
        assert not torch.equal(trainer.arena.theta, trainer.arena.theta.bfloat16().float()), (net, engine)


def test_user_networks_train_in_bfloat16() -> None:
    for engine in ("loop", "vmap"):
        for kind in (*awkward.VECTORISED, *(awkward.LOOPED if engine == "loop" else ())):
            of = task(f"tests.nets.awkward:{kind.__name__}", 1, engine=engine)
            pair = (pack("adamw", each, CELLS[:1]) for each in (of, of.changed(precision="bfloat16")))
            one, other = (each.run()[0].metrics["val_loss"] for each in pair)
            assert one != other == pytest.approx(one, rel=0.02), (kind, engine)
