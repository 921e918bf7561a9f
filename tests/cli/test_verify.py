"""`verify` prints its checks, and ends with exit code 1 and one line if a check fails."""

import math
from typing import Any

import pytest
import torch

from lrwd_sweep.cli.verify import Shown, summary
from lrwd_sweep.lab.verify import Check, Section
from lrwd_sweep.lab.verify.lone_runs import CASES
from lrwd_sweep.lab.verify.parity import REFERENCES
from lrwd_sweep.optim import Update, make_update
from tests.cli.conftest import Run, strict
from tests.report.view.examples import drawn


@pytest.fixture(autouse=True)
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the long sections, which tests/lab runs."""
    monkeypatch.setattr("lrwd_sweep.lab.verify.propositions.EQUILIBRIA", ())
    monkeypatch.setattr("lrwd_sweep.lab.verify.lone_runs.CASES", CASES[:1])
    kfac = Section("K-FAC", ("network",), ())
    monkeypatch.setattr("lrwd_sweep.lab.verify.lone_runs.parity_of_kfac", lambda _: kfac)
    monkeypatch.setattr("lrwd_sweep.lab.verify.parity.REFERENCES", REFERENCES[:1])
    monkeypatch.setattr("lrwd_sweep.lab.verify.parity.optimizer_names", lambda: ["sgdp"])


def test_every_section_is_shown_or_written_as_strict_json(run: Run) -> None:
    shown = run("verify", "--device", "cpu")
    assert (shown.code, shown.err) == (0, "")
    assert shown.out.splitlines()[-1].endswith("differ as they must")
    written = run("verify", "--device", "cpu", "--json")  # the former spelling
    assert (written.code, written.err) == (0, "")
    document = strict(written.out)
    assert (document["schema_version"], document["device"], document["passed"]) == (1, "cpu", True)
    assert len(document["sections"]) == 10
    assert all(section["title"][:30] in shown.out for section in document["sections"])
    checks = [check for section in document["sections"] for check in section["checks"]]
    assert all(check["passed"] for check in checks)
    assert checks[-1]["about"].keys() == {"theirs", "ours", "schedules"}


def test_failed_check_is_one_line_and_exit_code_1(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: Any, alpha: torch.Tensor, lam: torch.Tensor) -> Update:
        return make_update(*arguments, alpha=alpha, lam=1.01 * lam)

    monkeypatch.setattr("lrwd_sweep.lab.verify.problem.make_update", broken)
    shown = run("verify", "--device", "cpu")
    assert shown.code == 1
    assert shown.err.count("\n") == 1
    assert shown.err.startswith("lrwd-sweep: Proposition 3: ")
    assert "more)" in shown.err
    assert "FAILED" in shown.out


SECTION = Section(
    "Parity with a library",
    ("theirs", "ours", "schedules"),
    (
        Check(("AdamW(weight_decay=λ/α)", "adamw", "fixed, cosine, restarts"), 3e-16, 1e-10),
        Check(("SGD()", "sgd", "fixed"), 0.0, 1e-10),
        Check(("SGD()", "sgd", "cosine"), 0.07, 1e-6, "α is outside its buffer"),
        Check(("Broken()", "adam", "fixed"), 0.02, 1e-10),
        Check(("Diverging()", "adam", "fixed"), math.nan, 1e-10),
    ),
    ("Old() does not run here",),
)


def test_checks_are_shown_at_any_width_and_counted() -> None:
    for width in (40, 80, 160):
        text = drawn(Shown(SECTION), width)
        assert max(map(len, text.splitlines())) <= width
        for part in ("15.5 digits", "equal", "differ, 7e-02", "FAILED, 2e-02", "FAILED, nan", "adamw",
                     "restarts", "α is outside its buffer", "Old() does not run here"):  # fmt: skip
            assert part in " ".join(text.split()), (width, part)
    text = drawn(Shown(Section("‖θ ⊙ √s‖² ≈ Σ", ("x",), (), ("λ′/α",))), 80, "ascii")
    assert text.split("\n")[:2] == ["|theta * sqrts|^2 ~ Sigma", " lambda'/alpha"]
    held = "5 checks in float64 on cuda:0: 2 agree, 1 differ as they must, 2 FAILED"
    assert summary([SECTION], "cuda:0") == held
