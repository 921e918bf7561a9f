"""Pasted lines are the cell: the same numbers, the same steps, or no line."""

from __future__ import annotations

import ast
import contextlib
import importlib
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lrwd_sweep.report.recommend.code import CodeLine, recipe
from lrwd_sweep.science.conversion import Run, conventions
from lrwd_sweep.science.decay import Convention, DecayRule
from lrwd_sweep.science.lattice import Cell, Lattice, canonical
from lrwd_sweep.science.optimizer import Family, Optimizer, optimizer_names
from lrwd_sweep.science.schedule import Schedule
from lrwd_sweep.spec.study import Kind, StudySpec
from lrwd_sweep.spec.task import MomentumForm, Task
from tests.report.recommend.pasted import Pasted, by_study

cells = st.builds(Cell, st.floats(1e-6, 10), st.floats(1e-6, 10))
CELL = Cell(2**-7.5, 2**-9)


def default(optimizer: str = "adamw", task: Task | None = None) -> StudySpec:
    """A study of the digits."""
    lattice, seeds = Lattice((0.1, 0.2), (0.1, 0.2)), (0, 1, 2)
    return StudySpec(Kind.GRID, Optimizer.parse(optimizer), lattice, seeds, "val_loss", task or Task())


def lines(spec: StudySpec, cell: Cell = CELL) -> tuple[CodeLine, ...]:
    """The recipe of a cell."""
    t = spec.task
    known = (t.decay_steps, t.momentum) if t else (None, None)
    return recipe(spec, cell, conventions(spec.optimizer, cell.lr, cell.weight_decay, *known))


def imported(optimizer: str | Optimizer) -> StudySpec:
    """Somebody else's sweep."""
    if isinstance(optimizer, str):
        optimizer = Optimizer.parse(optimizer)
    return replace(default(), kind=Kind.IMPORT, optimizer=optimizer, task=None)


CLASSES = {
    "torch.optim": ("SGD", "Adam", "AdamW", "Adagrad", "RMSprop"),
    "adamp": ("SGDP", "AdamP"),
}
MEANT = {"AdamW": Convention.LR_SCALED, "SGDP": Convention.LR_SCALED, "AdamP": Convention.LR_SCALED}


def arguments(code: str, steps: int = 0) -> tuple[str, dict[str, Any]]:
    """What a pasted constructor is, and what it is called with."""
    called: list[tuple[str, dict[str, Any]]] = []

    def constructor(name: str) -> Any:
        return lambda *_, **given: called.append((name, given))

    def library(name: str) -> SimpleNamespace:
        return SimpleNamespace(**{each: constructor(each) for each in CLASSES[name]})

    names = {
        "torch": SimpleNamespace(optim=library("torch.optim")),
        "adamp": library("adamp"),
        "params": [],
        "dict": constructor("dict"),
        "N": steps,
        "momentum": None,
    }
    exec(code.splitlines()[0], names)
    (found,) = called
    return found


@given(st.sampled_from(optimizer_names()), cells)
def test_every_line_is_the_same_cell(name: str, cell: Cell) -> None:
    spec = default(name)
    assert spec.task is not None
    run = Run(spec.optimizer.family, cell.lr, spec.task.steps, spec.task.momentum)
    for line in lines(spec, cell):
        ast.parse(line.code)
        if not line.code:
            continue
        constructor, given = arguments(line.code, spec.task.steps)
        assert canonical(given["lr"]) == cell.lr
        if "weight_decay" not in given:
            continue
        meant = MEANT.get(constructor, Convention.COUPLED)
        if constructor == "dict" and "SGD: " not in line.remark:
            meant = Convention.INDEPENDENT
        back = run.convert(given["weight_decay"], meant, Convention(spec.optimizer.rule.value))
        assert back == pytest.approx(cell.weight_decay, rel=1e-11)
        if str(meant) == str(spec.optimizer.rule) and "N**0.5" not in line.code:
            assert canonical(given["weight_decay"]) == cell.weight_decay


# --- executed ----------------------------------------------------------------------------------------------


def packages() -> dict[str, Any]:
    """What lines may be of: PyTorch, and the authors' adamp where it is installed."""
    found: dict[str, Any] = {"torch": torch}
    with contextlib.suppress(ImportError):
        found["adamp"] = importlib.import_module("adamp")
    return found


