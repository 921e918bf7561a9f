"""What `verify` claims holds in numbers, fails for a broken update, and names what it cannot compare."""

import json
import math
from dataclasses import replace
from importlib.metadata import PackageNotFoundError
from itertools import product
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import torch

from lrwd_sweep.lab.verify import Check, Relation, Section, parity, propositions
from lrwd_sweep.lab.verify.lone_runs import parity_of_flat_minima, parity_of_kfac
from lrwd_sweep.lab.verify.problem import Problem
from lrwd_sweep.optim import make_update
from lrwd_sweep.science.optimizer import optimizer_names
from tests.small import CPU

GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
CASE = propositions.EQUILIBRIA[0]
FIRST = next(each for each in parity.REFERENCES if each.library == parity.TORCH and not each.deviates)
CLAIMS = ("proposition_1", "proposition_2", "proposition_3", "filtering_identity", "scale_invariance")


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=GPU)])
def device(request: pytest.FixtureRequest) -> torch.device:
    return torch.device(request.param)


@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_lanes_follow_the_libraries_and_deviations_are_real(device: torch.device, every: bool) -> None:
    problem = Problem.on(device)
    for reference in parity.REFERENCES:
        if "does not import" in reference.library.obstacle():  # the library is too new for this torch
            continue
        for schedule in reference.schedules if every else reference.schedules[-1:]:
            apart = parity.difference(reference, problem, schedule)
            low, high = (parity.DIFFERENT, 10) if reference.deviates else (0, parity.SAME)
            assert low <= apart <= high, (reference, schedule)


def test_every_family_and_rule_follows_its_paper(device: torch.device) -> None:
    section = parity.parity_with_papers(device)
    assert section.failures == []
    of_tensors = {name for name in optimizer_names() if not name.startswith("kfac")}
    assert {check.cells[1] for check in section.checks} >= of_tensors | {"adamw:cautious"}
    for section, checks in ((parity_of_flat_minima(device), 12), (parity_of_kfac(device), 6)):
        assert (section.failures, len(section.checks)) == ([], checks)


def test_propositions_hold_and_rotation_follows_its_formula(device: torch.device) -> None:
    for claim in CLAIMS:
        section = getattr(propositions, claim)(device)
        assert (section.failures, {check.relation for check in section.checks}) == ([], set(Relation)), claim
    section = propositions.equilibrium_rotation(device)
    assert (section.failures, len(section.checks)) == ([], 11)
    assert {round(CASE.angle(*cell), 5) for cell in CASE.cells} == {0.01026}  # of SGDW, whatever the rate


def test_decay_that_is_too_strong_by_a_hundredth_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("problem", "propositions"):
        name = f"lrwd_sweep.lab.verify.{module}.make_update"
        monkeypatch.setattr(name, lambda *of, alpha, lam: make_update(*of, alpha=alpha, lam=1.01 * lam))
    monkeypatch.setattr("lrwd_sweep.lab.verify.parity.optimizer_names", lambda: ["sgdp", "adampw:fixed"])
    monkeypatch.setattr(propositions, "EQUILIBRIA", (replace(CASE, cells=((0.01, 1e-3),)),))
    assert not any(check.passed for check in parity.parity_with_papers(CPU).checks)
    for claim in ("proposition_3", "filtering_identity", "equilibrium_rotation"):
        assert getattr(propositions, claim)(CPU).failures, claim
    ((line,),) = (section.failures for section in _sections(monkeypatch, FIRST))
    assert "SGD(weight_decay=λ′), sgd, momentum 0, fixed, cosine, restarts: the error is" in line


def _sections(monkeypatch: pytest.MonkeyPatch, *kept: parity.Reference) -> list[Section]:
    monkeypatch.setattr("lrwd_sweep.lab.verify.parity.REFERENCES", kept)
    return list(parity.parity_by_library(CPU))


def test_references_that_cannot_run_are_named_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = Mock(side_effect=PackageNotFoundError("timm"))
    broken = SimpleNamespace(import_module=Mock(side_effect=ImportError("cannot import name 'x'")))
    timm = next(each for each in parity.REFERENCES if each.library == parity.TIMM)
    for note, name, replacement in (
        ("not installed; pip install timm", "version", absent),
        ("1.0.9 is installed, 1.0.16 is the oldest that is compared", "version", lambda _: "1.0.9"),
        ("does not import: cannot import name 'x'", "importlib", broken),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(f"lrwd_sweep.lab.verify.parity.{name}", replacement)
            (section,) = _sections(patch, timm)
        assert (section.checks, section.failures, section.notes) == ((), [], (note,))
    gone = parity.Reference(parity.TORCH, "NoSuch", "adam")
    wrong = parity.Reference(parity.TORCH, "Adam", "adam", deviates="it does not")
    (section,) = _sections(monkeypatch, gone, FIRST, wrong)
    assert [note.partition(" does not run here: ")[0] for note in section.notes] == [gone.call]
    assert [check.passed for check in section.checks] == [True, False]
    assert "there should be one" in section.failures[0]


def test_check_fails_without_a_finite_error() -> None:
    for why, error in product(("", "it must differ"), (math.nan, math.inf)):
        check = Check(("x",), error, 1e-3, why)
        assert (check.passed, check.digits) == (False, 0), (error, why)
        section = Section("about", ("what",), (check,)).to_dict()
        assert json.loads(json.dumps(section, allow_nan=False))["checks"][0]["error"] is None
