"""Every family under every rule follows its paper; torch, numba and torch.compile agree; lanes are apart."""

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any

import pytest
import torch
from torch import Tensor

from lrwd_sweep.lab import references
from lrwd_sweep.lab.references import Gradient
from lrwd_sweep.optim import DeviceUpdate, Segment, Update, jit, make_update
from lrwd_sweep.optim.numba_loops import BLOCK
from lrwd_sweep.science.optimizer import DecayRule, Family, Optimizer
from lrwd_sweep.spec.task import Task

Case = tuple[Optimizer, Task]
Lanes = Sequence[tuple[float, float]]  # α and λ
Shapes = Sequence[tuple[int, ...]]
SHAPES = ((4, 3), (4,), (2, 3, 2, 2), (3, 2))  # a vector between matrices, and matrices side by side

# Every family with the options that change its step; amsgrad forgets soon, so that the maximum matters.
Options = dict[str, object]
NESTEROV, TORCH = Options(nesterov=True), Options(momentum_form="torch")
OPTIONS: dict[str, list[Options]] = {
    "sgd": [{}, NESTEROV, TORCH, TORCH | NESTEROV],
    **{family: [{}] for family in ("adam", "adagrad", "lion", "adopt", "schedule-free", "muon", "ndadam")},
    "amsgrad": [{"beta2": 0.9}],
    "rmsprop": [{}, {"momentum": 0.8}],
    **{family: [{}, NESTEROV] for family in ("sgdp", "adamp")},
}
WITHOUT_LOOP = ("adopt", "schedule-free", "muon", "ndadam")
VARIANTS = {
    " ".join((family, *(f"{name}={value}" for name, value in options.items()))): (Family(family), options)
    for family, variants in OPTIONS.items()
    for options in variants
}


def layout(shapes: Shapes) -> tuple[Segment, ...]:
    ends = zip(accumulate(math.prod(shape) for shape in shapes), shapes, strict=True)
    places = [(end - math.prod(shape), end, shape) for end, shape in ends]
    return tuple(Segment(f"tensor{k}", *place) for k, place in enumerate(places))


def start(shapes: Shapes = SHAPES) -> list[Tensor]:
    stream = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=stream, dtype=torch.float64) for shape in shapes]


def smooth(steps: int, shapes: Shapes = SHAPES) -> Gradient:
    """Return the gradient cos(θ + random phases), for one lane or several.

    Of every three steps one is without what lies along each row of θ, and one without what lies along θ as
    a whole, so that a projection acts by rows, by the tensor, and not at all.
    """
    stream = torch.Generator().manual_seed(1)
    phases = [torch.randn((steps, *shape), generator=stream, dtype=torch.float64) for shape in shapes]

    def gradient(k: int, t: int, theta: Tensor) -> Tensor:
        g = torch.cos(theta + 3 * phases[k][t])
        rows = {1: shapes[k][0], 2: 1}.get((t + k) % 3)
        if rows is None or len(shapes[k]) == 1:
            return g
        by_row = (*theta.shape[: theta.dim() - len(shapes[k])], rows, -1)
        x, g = theta.reshape(by_row), g.reshape(by_row)
        return (g - x * (x * g).sum(-1, keepdim=True) / (x * x).sum(-1, keepdim=True)).reshape(theta.shape)

    return gradient


def update_of(case: Case, theta: Tensor, lanes: Lanes, shapes: Shapes = SHAPES) -> Update:
    alpha, lam = (theta.new_tensor(column)[:, None] for column in zip(*lanes, strict=True))
    return make_update(*case, theta, layout(shapes), alpha=alpha, lam=lam)


def train(case: Case, shapes: Shapes, lanes: Lanes, numba: bool = True) -> tuple[Tensor, Update]:
    """Take all steps, every lane from `start`; return θ (L, P) at the end, and the update."""
    steps, times, parts = case[1].steps, case[1].of(case[0]).timetable, layout(shapes)
    gradient = smooth(steps, shapes)
    theta = torch.cat([x.flatten() for x in start(shapes)]).repeat(len(lanes), 1)
    update = update_of(case, theta, lanes, shapes)
    update = update if numba else replace(update, loop=None)
    for t in range(steps):
        pieces = [gradient(k, t, theta[:, s.columns].view(-1, *s.shape)) for k, s in enumerate(parts)]
        g = torch.cat([piece.flatten(1) for piece in pieces], dim=1)
        update.apply(theta, g, times.eta(t), t + 1, times.steps_of_cycle(t), times.decay_eta(t))
    return theta, update


