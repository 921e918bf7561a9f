"""Pasted lines are the cell: the same numbers and the same steps, or no line."""

import ast
import contextlib
import importlib
import math
import re
from dataclasses import replace
from itertools import product
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from lrwd_sweep.optim import Segment, make_update
from lrwd_sweep.report.recommend.code import CodeLine, recipe
from lrwd_sweep.science.conversion import conventions
from lrwd_sweep.science.lattice import Cell, canonical
from lrwd_sweep.science.optimizer import DecayRule, Family, MomentumForm, Optimizer, optimizer_names
from lrwd_sweep.science.schedule import DecaySchedule, Schedule
from lrwd_sweep.spec.study import Kind, StudySpec
from lrwd_sweep.spec.task import Task
from tests.report.view.examples import known
from tests.specs import spec

CELL = Cell(2**-7.5, 2**-9)
SHAPES = {"weight": (4, 3), "bias": (4,)}
LAYOUT = [Segment("weight", 0, 12, (4, 3)), Segment("bias", 12, 16, (4,))]
INPUT = torch.tensor([0.3, -1.2, 0.8], dtype=torch.float64)
PACKAGES: dict[str, Any] = {"torch": torch, "math": math}
for package in ("adamp", "pytorch_optimizer"):
    with contextlib.suppress(ImportError):
        PACKAGES[package] = importlib.import_module(package)


def swept(optimizer: str | Optimizer = "adamw", task: Task | None = None) -> StudySpec:
    optimizer = Optimizer.parse(optimizer) if isinstance(optimizer, str) else optimizer
    return replace(spec(), optimizer=optimizer, task=task or Task())


def imported(optimizer: str | Optimizer) -> StudySpec:
    return replace(swept(optimizer), kind=Kind.IMPORT, task=None)


def lines(of: StudySpec, cell: Cell = CELL) -> tuple[CodeLine, ...]:
    given = (of.task.decay_steps, of.task.momentum) if of.task else (None, None)
    return recipe(of, cell, conventions(of.optimizer, cell.lr, cell.weight_decay, *given))


def arguments(code: str, steps: int = 1) -> dict[str, Any]:
    line: Any = ast.parse(code.splitlines()[0].removeprefix("optimizer = ")).body[0]
    names = {"N": steps, "momentum": None}
    return {each.arg: eval(ast.unparse(each.value), names) for each in line.value.keywords}


def start() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in SHAPES.values()]


def loss(weight: Tensor, bias: Tensor, t: int) -> Tensor:
    """Return a loss that is scale-invariant in the weight at odd steps, so that SGDP and AdamP project."""
    w = weight / weight.norm(dim=1, keepdim=True) if t % 2 else weight + weight.sin()
    return ((w @ INPUT + bias).sin() * torch.arange(1.0, 5.0)).sum()


def by_study(optimizer: Optimizer, task: Task, cell: Cell) -> Tensor:
    """Return weight and bias, flat, after a run of the engine's update."""
    theta = torch.cat([p.flatten() for p in start()]).unsqueeze(0)
    alpha, lam = (torch.tensor([[x]], dtype=torch.float64) for x in (cell.lr, cell.weight_decay))
    update = make_update(optimizer, task, theta, LAYOUT, alpha=alpha, lam=lam)
    table = task.timetable
    for t in range(task.steps):
        weight, bias = (theta[0, s.start : s.stop].view(s.shape).clone().requires_grad_() for s in LAYOUT)
        found = torch.autograd.grad(loss(weight, bias, t), (weight, bias))
        g = torch.cat([part.flatten() for part in found]).unsqueeze(0)
        update.apply(theta, g, table.eta(t), t + 1, table.steps_of_cycle(t), table.decay_eta(t))
    return theta[0]


