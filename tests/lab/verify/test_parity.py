"""Each update is what the libraries compute that it is compared with, and differs where it must."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError
from types import SimpleNamespace

import pytest
import torch

from lrwd_sweep.lab.evidence import Relation, Section
from lrwd_sweep.lab.verify.libraries import ADAMP, REFERENCES, TIMM, TORCH, Reference
from lrwd_sweep.lab.verify.parity import DIFFERENT, SAME, difference, parity_by_library
from lrwd_sweep.lab.verify.problem import STEPS, Problem, iterates, timetable
from lrwd_sweep.science.decay import DecayRule
from lrwd_sweep.science.optimizer import Family, Optimizer
from lrwd_sweep.science.schedule import Schedule

AGREEING = [reference for reference in REFERENCES if not reference.deviates]
DEVIATING = [reference for reference in REFERENCES if reference.deviates]
CPU = torch.device("cpu")


def label(reference: Reference) -> str:
    return f"{reference.library.name}-{reference.call}-{reference.our_call}".replace(" ", "")


@pytest.mark.parametrize("reference", AGREEING, ids=label)
def test_every_lane_is_the_reference(reference: Reference, device: torch.device) -> None:
    if "does not import" in (why := reference.library.obstacle()):  # a library that is too new for this torch
        pytest.skip(why)
    problem = Problem.on(device)
    for schedule in reference.schedules:
        assert difference(reference, problem, schedule) <= SAME, schedule


@pytest.mark.parametrize("reference", DEVIATING, ids=label)
def test_a_deviation_is_one(reference: Reference, device: torch.device) -> None:
    problem = Problem.on(device)
    for schedule in reference.schedules:
        assert DIFFERENT <= difference(reference, problem, schedule) < 10, schedule


def test_every_family_and_rule_has_its_reference() -> None:
    compared = [Optimizer.parse(reference.ours) for reference in AGREEING]
    assert {optimizer.family for optimizer in compared} == set(Family)
    assert {optimizer.rule for optimizer in compared} == set(DecayRule)
    for rule in (DecayRule.INDEPENDENT, DecayRule.LR_SCALED, DecayRule.CORRECTED):
        families = {optimizer.family for optimizer in compared if optimizer.rule is rule}
        assert {Family.SGD, Family.ADAM} <= families


def test_the_runs_are_long_and_their_schedules_move() -> None:
    assert STEPS >= 100
    for schedule in (Schedule.COSINE, Schedule.RESTARTS):
        assert len({timetable(schedule).eta(t) for t in range(STEPS)}) > 30
    assert [timetable(Schedule.RESTARTS).eta(t) for t in (0, 30)] == [1, 1]
    assert timetable(Schedule.RESTARTS).eta(29) < 0.01


def test_the_problem_has_tensors_that_a_projection_finds_and_others() -> None:
    problem = Problem.on(CPU)
    g = problem.gradient(problem.theta, 1)
    cosines = {}
    for segment in problem.layout:
        mine, weights = (x[0, segment.columns].view(segment.shape[0], -1) for x in (g, problem.theta))
        by_row = torch.cosine_similarity(mine, weights).abs().max().item()
        whole = torch.cosine_similarity(mine.flatten(), weights.flatten(), dim=0).abs().item()
        cosines[segment.name] = by_row < 1e-12, whole < 1e-12
    assert cosines["invariant by row"] == (True, True)
    assert cosines["invariant"] == (False, True)
    assert cosines["ordinary"] == cosines["vector"] == (False, False)


def test_decay_and_schedule_move_the_iterates_far_more_than_the_tolerance() -> None:
    problem = Problem.on(CPU)
    plain = iterates("adamw", problem, lam=0 * problem.lam)
    decayed = iterates("adamw", problem, lam=problem.lam)
    scheduled = iterates("adamw", problem, lam=problem.lam, schedule=Schedule.COSINE)
    for lane in range(3):
        assert (decayed - plain)[-1, lane].abs().max() > 1e-3
        assert (scheduled - decayed)[-1, lane].abs().max() > 1e-3


def sections(monkeypatch: pytest.MonkeyPatch, *kept: Reference) -> list[Section]:
    monkeypatch.setattr("lrwd_sweep.lab.verify.parity.REFERENCES", kept)
    return list(parity_by_library(CPU))


def first(library: object) -> Reference:
    return next(reference for reference in AGREEING if reference.library == library)


def test_a_section_holds_every_reference_of_its_library(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = [reference for reference in REFERENCES if reference.library == TORCH][:2]
    other, section = sections(monkeypatch, first(ADAMP), *kept)
    assert len(other.checks) == 1
    assert [check.cells[0] for check in section.checks] == [reference.call for reference in kept]
    assert all(check.passed for check in section.checks)
    assert section.notes == ()


def test_a_library_that_is_not_installed_is_said_to_be_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr("lrwd_sweep.lab.verify.libraries.version", nothing)
    (section,) = sections(monkeypatch, first(TIMM))
    assert (section.checks, section.failures) == ((), [])
    assert section.notes == ("not installed; pip install timm",)


def test_a_library_that_does_not_import_is_said_to_be_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> None:
        raise ImportError("cannot import name 'x'")

    monkeypatch.setattr("lrwd_sweep.lab.verify.libraries.importlib", SimpleNamespace(import_module=broken))
    (section,) = sections(monkeypatch, first(ADAMP))
    assert (section.checks, section.notes) == ((), ("does not import: cannot import name 'x'",))


def test_an_older_library_than_was_compared_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lrwd_sweep.lab.verify.libraries.version", lambda _: "1.0.9")
    (section,) = sections(monkeypatch, first(TIMM))
    assert (section.checks, section.failures) == ((), [])
    assert section.notes == ("1.0.9 is installed, 1.0.16 is the oldest that is compared",)


def test_an_optimizer_that_a_version_lacks_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = Reference(TORCH, "NoSuchOptimizer", "adam")
    unknown = Reference(TORCH, "Adam", "adam", {"no_such_argument": 1})
    (section,) = sections(monkeypatch, gone, unknown, first(TORCH))
    assert len(section.checks) == 1
    assert [note.partition(" does not run here: ")[0] for note in section.notes] == [gone.call, unknown.call]


@pytest.mark.usefixtures("_decay_too_strong")
def test_an_update_that_is_off_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    (section,) = sections(monkeypatch, first(TORCH))
    assert not section.checks[0].passed
    (line,) = section.failures
    assert line.startswith("Parity with torch ")
    assert "SGD(weight_decay=λ′), sgd, momentum 0, fixed, cosine, restarts: the error is" in line


def test_a_deviation_that_is_none_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = Reference(TORCH, "Adam", "adam", deviates="it does not")
    (section,) = sections(monkeypatch, wrong)
    assert section.checks[0].relation is Relation.DIFFER
    assert not section.checks[0].passed
    assert "there should be one" in section.failures[0]