PACKAGES = packages()
trainings = st.builds(
    Task,
    epochs=st.integers(8, 12),
    batch_size=st.just(200),  # two steps an epoch
    schedule=st.sampled_from(Schedule),
    warmup=st.integers(0, 2),
    t_0=st.integers(1, 3),
    t_mult=st.integers(1, 2),
    eta_min=st.sampled_from([0.0, 0.1]),
    momentum=st.sampled_from([None, 0.0, 0.5]),
    nesterov=st.booleans(),
    momentum_form=st.sampled_from(MomentumForm),
    beta1=st.sampled_from([None, 0.8]),
    beta2=st.sampled_from([None, 0.95]),
    eps=st.sampled_from([None, 1e-4]),
    decay_all=st.booleans(),
)
# Rates at which rounding grows 16 times at most; at 0.06 it grows 25,000 times.
steady_cells = st.builds(Cell, st.floats(0.01, 0.04), st.floats(0.01, 0.2))


def same_steps(spec: StudySpec) -> bool:
    """Whether PyTorch makes the study's steps, besides decay."""
    t = spec.task
    assert t is not None
    if spec.optimizer.family is not Family.SGD or not t.momentum:
        return True
    constant = t.schedule is Schedule.FIXED and not t.warmup
    return constant or t.momentum_form is MomentumForm.TORCH


def formula_by(spec: StudySpec, rule: DecayRule) -> str:
    """The study's formula with another rule."""
    return replace(spec, optimizer=Optimizer(spec.optimizer.family, rule)).formula


def same(found: torch.Tensor, expected: torch.Tensor) -> bool:
    """Whether two runs end where they should, to the digits that lines have."""
    return torch.allclose(found, expected, rtol=1e-8, atol=1e-8)


def check_by_execution(spec: StudySpec, cell: Cell) -> int:
    """Run every line that claims to be the cell beside the study's own update; how many ran."""
    t, family = spec.task, spec.optimizer.family
    assert t is not None
    assert family is not None
    expected = by_study(spec.optimizer, t, cell)
    found = lines(spec, cell)
    groups = "" if t.decay_all and not t.undecayed else found[0].code
    assert bool(groups) is ("\nparams = [dict(params=weights), " in groups)
    first, *others = [line for line in found if line.code not in ("", groups)]
    assert same_steps(spec) is ("while the rate is constant" not in first.remark)
    ran = 0
    for line in [first, *others]:
        if "N = T·" in line.remark or "asymptotically" in line.remark:
            continue
        if line.code.startswith("dict("):
            (rule,) = [
                rule
                for rule in (DecayRule.COUPLED, DecayRule.INDEPENDENT)
                if f": {formula_by(spec, rule)};" in f"{line.remark};"
            ]
            _, given = arguments(line.code, steps=1)
            alike = Optimizer(family, rule, normalized="N**0.5" in line.code)
            assert same(by_study(alike, t, Cell(given["lr"], given["weight_decay"])), expected), line
        elif same_steps(spec) and ("adamp" in PACKAGES or "adamp." not in line.code):
            pasted = Pasted.of(line.code, groups, PACKAGES, N=t.timetable.steps_of_cycle(0))
            assert same(pasted.after(t, cell), expected), line
            ran += 1
    return ran


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(optimizer_names()), st.booleans(), trainings, steady_cells)
def test_pasted_code_makes_the_steps_of_the_study(
    name: str, normalized: bool, task: Task, cell: Cell
) -> None:
    check_by_execution(default(name + ":normalized" * normalized, task), cell)


@pytest.mark.parametrize("undecayed", [("weight",), ("bias",), ("weight", "bias")])
@pytest.mark.parametrize("decay_all", [True, False])
@pytest.mark.parametrize("name", ["adamw", "adam", "sgdw:fixed", "sgdp", "adamp:corrected"])
def test_pasted_code_spares_what_the_study_does(
    name: str, decay_all: bool, undecayed: tuple[str, ...]
) -> None:
    task = Task(epochs=4, batch_size=200, decay_all=decay_all, undecayed=undecayed, no_decay=".")
    check_by_execution(default(name, task), Cell(0.05, 0.1))
    (first, *_) = lines(default(name, task))
    assert "parameters that --no-decay names do not decay" in first.remark


