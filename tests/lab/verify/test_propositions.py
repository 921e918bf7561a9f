"""The propositions hold in numbers, for other numbers too, and not for a broken update."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lrwd_sweep.lab.evidence import Relation, Section
from lrwd_sweep.lab.verify.filtering import filtering_identity
from lrwd_sweep.lab.verify.problem import Problem, error, iterates
from lrwd_sweep.lab.verify.propositions import proposition_1, proposition_2, proposition_3
from lrwd_sweep.science.schedule import Schedule
from lrwd_sweep.spec.task import Task

CPU = torch.device("cpu")
SECTIONS = [proposition_1, proposition_2, proposition_3, filtering_identity]


@pytest.mark.parametrize("show", SECTIONS)
def test_every_check_holds(show: Callable[[torch.device], Section], device: torch.device) -> None:
    section = show(device)
    assert section.failures == []
    assert {check.relation for check in section.checks} == set(Relation)


@pytest.mark.usefixtures("_decay_too_strong")
@pytest.mark.parametrize("show", [proposition_3, filtering_identity])
def test_an_update_that_decays_too_much_fails(show: Callable[[torch.device], Section]) -> None:
    assert show(CPU).failures


@settings(deadline=None, max_examples=15)
@given(st.floats(1e-4, 0.3), st.floats(1e-6, 0.05), st.sampled_from(Schedule))
def test_proposition_1_holds_for_any_rate_decay_and_schedule(
    alpha: float, lam: float, schedule: Schedule
) -> None:
    problem = Problem.on(CPU)
    problem = replace(problem, alpha=torch.full_like(problem.alpha, alpha))
    task = Task(momentum=0.0)
    decay = torch.full_like(problem.lam, lam)
    l2 = iterates("sgd", problem, lam=decay / problem.alpha, schedule=schedule, task=task)
    decayed = iterates("sgdw", problem, lam=decay, schedule=schedule, task=task)
    assert error(l2, decayed) < 1e-12