LAMBDA = dict(zip(DecayRule, (0.1, 0.01, 0.5, 0.01, 0.5), strict=True))  # decay of a size that matters
# Normalised decay, decay of vectors, schedules, tensors without decay; cautious decay, if the rule has it.
CONFIGURATIONS: list[dict[str, Any]] = [
    {"normalized": False, "decay_all": True, "schedule": "cosine", "cautious": True},
    {"normalized": False, "decay_all": False, "schedule": "restarts", "cautious": True},
    {"normalized": True, "decay_all": True, "schedule": "restarts", "decay_schedule": "linear"},
    {"normalized": True, "decay_all": False, "schedule": "cosine"},
    {"normalized": False, "decay_all": True, "schedule": "cosine", "undecayed": ("tensor0", "tensor1")},
    {"normalized": True, "decay_all": False, "schedule": "cosine", "undecayed": ("tensor2",)},
]
LANES = [(0.02, 0.1), (0.005, 0.3), (0.04, 0.0)]


def _case(variant: str, rule: DecayRule, **others: Any) -> Case:
    family, options = VARIANTS[variant]
    normalized = others.pop("normalized", False)
    cautious = others.pop("cautious", False) and rule is not DecayRule.COUPLED
    task = Task(**{"epochs": 7, **options, **others})
    return Optimizer(family, rule, normalized=normalized, cautious=cautious), task


