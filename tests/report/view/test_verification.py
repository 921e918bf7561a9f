"""What was shown, in any width and any characters, and what failed without colour."""

from __future__ import annotations

import io
import math

import pytest
from rich.console import Console

from lrwd_sweep.lab.evidence import Check, Relation, Section
from lrwd_sweep.report.view.verification import Shown, summary

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


def drawn(section: Section, width: int, encoding: str = "utf-8") -> str:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding)
    Console(file=stream, width=width, no_color=True, highlight=False).print(Shown(section))
    stream.flush()
    return raw.getvalue().decode(encoding)


@pytest.mark.parametrize("width", [40, 80, 100, 160])
def test_everything_is_said_in_any_width(width: int) -> None:
    text = drawn(SECTION, width)
    assert max(map(len, text.splitlines())) <= width
    flat = " ".join(text.split())
    for part in (
        "15.5 digits",
        "equal",
        "differ, 7e-02",
        "FAILED, 2e-02",
        "FAILED, nan",
        "adamw",
        "restarts",
    ):
        assert part in flat
    assert "α is outside its buffer" in flat
    assert "Old() does not run here" in flat


def test_where_there_is_room_a_check_is_one_line() -> None:
    (line,) = (line for line in drawn(SECTION, 100).splitlines() if "AdamW" in line)
    assert " ".join(line.split()) == "AdamW(weight_decay=λ/α) adamw fixed, cosine, restarts 15.5 digits"


def test_ascii_has_a_word_for_every_letter() -> None:
    text = drawn(Section("‖θ ⊙ √s‖² ≈ Σ", ("x",), SECTION.checks[:0], ("λ′/α",)), 80, "ascii")
    assert "|theta * sqrts|^2 ~ Sigma" in text
    assert "lambda'/alpha" in text


def test_a_section_without_checks_is_its_notes() -> None:
    text = drawn(Section("Parity with timm", ("theirs",), (), ("not installed",)), 80)
    assert text.split("\n")[:2] == ["Parity with timm", " not installed"]


def test_the_summary_counts() -> None:
    held = "2 agree, 1 differ as they must"
    assert summary([SECTION], "cpu") == f"5 checks in float64 on cpu: {held}, 2 FAILED"
    assert summary([Section("", ("x",), SECTION.checks[:3])], "cuda:0").endswith(f"on cuda:0: {held}")
