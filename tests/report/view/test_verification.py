"""Checks are shown at any width and in any encoding, and failures without colour."""

from __future__ import annotations

import math

from lrwd_sweep.cli.verify import Shown, summary
from lrwd_sweep.lab.evidence import Check, Relation, Section
from tests.report.view.examples import drawn

SECTION = Section(
    "Parity with a library",
    ("theirs", "ours", "schedules"),
    (
        Check(("AdamW(weight_decay=λ/α)", "adamw", "fixed, cosine, restarts"), 3e-16, 1e-10),
        Check(("SGD()", "sgd", "fixed"), 0.0, 1e-10),
        Check(("SGD()", "sgd", "cosine"), 0.07, 1e-6, Relation.DIFFER, "α is outside its buffer"),
        Check(("Broken()", "adam", "fixed"), 0.02, 1e-10),
        Check(("Diverging()", "adam", "fixed"), math.nan, 1e-10),
    ),
    ("Old() does not run here",),
)


def test_every_check_is_shown_at_any_width() -> None:
    for width in (40, 80, 160):
        text = drawn(Shown(SECTION), width)
        assert max(map(len, text.splitlines())) <= width
        for part in ("15.5 digits", "equal", "differ, 7e-02", "FAILED, 2e-02", "FAILED, nan", "adamw",
                     "restarts", "α is outside its buffer", "Old() does not run here"):  # fmt: skip
            assert part in " ".join(text.split()), (width, part)
    (line,) = (line for line in drawn(Shown(SECTION), 100).splitlines() if "AdamW" in line)
    assert " ".join(line.split()) == "AdamW(weight_decay=λ/α) adamw fixed, cosine, restarts 15.5 digits"
    text = drawn(Shown(Section("‖θ ⊙ √s‖² ≈ Σ", ("x",), (), ("λ′/α",))), 80, "ascii")
    assert text.split("\n")[:2] == ["|theta * sqrts|^2 ~ Sigma", " lambda'/alpha"]


def test_summary_counts_the_checks() -> None:
    held = "2 agree, 1 differ as they must"
    assert summary([SECTION], "cpu") == f"5 checks in float64 on cpu: {held}, 2 FAILED"
    assert summary([Section("", ("x",), SECTION.checks[:3])], "cuda:0").endswith(f"on cuda:0: {held}")
