"""A task has its papers' hyperparameters, and fields without a user are refused."""

from __future__ import annotations

from typing import Any

import pytest

from lrwd_sweep.errors import UsageError
from lrwd_sweep.science.optimizer import Optimizer
from lrwd_sweep.science.schedule import Schedule
from lrwd_sweep.spec.preset import refuse_unused
from lrwd_sweep.spec.task import Task


def test_each_family_has_its_papers_hyperparameters() -> None:
    def found(name: str, **given: Any) -> tuple[float | None, ...]:
        t = Task(**given).of(Optimizer.parse(name))
        return t.momentum, t.beta1, t.beta2, t.eps

    assert found("sgdw") == (0.9, 0.9, 0.999, 1e-8)
    assert found("rmsprop") == (0.0, 0.9, 0.99, 1e-8)
    assert found("adagradw") == (0.9, 0.9, 0.999, 1e-10)
    assert found("adamp", beta2=0.95, momentum=0.5) == (0.9, 0.9, 0.95, 1e-8)


def test_normalised_decay_counts_the_steps_of_the_last_whole_cycle() -> None:
    assert Task().decay_steps == 360
    restarts = Task(schedule=Schedule.RESTARTS)
    assert restarts.timetable.snapshots == (4, 12, 28, 60)
    assert restarts.decay_steps == 32 * 6
    assert restarts.changed(epochs=50, t_0=4).decay_steps == 16 * 6
    assert restarts.changed(epochs=50, t_0=60).decay_steps == 60 * 6  # no whole cycle: the one it is in


def test_a_field_that_no_optimizer_or_schedule_uses_is_refused() -> None:
    for given_, names, complaint in (
        ({"nesterov": True}, ["adam"], "nesterov has no effect on adam; it is for sgd, sgdp, adamp"),
        ({"momentum": 0.5}, ["adam", "adamw"], "momentum has no effect on adam; it is for sgd, rmsprop"),
        ({"beta1": 0.5}, ["sgdw"], "beta1 has no effect on sgd; it is for adam, amsgrad, adamp"),
        ({"t_0": 5}, ["sgdw"], "t_0 has no effect on schedule cosine; add schedule='restarts'"),
    ):
        with pytest.raises(UsageError, match=f"^{complaint}"):
            refuse_unused(given_, [Optimizer.parse(name) for name in names], ["cosine"])
    both = [Optimizer.parse(name) for name in ("sgd", "adam")]
    refuse_unused({"nesterov": True, "eps": 1e-6, "epochs": 5}, both, ["cosine"])  # one user is enough
    refuse_unused({"beta1": 0.5, "beta2": 0.5}, [Optimizer.parse("rmsprop")], ["cosine"])
    refuse_unused({"t_0": 5}, both, ["cosine", "restarts"])
