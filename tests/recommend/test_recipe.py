"""Pasted lines are the cell: the same numbers, the same steps, or no line."""

from __future__ import annotations

import ast
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lrwd_sweep.conversion import Convention, Run, conventions
from lrwd_sweep.decay import DecayRule
from lrwd_sweep.lattice import Cell, canonical
from lrwd_sweep.optimizer import Family, Optimizer, optimizer_names
from lrwd_sweep.recommend.recipe import Line, recipe
from lrwd_sweep.schedule import Schedule
from lrwd_sweep.spec import Kind, StudySpec, Training
from tests.recommend.test_command import default

cells = st.builds(Cell, st.floats(1e-6, 10), st.floats(1e-6, 10))
CELL = Cell(2**-7.5, 2**-9)


def lines(spec: StudySpec, cell: Cell = CELL) -> tuple[Line, ...]:
    """The recipe of a cell."""
    t = spec.training
    known = (t.steps, t.momentum) if t else (None, None)
    return recipe(spec, cell, conventions(spec.optimizer, cell.lr, cell.weight_decay, *known))


def imported(optimizer: str | Optimizer) -> StudySpec:
    """Somebody else's sweep."""
    if isinstance(optimizer, str):
        optimizer = Optimizer.parse(optimizer)
    return replace(default(), kind=Kind.IMPORT, optimizer=optimizer, training=None)


def arguments(code: str, steps: int = 0) -> tuple[str, dict[str, Any]]:
    """What a pasted constructor is, and what it is called with."""
    called: list[tuple[str, dict[str, Any]]] = []

    def constructor(name: str) -> Any:
        return lambda *_, **given: called.append((name, given))

    optim = SimpleNamespace(**{name: constructor(name) for name in ("SGD", "Adam", "AdamW")})
    names = {"torch": SimpleNamespace(optim=optim), "params": [], "dict": constructor("dict"), "N": steps}
    code = code.splitlines()[0]
    exec(code, names | {"momentum": None})
    (found,) = called
    return found


@given(st.sampled_from(optimizer_names()), cells)
def test_every_line_is_the_same_cell(name: str, cell: Cell) -> None:
    spec = default(name)
    assert spec.training is not None
    run = Run(spec.optimizer.family, cell.lr, spec.training.steps, spec.training.momentum)
    for line in lines(spec, cell):
        ast.parse(line.code)
        if not line.code:
            continue
        constructor, given = arguments(line.code, spec.training.steps)
        assert canonical(given["lr"]) == cell.lr
        if "weight_decay" not in given:
            continue
        meant = {"SGD": Convention.COUPLED, "Adam": Convention.COUPLED, "AdamW": Convention.LR_SCALED}.get(
            constructor, Convention.COUPLED if "SGD: " in line.remark else Convention.INDEPENDENT
        )
        back = run.convert(given["weight_decay"], meant, Convention(spec.optimizer.rule.value))
        assert back == pytest.approx(cell.weight_decay, rel=1e-11)
        if str(meant) == str(spec.optimizer.rule) and "N**0.5" not in line.code:
            assert canonical(given["weight_decay"]) == cell.weight_decay


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
        assert not any("N**0.5" in line.code for line in lines(imported(name)))
    assert any("N**0.5" in line.code for line in lines(default("adamw")))


def test_a_longer_run_gets_less_decay_by_the_root_of_its_steps() -> None:
    spec = default("adamw:lr-scaled")
    assert spec.training is not None
    (line,) = [line for line in lines(spec) if "N**0.5" in line.code]
    _, given = arguments(line.code, 4 * spec.training.steps)
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
    spec = replace(default("sgd"), training=Training(schedule=schedule, momentum=momentum))
    assert remark in lines(spec)[0].remark


def test_without_momentum_l2_is_exact() -> None:
    spec = replace(default("sgdw"), training=Training(momentum=0.0))
    assert any("exact without momentum" in line.remark for line in lines(spec))
    assert not any("asymptotically" in line.remark for line in lines(spec))


def test_adams_own_moments_are_passed_on() -> None:
    spec = replace(default("adamw"), training=Training(beta2=0.95, eps=1e-6))
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
    constructors = {family: lines(default(str(family)))[0].code.split("(")[0] for family in Family}
    assert constructors == {Family.SGD: "torch.optim.SGD", Family.ADAM: "torch.optim.Adam"}