@pytest.mark.parametrize("decay_all", [True, False])
@pytest.mark.parametrize("normalized", ["", ":normalized"])
@pytest.mark.parametrize("name", optimizer_names())
def test_pasted_code_follows_warm_restarts(name: str, normalized: str, decay_all: bool) -> None:
    task = Task(
        epochs=9,
        batch_size=200,
        schedule=Schedule.RESTARTS,
        t_0=1,
        momentum_form=MomentumForm.TORCH,
        decay_all=decay_all,
    )
    ran = check_by_execution(default(name + normalized, task), Cell(0.05, 0.1))
    assert ran == ("adamp" in PACKAGES or not name.startswith(("sgdp", "adamp")))


UNSCHEDULED = [name for name in optimizer_names() if name.endswith((":fixed", ":corrected"))]


@pytest.mark.parametrize("name", UNSCHEDULED)
def test_decay_that_the_schedule_does_not_scale_is_no_other_decay_under_a_schedule(name: str) -> None:
    for moving in (Task(), Task(schedule=Schedule.FIXED, warmup=1)):
        own, *rest = lines(default(name, moving))
        assert own.code.startswith("optimizer = ")
        assert "while the rate is constant, as here" not in own.remark
        assert [line.code for line in rest] == [""]
        assert rest[0].remark.startswith("no line for decay that the schedule scales")
    _, *rest = lines(default(name, Task(schedule=Schedule.FIXED)))
    assert rest
    assert all(line.code and "the same while the rate is constant" in line.remark for line in rest)


def test_a_normalised_studys_number_is_over_the_root_of_its_steps() -> None:
    first, _, longer = lines(default("adamw:lr-scaled:normalized"), Cell(0.1, 0.6))
    assert arguments(first.code)[1]["weight_decay"] == pytest.approx(0.6 / 360**0.5)
    assert arguments(longer.code, 900)[1]["weight_decay"] == pytest.approx(0.6 / 30)
    (values,) = [line for line in lines(imported("adamw:normalized"), Cell(0.1, 0.6)) if "dict" in line.code]
    assert arguments(values.code, 900)[1]["weight_decay"] == pytest.approx(0.6 / 30)


def test_hyperparameters_that_are_not_the_librarys_are_passed_on() -> None:
    task = Task(momentum=0.5, nesterov=True, beta1=0.8, beta2=0.95, eps=1e-6)
    given = {family: arguments(lines(default(str(family), task))[0].code)[1] for family in Family}
    for family, names in {
        Family.SGD: {"momentum": 0.5, "nesterov": True},
        Family.ADAM: {"betas": (0.8, 0.95), "eps": 1e-6},
        Family.AMSGRAD: {"betas": (0.8, 0.95), "eps": 1e-6, "amsgrad": True},
        Family.ADAGRAD: {"eps": 1e-6},
        Family.RMSPROP: {"alpha": 0.95, "eps": 1e-6, "momentum": 0.5},
        Family.SGDP: {"momentum": 0.5, "nesterov": True},
        Family.ADAMP: {"betas": (0.8, 0.95), "eps": 1e-6, "nesterov": True},
    }.items():
        values = {name: value for name, value in given[family].items() if name not in ("lr", "weight_decay")}
        assert values == names


@pytest.mark.parametrize("optimizer", ["adam", Optimizer(None, DecayRule.COUPLED, "lion")])
@pytest.mark.parametrize("known", [True, False])
def test_where_no_equivalent_exists_it_says_so(optimizer: str | Optimizer, known: bool) -> None:
    spec = imported(optimizer)
    if known and isinstance(optimizer, str):
        spec = default(optimizer)
    first, *rest = lines(spec)
    assert first.code
    assert not any(line.code for line in rest)
    assert any(line.remark.startswith("no line for") for line in rest)