def by_code(code: str, groups: str, task: Task, cell: Cell) -> Tensor:
    """Return weight and bias, flat, after a run of pasted code whose scheduler sets lr at every step."""
    parameters = [p.requires_grad_() for p in start()]
    named = list(zip(SHAPES, parameters, strict=True))
    model = SimpleNamespace(parameters=lambda: parameters, named_parameters=lambda: named)
    table = task.timetable
    names = {**PACKAGES, "params": parameters, "model": model, "N": table.steps_of_cycle(0)}
    exec(groups, names)
    several = code.startswith("matrices = ")  # Muon and Adam
    first, _, beside = ("", "", "") if several else code.partition("\n")
    exec(code if several else f"optimizer = {first.removeprefix('optimizer = ')}", names)
    when, _, loop = beside.partition("\n")
    restarts = [epoch * task.steps_per_epoch for epoch in table.snapshots]
    optimizers = names["optimizers"] if several else [names["optimizer"]]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tensor, "bfloat16", Tensor.clone)  # Muon in float64
        for t in range(task.steps):
            for group in (group for optimizer in optimizers for group in optimizer.param_groups):
                group["lr"] = cell.lr * table.eta(t)
            names |= {"N": table.steps_of_cycle(t), "t": t}
            if t in restarts and when.startswith("# at each restart"):
                exec(loop, names)
            for p in parameters:
                p.grad = None
            loss(parameters[0], parameters[1], t).backward()  # type: ignore[no-untyped-call]
            if when.startswith(("# before each optimizer.step()", "# in place of each optimizer.step()")):
                exec(loop, names)
            for optimizer in optimizers if not when.startswith("# in place of") else []:
                optimizer.step()
    return torch.cat([p.detach().flatten() for p in parameters])


def check_by_execution(spec: StudySpec, cell: Cell) -> int:
    """Compare every line that claims to be the cell with the engine's steps; return how many ran."""
    t, optimizer = known(spec.task), spec.optimizer
    constant = t.schedule is Schedule.FIXED and not t.warmup
    plain = optimizer.family is not Family.SGD or not t.momentum
    same_steps = plain or constant or t.momentum_form is MomentumForm.TORCH
    expected, found = by_study(optimizer, t, cell), lines(spec, cell)
    for line in found:
        if re.match("(optimizer = )?[a-z.]+optim|adamp|dict", line.code):  # the lr has all its digits
            assert canonical(arguments(line.code, t.steps)["lr"]) == cell.lr
    groups = "" if t.decay_all and not t.undecayed else found[0].code
    assert bool(groups) is ("\nparams = [dict(params=weights), " in groups)
    own = [line for line in found if line.code not in ("", groups)]
    first = own[0]
    assert same_steps is ("while the rate is constant" not in first.remark)
    ran = 0
    for line in own:
        if "N = T·" in line.remark or "asymptotically" in line.remark:
            continue
        if line.code.startswith("dict("):
            (alike,) = [
                replace(optimizer, rule=rule, normalized="N**0.5" in line.code)
                for rule in {DecayRule.COUPLED: 0, DecayRule.INDEPENDENT: 0, optimizer.rule: 0}
                if f": {replace(spec, optimizer=replace(optimizer, rule=rule, normalized=False)).formula};"
                in f"{line.remark};".replace(f", {optimizer.rule.symbol} = λ_norm/√N;", ";")
            ]
            given = arguments(line.code)
            made = by_study(alike, t, Cell(given["lr"], given["weight_decay"]))
        elif same_steps and ("adamp" in PACKAGES or "adamp." not in line.code):
            made, ran = by_code(line.code, groups, t, cell), ran + 1
        else:
            continue
        assert torch.allclose(made, expected, rtol=1e-8, atol=1e-8), (str(optimizer), t, line)
    return ran


