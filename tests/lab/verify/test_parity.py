"""Each update agrees with its paper and its libraries, and differs only as stated."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError
from types import SimpleNamespace

import pytest
import torch

from lrwd_sweep.lab.evidence import Relation, Section
from lrwd_sweep.lab.verify.libraries import ADAMP, REFERENCES, TIMM, TORCH, Reference
from lrwd_sweep.lab.verify.parity import DIFFERENT, SAME, difference, parity_by_library, parity_with_papers
from lrwd_sweep.lab.verify.problem import Problem
from lrwd_sweep.science.optimizer import optimizer_names

AGREEING = [reference for reference in REFERENCES if not reference.deviates]
DEVIATING = [reference for reference in REFERENCES if reference.deviates]
CPU = torch.device("cpu")


@pytest.mark.parametrize("schedules", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_every_lane_follows_the_library(device: torch.device, schedules: int) -> None:
    problem = Problem.on(device)
    for reference in AGREEING:
        if "does not import" in reference.library.obstacle():  # the library is too new for this torch
            continue
        for schedule in reference.schedules[-schedules:]:
            assert difference(reference, problem, schedule) <= SAME, (reference, schedule)


def test_deviations_are_real(device: torch.device) -> None:
    problem = Problem.on(device)
    for reference in DEVIATING:
        for schedule in reference.schedules:
            assert DIFFERENT <= difference(reference, problem, schedule) < 10, (reference, schedule)


def test_every_family_and_rule_follows_its_paper(device: torch.device) -> None:
    section = parity_with_papers(device)
    assert section.failures == []
    assert {check.cells[1] for check in section.checks} == set(optimizer_names())
    assert {check.cells[0] for check in section.checks} >= {"sgd of the paper", "sgd of torch"}


@pytest.mark.usefixtures("_decay_too_strong")
def test_paper_parity_notices_wrong_decay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lrwd_sweep.lab.verify.parity.optimizer_names", lambda: ["sgdp", "adampw:fixed"])
    assert not any(check.passed for check in parity_with_papers(CPU).checks)


def sections(monkeypatch: pytest.MonkeyPatch, *kept: Reference) -> list[Section]:
    monkeypatch.setattr("lrwd_sweep.lab.verify.parity.REFERENCES", kept)
    return list(parity_by_library(CPU))


def first(library: object) -> Reference:
    return next(reference for reference in AGREEING if reference.library == library)


def test_section_holds_every_reference_of_its_library(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = [reference for reference in REFERENCES if reference.library == TORCH][:2]
    other, section = sections(monkeypatch, first(ADAMP), *kept)
    assert len(other.checks) == 1
    assert [check.cells[0] for check in section.checks] == [reference.call for reference in kept]
    assert all(check.passed for check in section.checks)
    assert section.notes == ()


def test_unusable_library_is_named_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> str:
        raise PackageNotFoundError(name)

    def broken(name: str) -> None:
        raise ImportError("cannot import name 'x'")

    replacements = {
        "not installed; pip install timm": ("version", absent),
        "1.0.9 is installed, 1.0.16 is the oldest that is compared": ("version", lambda _: "1.0.9"),
        "does not import: cannot import name 'x'": ("importlib", SimpleNamespace(import_module=broken)),
    }
    for note, (name, replacement) in replacements.items():
        with monkeypatch.context() as patch:
            patch.setattr(f"lrwd_sweep.lab.verify.libraries.{name}", replacement)
            (section,) = sections(patch, first(TIMM))
        assert (section.checks, section.failures, section.notes) == ((), [], (note,))


def test_optimizer_missing_in_a_version_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = Reference(TORCH, "NoSuchOptimizer", "adam")
    unknown = Reference(TORCH, "Adam", "adam", {"no_such_argument": 1})
    (section,) = sections(monkeypatch, gone, unknown, first(TORCH))
    assert len(section.checks) == 1
    assert [note.partition(" does not run here: ")[0] for note in section.notes] == [gone.call, unknown.call]


@pytest.mark.usefixtures("_decay_too_strong")
def test_wrong_update_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    (section,) = sections(monkeypatch, first(TORCH))
    assert not section.checks[0].passed
    (line,) = section.failures
    assert line.startswith("Parity with torch ")
    assert "SGD(weight_decay=λ′), sgd, momentum 0, fixed, cosine, restarts: the error is" in line


def test_missing_deviation_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = Reference(TORCH, "Adam", "adam", deviates="it does not")
    (section,) = sections(monkeypatch, wrong)
    assert section.checks[0].relation is Relation.DIFFER
    assert not section.checks[0].passed
    assert "there should be one" in section.failures[0]