def test_an_imported_sgd_gets_no_number_that_its_momentum_would_decide() -> None:
    coupled = lines(imported("sgd"))
    assert "momentum=momentum" in coupled[0].code
    assert not any("the paper's SGDW" in line.remark for line in coupled)
    decoupled = lines(imported("sgdw"))
    assert not any("weight_decay" in line.code for line in decoupled if "torch" in line.code)


def test_an_unknown_length_of_run_has_no_normalised_line() -> None:
    for name in optimizer_names():
        assert lines(imported(name))
        assert not any("N**0.5" in line.code for line in lines(imported(name)))
    assert any("N**0.5" in line.code for line in lines(default("adamw")))


def test_a_longer_run_gets_less_decay_by_the_root_of_its_steps() -> None:
    spec = default("adamw:lr-scaled")
    assert spec.task is not None
    (line,) = [line for line in lines(spec) if "N**0.5" in line.code]
    _, given = arguments(line.code, 4 * spec.task.steps)
    assert given["weight_decay"] == pytest.approx(CELL.weight_decay / 2, rel=1e-11)


@pytest.mark.parametrize("name", optimizer_names())
def test_no_decay_is_one_line(name: str) -> None:
    (line,) = lines(default(name), Cell(0.1, 0.0))
    assert "weight_decay" not in line.code


@pytest.mark.parametrize(
    ("schedule", "momentum", "remark"),
    [
        (Schedule.COSINE, 0.9, "while the rate is constant"),
        (Schedule.FIXED, 0.9, "as the rate is constant"),
    ],
)
def test_sgd_says_when_pytorchs_momentum_is_the_papers(
    schedule: Schedule, momentum: float, remark: str
) -> None:
    spec = replace(default("sgd"), task=Task(schedule=schedule, momentum=momentum))
    assert remark in lines(spec)[0].remark


def test_sgdw_under_a_schedule_claims_exactness_of_its_decay_alone() -> None:
    first, *_ = lines(default("sgdw"))
    assert first.remark == (
        "decoupled by hand, w = λ/α: the decay is exact under any schedule; "
        "PyTorch has α outside the momentum: the paper's momentum only while the rate "
        "is constant; --momentum-form torch sweeps PyTorch's"
    )


def test_without_momentum_l2_is_exact() -> None:
    spec = replace(default("sgdw"), task=Task(momentum=0.0))
    assert any("exact without momentum" in line.remark for line in lines(spec))
    assert not any("asymptotically" in line.remark for line in lines(spec))


def test_adams_own_moments_are_passed_on() -> None:
    spec = replace(default("adamw"), task=Task(beta2=0.95, eps=1e-6))
    _, given = arguments(lines(spec)[0].code)
    assert (given["betas"], given["eps"]) == ((0.9, 0.95), 1e-6)


def test_pasted_decoupled_sgd_makes_the_papers_steps_at_a_constant_rate() -> None:
    spec = default("sgdw")
    cell = Cell(0.05, 0.01)
    (step,) = [line.code for line in lines(spec, cell) if "for group" in line.code]
    constructor, _, loop = step.partition("\n")
    theta = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64, requires_grad=True)
    names: dict[str, Any] = {"torch": torch, "params": [theta]}
    exec(constructor, names)
    expected, m = theta.detach().clone(), torch.zeros(3, dtype=torch.float64)
    for _ in range(20):
        names["optimizer"].zero_grad()
        (theta.sin() * theta).sum().backward()  # type: ignore[no-untyped-call]
        exec(loop, names)
        names["optimizer"].step()
        g = expected.sin() + expected * expected.cos()
        m = 0.9 * m + cell.lr * g
        expected = expected - m - cell.weight_decay * expected
    assert torch.allclose(theta.detach(), expected, rtol=0, atol=1e-12)


def test_every_family_has_a_constructor_of_its_own() -> None:
    constructors = {family: lines(default(str(family)))[0].code.split("(params")[0] for family in Family}
    assert constructors == {
        Family.SGD: "torch.optim.SGD",
        Family.ADAM: "torch.optim.Adam",
        Family.AMSGRAD: "torch.optim.Adam",
        Family.ADAGRAD: "torch.optim.Adagrad",
        Family.RMSPROP: "torch.optim.RMSprop",
        Family.SGDP: "adamp.SGDP",
        Family.ADAMP: "adamp.AdamP",
    }
