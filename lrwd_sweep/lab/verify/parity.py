"""Parity of the updates with the papers' algorithms and with the installed libraries, in float64."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from importlib.metadata import version
from itertools import product

import torch
from torch import Tensor

from lrwd_sweep.lab.evidence import Check, Relation, Section
from lrwd_sweep.lab.references import lone_rule, start_of, step_of
from lrwd_sweep.lab.verify.libraries import REFERENCES, Library, Reference
from lrwd_sweep.lab.verify.problem import STEPS, Problem, error, iterates, timetable
from lrwd_sweep.science.optimizer import DecayRule, Family, MomentumForm, Optimizer, optimizer_names
from lrwd_sweep.science.schedule import Schedule
from lrwd_sweep.spec.task import Task

SAME = 1e-10  # relative to the largest |θ|, at every step
DIFFERENT = 1e-6


def parity_with_papers(device: torch.device) -> Section:
    """Compare every family under every decay rule with its algorithm, under warm restarts.

    The references are one-tensor loops in the papers' letters, on every installation. K-FAC, which needs a
    network, has a section of its own.
    """
    problem, checks = Problem.on(device), []
    of_tensors = [name for name in optimizer_names() if Optimizer.parse(name).family is not Family.KFAC]
    tasks = [(name, Task()) for name in of_tensors]
    tasks += [(name, Task()) for name in ("sgdw:cautious", "adamw:cautious", "adamw:lr-scaled:cautious")]
    torch_form = Task(momentum_form=MomentumForm.TORCH)
    for name, task in [*tasks, ("sgd", torch_form), ("sgdw:lr-scaled", torch_form)]:
        lam = _decay(name, problem)
        ours = iterates(name, problem, lam=lam, schedule=Schedule.RESTARTS, task=task)
        optimizer = Optimizer.parse(name)
        algorithm = step_of(optimizer, task).__name__.replace("_", " ")
        only = "[uθ≥0]" * optimizer.cautious
        cells = (algorithm, name, optimizer.rule.update + only)
        checks.append(Check(cells, error(ours, _reference(optimizer, task, problem, lam)), SAME))
    return Section(
        "Parity with the papers' algorithms, restarts schedule", ("algorithm", "ours", "decay"), tuple(checks)
    )


@torch.inference_mode()
def _reference(optimizer: Optimizer, task: Task, problem: Problem, lam: Tensor) -> Tensor:
    """Return θ (steps, L, P) of the reference, a lane and a tensor at a time."""
    theta, times, found = problem.theta.clone(), timetable(Schedule.RESTARTS), []
    for row, part in product(theta, problem.layout):
        row[part.columns] = start_of(optimizer, row[part.columns].view(part.shape)).flatten()
    lanes = zip(problem.alpha.flatten().tolist(), lam.flatten().tolist(), strict=True)
    rules = [[lone_rule(optimizer, task, alpha, decay) for _ in problem.layout] for alpha, decay in lanes]
    for t in range(STEPS):
        g, now = problem.gradient(theta, t + 1), (times.eta(t), t + 1, times.steps_of_cycle(t))
        for of_lane, row, of_row in zip(rules, theta, g, strict=True):
            for rule, part in zip(of_lane, problem.layout, strict=True):
                before, slope = (x[part.columns].view(part.shape) for x in (row, of_row))
                row[part.columns] = rule(before, slope, *now).flatten()
        found.append(theta.clone())
    return torch.stack(found)


def parity_by_library(device: torch.device) -> Iterator[Section]:
    """Compare every optimizer of every library with ours, under each of its schedules."""
    for library in dict.fromkeys(reference.library for reference in REFERENCES):
        yield _section(library, Problem.on(device))


def _section(library: Library, problem: Problem) -> Section:
    title, headings = f"Parity with {library.name}", ("theirs", "ours", "schedules")
    if why_not := library.obstacle():
        return Section(title, headings, (), (why_not,))
    checks, notes = [], []
    for reference in REFERENCES:
        if reference.library != library:
            continue
        if why_not := _obstacle(reference, problem):
            notes.append(f"{reference.call} does not run here: {why_not}")
        else:
            checks.append(_check(reference, problem))
    return Section(f"{title} {version(library.name)}", headings, tuple(checks), tuple(notes))


def _obstacle(reference: Reference, problem: Problem) -> str:
    """Return why the installed version has no such optimizer, or an empty text."""
    try:
        reference.make([problem.theta.clone().requires_grad_()], alpha=0.1, decay=0.0)
    except (AttributeError, TypeError, ValueError) as why:
        return f"{type(why).__name__}: {why}"
    return ""


def _check(reference: Reference, problem: Problem) -> Check:
    """Keep the largest error over the schedules; of a reference that deviates, the smallest."""
    errors = [difference(reference, problem, schedule) for schedule in reference.schedules]
    cells = (reference.call, reference.our_call, ", ".join(reference.schedules))
    if reference.deviates:
        return Check(cells, _least(errors), DIFFERENT, Relation.DIFFER, reference.deviates)
    return Check(cells, _most(errors), SAME)


def _least(errors: list[float]) -> float:
    return torch.tensor(errors).double().min().item()  # NaN where one is


def _most(errors: list[float]) -> float:
    return torch.tensor(errors).double().max().item()


def difference(reference: Reference, problem: Problem, schedule: Schedule) -> float:
    """Compute the largest difference of θ over all steps, lanes and tensors, relative to the largest |θ|."""
    problem, lam = problem.of_dimensions(reference.dimensions), _decay(reference.ours, problem)
    ours = iterates(reference.ours, problem, lam=lam, schedule=schedule, task=reference.task)
    with in_float64() if reference.in_bfloat16 else nullcontext():
        return error(ours, _theirs(reference, problem, lam, schedule))


@contextmanager
def in_float64() -> Iterator[None]:
    """Make Tensor.bfloat16 a copy of the same type within the block."""
    bfloat16 = Tensor.bfloat16
    Tensor.bfloat16 = Tensor.clone  # type: ignore[method-assign]
    try:
        yield
    finally:
        Tensor.bfloat16 = bfloat16  # type: ignore[method-assign]


def _decay(ours: str, problem: Problem) -> Tensor:  # (L, 1)
    """Convert the problem's decay per step to an optimizer's convention, at η = 1 and without momentum."""
    per_step = Optimizer.parse(ours).rule in (DecayRule.INDEPENDENT, DecayRule.FIXED)
    return problem.lam if per_step else problem.lam / problem.alpha


def _theirs(
    reference: Reference,
    problem: Problem,
    lam: Tensor,  # (L, 1)
    schedule: Schedule,
) -> Tensor:  # (steps, L, P)
    """Run the library on one lane at a time, its parameters views of that lane's row; η_t sets its lr."""
    theta, times = problem.theta.clone(), timetable(schedule)
    g = torch.empty_like(theta)
    alphas = problem.alpha.flatten().tolist()
    lanes = []
    for row, of_row, alpha, decay in zip(theta, g, alphas, lam.flatten().tolist(), strict=True):
        parameters = []
        for segment in problem.layout:
            parameter = torch.nn.Parameter(row[segment.columns].view(segment.shape))
            parameter.grad = of_row[segment.columns].view(segment.shape)
            parameters.append(parameter)
        lanes.append(reference.make(parameters, alpha, decay))
    found = []
    for t in range(1, STEPS + 1):
        g.copy_(problem.gradient(theta, t))
        for optimizer, alpha in zip(lanes, alphas, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = alpha * times.eta(t - 1)
            optimizer.step()
        found.append(theta.clone())
    return torch.stack(found)