def test_pasted_code_of_every_optimizer_makes_the_studys_steps() -> None:
    cell = Cell(0.05, 0.1)
    common: dict[str, Any] = {"batch_size": 200, "momentum_form": MomentumForm.TORCH}
    missing = () if "adamp" in PACKAGES else ("sgdp", "adamp")
    runs = (
        (":normalized", {"schedule": Schedule.COSINE, "warmup": 1}),
        ("", {"schedule": Schedule.RESTARTS, "t_0": 1, "t_mult": 2, "eta_min": 0.1}),
        ("", {"schedule": Schedule.FIXED}),
        (":normalized", {"schedule": Schedule.RESTARTS, "t_0": 1}),
    )
    usual = {"momentum": 0.5, "beta1": 0.8, "beta2": 0.95, "eps": 1e-6} | common
    for k, name in enumerate(optimizer_names()):
        for j, (end, run) in enumerate(runs):
            turns = {"decay_all": bool((k + j) % 2), "nesterov": bool((k + j) // 2 % 2)}
            task = Task(epochs=3, **run, **turns, **usual if j else {"batch_size": 200})  # type: ignore[arg-type]
            ran = check_by_execution(swept(name + end, task), cell)
            formulas = name.startswith(("muon", "ndadam", "kfac", *missing))
            assert ran or formulas or (j == 0 and "sgd" in name), name  # the paper's momentum at first
    ran = 0
    cautious = "adamw:cautious", "lionw:lr-scaled:cautious:normalized", "adoptw:fixed:cautious"
    names = *cautious, "sgdp:cautious", "sgdw", "adamw", "adamp", "schedule-freew", "muonw", "muonw:lr-scaled"
    own_schedules = None, DecaySchedule.CONSTANT, DecaySchedule.COSINE, DecaySchedule.STEP
    for k, (name, own) in enumerate(product(names, own_schedules)):
        schedule = (Schedule.LINEAR, Schedule.FIXED)[k % 2]
        task = Task(epochs=4, decay_schedule=own, decay_all=k % 3 > 0, schedule=schedule, **common)
        ran += check_by_execution(swept(name, task), cell)
    assert ran >= 29 or "adamp" not in PACKAGES, ran
    for k, name in enumerate(("adamw", "adam", "sgdw:fixed", "sgdp", "adamp:corrected")):
        for j, undecayed in enumerate((("weight",), ("bias",), ("weight", "bias"))):
            decay_all = bool((k + j) % 2)
            task = Task(epochs=2, batch_size=200, decay_all=decay_all, undecayed=undecayed, no_decay=".")
            check_by_execution(swept(name, task), cell)
            (first, *_) = lines(swept(name, task))
            assert "parameters that --no-decay names do not decay" in first.remark


def test_line_without_an_equivalent_is_explained_or_left_out() -> None:
    for name in optimizer_names():
        if name.endswith((":fixed", ":corrected")):  # lr-scaled lines only at a constant rate
            formula = name.startswith(("muon", "kfac"))
            own, *rest = lines(swept(name, Task(schedule=Schedule.FIXED, warmup=1)))
            assert own.code.startswith("dict(" if formula else "optimizer = "), name
            assert [line.code for line in rest] == ([] if formula else [""])
            assert formula or rest[0].remark.startswith("no line for decay that the schedule scales")
            _, *rest = lines(swept(name, Task(schedule=Schedule.FIXED)))
            assert rest or formula, name
            assert all(line.code and "the same while the rate is constant" in line.remark for line in rest)
        assert not any("N**0.5" in line.code for line in lines(imported(name))), name
        (line,) = lines(swept(name), Cell(0.1, 0.0))
        assert "weight_decay" not in line.code
    for coupled in (swept("adam"), imported("adam"), imported(Optimizer(None, DecayRule.COUPLED, "lion"))):
        first, second, *_ = lines(coupled)
        assert (bool(first.code), second.code, second.remark[:11]) == (True, "", "no line for"), second
    unknown = lines(imported("sgd"))  # its momentum and length are not known
    assert "momentum=momentum" in unknown[0].code
    assert not any("the paper's SGDW" in line.remark for line in unknown)
    assert not any("weight_decay" in line.code for line in lines(imported("sgdw")) if "torch" in line.code)
    assert "as the rate is constant" in lines(swept("sgd", Task(schedule=Schedule.FIXED)))[0].remark
    remarks = " ".join(line.remark for line in lines(swept("sgdw", Task(momentum=0.0))))
    assert ("exact without momentum" in remarks, "asymptotically" in remarks) == (True, False)
    first, _, longer = lines(swept("adamw:lr-scaled:normalized"), Cell(0.1, 0.6))
    assert arguments(first.code)["weight_decay"] == pytest.approx(0.6 / 360**0.5)
    (values,) = [line for line in lines(imported("adamw:normalized"), Cell(0.1, 0.6)) if "dict" in line.code]
    for line in (longer, values):
        assert arguments(line.code, 900)["weight_decay"] == pytest.approx(0.6 / 30)
    *_, longer = lines(swept("adamw"), Cell(0.1, 0.06))
    assert arguments(longer.code, 900)["weight_decay"] == pytest.approx(0.6 * (360 / 900) ** 0.5)