# Rows longer than a block of the numba loops, and many rows.
LONG = ((3, BLOCK + 5), (7,), (300, 70), (1, 40), (2 * BLOCK // 64, 64))


@pytest.mark.parametrize("variant", VARIANTS)
def test_lanes_follow_the_algorithm_of_the_paper_by_numba_and_by_torch(variant: str) -> None:
    family = VARIANTS[variant][0]
    for k, rule in enumerate(family.rules):
        first = (k + list(VARIANTS).index(variant)) % 3
        cases: list[tuple[Shapes, Any]] = [(SHAPES, options) for options in CONFIGURATIONS[first::3]]
        for shapes, options in cases + [(LONG, {"epochs": 1})] * (rule is DecayRule.LR_SCALED):
            optimizer, task = case = _case(variant, rule, **options)
            lam = LAMBDA[rule] * (7 if optimizer.normalized else 1)  # divided by √N, of about 7
            lanes, gradient = [(0.02, lam), (0.005, 3 * lam), (0.04, 0.0)], smooth(task.steps, shapes)
            lone = [references.follow(optimizer, task, start(shapes), gradient, *lane) for lane in lanes]
            rates = []
            for numba in (True, False):
                theta, update = train(case, shapes, lanes, numba)
                assert (update.loop is None) is (not numba or variant in WITHOUT_LOOP)
                assert (theta - torch.stack(lone)).abs().max() < 1e-12, (rule, options, numba)
                rates.append(update.projection_rate())
            if rates[0] is not None and rates[1] is not None:
                assert torch.equal(*rates), (rule, options)  # type: ignore[arg-type]
                assert shapes is LONG or 0 < rates[0][0] < 1
            assert (rates[0] is not None) is family.projected


# Rows of every length that a reduction might treat differently, in single precision.
WIDE = ((17, 27), (17,), (3, 128), (6, 3, 5, 5), (2, 1), (1, 9))
ILL = {1: math.nan, 3: math.inf, 5: 1e30, 8: -3.0}  # lane → all its θ when it diverges
WELL = torch.tensor([lane not in ILL for lane in range(33)])


def _run(case: Case, chosen: slice, *, ill: bool = False, numba: bool = True) -> tuple[Tensor, Tensor]:
    """Take six steps with some of 33 lanes, or with four of all diverging; return θ and projection rates.

    Gradients are orthogonal to θ in the first tensor, and in some lanes of the others.
    """
    stream, size = torch.Generator().manual_seed(5), sum(map(math.prod, WIDE))
    theta, *gradients = torch.randn(7, 33, size, generator=stream)
    odd = torch.arange(17 * 27) % 2 == 1
    theta[:, : 17 * 27][:, odd] = 0
    for g in gradients:
        g[:, : 17 * 27][:, ~odd] = 0
    lanes = [(1e-3 * 1.1**k, LAMBDA[case[0].rule] * 0.9**k) for k in range(33)][chosen]
    for lane, number in ILL.items() if ill else ():
        theta[lane] = number
    theta = theta[chosen].clone()
    update = update_of(case, theta, lanes, WIDE)
    update = update if numba else replace(update, loop=None)
    for t, g in enumerate(gradients):
        if ill:
            g[[1, 8]] = math.nan  # at first they die of it
            stays = theta[5].clone()
        if ill and t > 0:
            update.freeze(g, WELL)
        update.apply(theta, g[chosen].clone(), 1 - t / 6, t + 1, 6)
    assert not ill or (torch.equal(theta[5], stays) and not theta[[1, 3, 8]].isfinite().any())
    rate = update.projection_rate()
    return theta, torch.full((len(theta),), 0.5) if rate is None else rate


@pytest.mark.parametrize("variant", VARIANTS)
def test_no_bit_depends_on_the_size_of_the_pack_or_on_diverged_lanes(variant: str) -> None:
    for k, rule in enumerate(VARIANTS[variant][0].rules):
        case = _case(variant, rule, decay_all=k % 2 == 0, cautious=k % 2 == 1)
        whole, rate = _run(case, slice(None))
        assert 0 < rate.min() <= rate.max() < 1
        for chosen in (slice(1), slice(2), slice(3, 8), slice(22), slice(32, 33)):
            part, part_rate = _run(case, chosen)
            assert torch.equal(part, whole[chosen]), (rule, chosen)
            assert torch.equal(part_rate, rate[chosen]), (rule, chosen)
        for numba in (True, False):
            well, rate = _run(case, slice(None), numba=numba)
            assert torch.allclose(well, whole, rtol=1e-4, atol=1e-5), (rule, numba)
            mixed, mixed_rate = _run(case, slice(None), ill=True, numba=numba)
            assert torch.equal(mixed[WELL], well[WELL]), (rule, numba)
            assert torch.equal(mixed_rate[WELL], rate[WELL]), (rule, numba)


def test_schedule_free_lanes_are_evaluated_at_the_average_of_the_authors() -> None:
    library = pytest.importorskip("pytorch_optimizer")
    optimizer, task = Optimizer.parse("schedule-freew:lr-scaled"), Task(epochs=7)
    theta, update = train((optimizer, task), SHAPES, [(0.02, 0.5)])
    tensors, gradient = [x.requires_grad_() for x in start()], smooth(task.steps)
    theirs = library.ScheduleFreeAdamW(tensors, lr=0.02, weight_decay=0.5)
    for t in range(task.steps):
        for k, x in enumerate(tensors):
            x.grad = gradient(k, t, x.detach())
        theirs.param_groups[0]["lr"] = 0.02 * task.timetable.eta(t)
        theirs.step()
    theirs.eval()
    trained, average = theta.clone(), torch.cat([x.detach().flatten() for x in tensors])
    with update.evaluating(theta):
        assert (theta[0] - average).abs().max() < 1e-12 < (theta - trained).abs().max()
    assert torch.equal(theta, trained)


@pytest.mark.parametrize("variant", VARIANTS)
def test_device_update_equals_host_update_and_compiles_or_runs_as_written(
    variant: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("no C compiler")

    caplog.set_level("INFO", "lrwd_sweep")
    torch.compiler.reset()  # a function is compiled only so often in one process
    cases: list[tuple[Any, DecayRule]] = [(None, DecayRule.CORRECTED), (None, DecayRule.INDEPENDENT)]
    cases += [(each, DecayRule.LR_SCALED) for each in ("inductor", broken) if variant == "adam"]
    for backend, rule in [*cases, ("aot_eager", DecayRule.CORRECTED)]:
        caplog.clear()
        monkeypatch.setattr(jit, "_told", set())
        case = _case(variant, rule, schedule="restarts", warmup=1, normalized=True)
        told, read = torch.cat([x.flatten() for x in start()]).repeat(2, 3, 1)
        first, second = (replace(update_of(case, x, LANES), loop=None) for x in (told, read))
        times = case[1].timetable
        device = DeviceUpdate(second, times, read, backend)
        stream, died_at = torch.Generator().manual_seed(2), torch.full((3,), -1)
        for t in range(20):
            g = torch.randn(told.shape, generator=stream, dtype=torch.float64)
            if t >= 8:
                died_at[1], g[1] = 8, math.nan
                first.freeze(g, died_at < 0)
            first.apply(told, g.clone(), times.eta(t), t + 1, times.steps_of_cycle(t))
            with torch.inference_mode():
                device.apply(read, g, torch.tensor([t]), died_at)
            stays = read[1].clone() if t == 7 else read[1]
        assert read.isfinite().all()
        assert torch.equal(stays, read[1])
        near = 0 if backend is None else 1e-12
        torch.testing.assert_close(read, told, rtol=near, atol=near)
        said = [x for x in caplog.messages if x.startswith("updates are not compiled, which is slower")]
        assert backend == "inductor" or len(said) == (backend is broken)  # inductor needs a C compiler
        assert backend is not broken or re.fullmatch(".*no C compiler.*", said[0]), "one line"
        rates = first.projection_rate(), second.projection_rate()
        assert rates == (None, None) or torch.equal(*rates)  # type: ignore[arg-type]
        rate = first.projection_rate()
        assert rate is None or rate.isnan().all(), "both counts begin anew"
