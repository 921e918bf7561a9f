"""Parity: our updates and those of the libraries installed here, step by step in float64."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import version

import torch
from torch import Tensor

from lrwd_sweep.lab.verify.problem import STEPS, Problem, error, iterates, timetable
from lrwd_sweep.lab.verify.references import REFERENCES, Library, Reference
from lrwd_sweep.report.evidence import Check, Relation, Section
from lrwd_sweep.science.decay import DecayRule
from lrwd_sweep.science.optimizer import Optimizer
from lrwd_sweep.science.schedule import Schedule

SAME = 1e-10  # relative to the largest |θ|, at every step
DIFFERENT = 1e-6


def parity_by_library(device: torch.device) -> Iterator[Section]:
    """A section per library: every reference against ours, under each of its schedules."""
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
    """Why the installed version has no such optimizer; empty where it has."""
    try:
        reference.make([problem.theta.clone().requires_grad_()], alpha=0.1, decay=0.0)
    except (AttributeError, TypeError, ValueError) as why:
        return f"{type(why).__name__}: {why}"
    return ""


def _check(reference: Reference, problem: Problem) -> Check:
    """The worst of its schedules; of a reference that deviates, the one with the smallest difference."""
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
    """Largest difference of θ over all steps, lanes and tensors, relative to the largest |θ|."""
    lam = _decay(reference.ours, problem)
    ours = iterates(reference.ours, problem, lam=lam, schedule=schedule, task=reference.task)
    return error(ours, _theirs(reference, problem, lam, schedule))


def _decay(ours: str, problem: Problem) -> Tensor:  # (L, 1)
    """The problem's decay per step in an optimizer's own convention, at η = 1 and without momentum."""
    per_step = Optimizer.parse(ours).rule in (DecayRule.INDEPENDENT, DecayRule.FIXED)
    return problem.lam if per_step else problem.lam / problem.alpha


def _theirs(
    reference: Reference,
    problem: Problem,
    lam: Tensor,  # (L, 1)
    schedule: Schedule,
) -> Tensor:  # (steps, L, P)
    """The reference on every lane alone, its parameters views of that lane's row; η_t sets its lr."""
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
