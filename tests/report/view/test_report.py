"""Reports in every format: complete, harmless, and the same every time."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import typer

from lrwd_sweep.cli.app import app
from lrwd_sweep.report.gates import Gate, GateOutcome, MaxAbsSlope, MaxBest, MaxFailed
from lrwd_sweep.report.result import Result, comparison, result
from lrwd_sweep.report.view.csv_table import csv_table
from lrwd_sweep.report.view.output_file import Format
from lrwd_sweep.report.view.markdown import code, escaped
from lrwd_sweep.report.view.fields import gate_value
from lrwd_sweep.report.view.report import render
from lrwd_sweep.report.view.report import text_of as text_for_file
from lrwd_sweep.report.view.markdown import LEFT_OUT
from lrwd_sweep.science.lattice import Cell, Lattice
from lrwd_sweep.science.trial import Status, Trial
from lrwd_sweep.spec.study import Kind
from tests.report.view.examples import drawn, study


def text_of(
    results: list[Result],
    form: Format,
    encoding: str = "utf-8",
    width: int = 100,
    gates: Sequence[Gate] = (),
) -> str:
    """A report of all results, compared pair by pair and judged by gates."""
    outcomes = [gate.check(result) for result in results for gate in gates]
    found = render(results, [comparison(a, b) for a, b in pairwise(results)], form, outcomes)
    return found if isinstance(found, str) else drawn(found, width, encoding)


@pytest.mark.parametrize("form", list(Format))
def test_the_same_results_give_the_same_bytes(form: Format) -> None:
    assert text_of([study("a", "adam"), study("b")], form) == text_of([study("a", "adam"), study("b")], form)


@pytest.mark.parametrize("form", [Format.TABLE, Format.MARKDOWN, Format.JSON, Format.JUNIT, Format.HTML])
def test_every_gate_is_reported_with_its_value_and_limit(form: Format) -> None:
    found = study("a")
    gates: list[Gate] = [MaxBest(0.0625), MaxAbsSlope(0.1), MaxFailed(3)]
    text = text_of([found], form, width=300, gates=gates)
    (best,) = found.ranked(1)
    for part in ("max-best", "0.0625", f"{best.value:.6g}"[:6], "max-abs-slope", "0.1", "max-failed", "3"):
        assert part in text
    without = text_of([found], form, width=300)
    assert "max-failed" not in without


def test_a_value_that_rounds_to_the_other_side_of_its_limit_is_shown_in_full() -> None:
    near = Outcome("max-best", "a", 0.15000000001, 0.15, passed=False)
    assert gate_value(near) == "0.15000000001"
    assert gate_value(replace(near, value=0.14999999999, passed=True)) == "0.15"
    assert gate_value(replace(near, value=0.2)) == "0.2"
    assert gate_value(replace(near, value=None)) == "undetermined"


def test_gates_stand_first_in_markdown_so_that_no_cut_loses_them() -> None:
    text = text_of([study("a")], Format.MARKDOWN, gates=[MaxFailed(0)])
    assert text.startswith("## Gates\n\n| gate | limit | study | value | result | ")
    assert "| max-failed | 0 | adamw | 1 | FAILED | " in text


def test_markdown_of_a_huge_lattice_keeps_its_numbers_and_says_what_is_missing() -> None:
    lattice = Lattice(tuple(1.0 + np.arange(120)), tuple(1.0 + np.arange(120)))
    spec = replace(study().spec, lattice=lattice, seeds=(0,))
    trials = [
        Trial(c, 0, Status.COMPLETE, {"val_loss": 0.1 + c.lr + c.weight_decay}) for c in lattice.cells()
    ]
    huge = result("huge", spec, "", trials)
    text = text_of([huge, study()], Format.MARKDOWN)
    assert len(text) <= 65_536
    assert LEFT_OUT in text
    assert "ridge slope s" in text
    assert "slope difference" in text


def test_a_table_for_a_file_is_what_a_pipe_would_get() -> None:
    report = render([study()], [], Format.TABLE)
    assert not isinstance(report, str)
    assert text_for_file(report) == drawn(report, 100)


def test_the_help_of_report_names_every_format() -> None:
    command = typer.main.get_command(app).commands["report"]  # type: ignore[attr-defined]
    option = next(parameter for parameter in command.params if parameter.name == "form")
    assert not [form for form in Format if str(form) not in option.help]


@pytest.mark.parametrize("form", [Format.TABLE, Format.MARKDOWN])
def test_the_verdict_names_both_formulas(form: Format) -> None:
    a, b = study("a", "adam"), study("b")
    text = " ".join(text_of([a, b], form, width=400).split())
    for found in (a, b):
        assert f"({found.spec.optimizer.formula})" in text


@pytest.mark.parametrize("form", [Format.TABLE, Format.MARKDOWN])
def test_every_metric_is_reported(form: Format) -> None:
    text = text_of([study("a", "adam"), study("b")], form)
    for label in (
        "verdict",
        "ridge slope s",
        "reverse slope s′",
        "curvature coupling ρ",
        "transfer regret, 1 octave",
        "interaction share",
        "top-10 tilt",
        "basin",
        "learning rate α",
        "w lr-scaled",
        "averaging time scale, η = 1",
        "on the test split",
        "on the lattice's edge",
        "slope difference",
    ):
        assert label in text


def test_table_is_written_on_an_ascii_console() -> None:
    text = text_of([study("a", "adam"), study("b")], Format.TABLE, "ascii", width=300)
    assert "(g <- g + lambda'*theta ; theta <- theta - eta*alpha*m_hat/(sqrt(v_hat)+eps))" in text
    assert "\\u" not in text


def test_studies_of_one_optimizer_are_told_apart_by_name() -> None:
    lines = text_of([study("first"), study("second")], Format.TABLE).splitlines()
    assert any(line.startswith("first: ") for line in lines)
    assert any(line.startswith("second: ") for line in lines)


def test_markdown_escapes_what_means_something() -> None:
    assert escaped("a|b_c*<script>@all") == "a\\|b\\_c\\*&lt;script>@<!-- -->all"
    assert code("a`b") == "`` a`b ``"


def test_markdown_lattice_has_one_row_per_learning_rate_and_a_star() -> None:
    text = text_of([study()], Format.MARKDOWN)
    rows = [line for line in text.splitlines() if line.startswith("| 2⁻")]
    assert [row.count("|") for row in rows] == [7] * 5
    assert sum(row.count("★") for row in rows) == 1
    assert rows[-1].split(" | ")[1:4] == ["×", "!", ".41~"]


def rows_of(text: str) -> list[dict[str, str]]:
    """A CSV text by columns."""
    return list(csv.DictReader(io.StringIO(text)))


def test_csv_floats_come_back_bit_for_bit_and_missing_lanes_have_no_row() -> None:
    found = study()
    rows = rows_of(csv_table([found]))
    assert list(rows[0]) == ["lr", "weight_decay", "seed", "value", "status", "decay_rule", "test_loss"]
    assert len(rows) == len(found.trials) == 74
    complete = {(t.cell, t.seed): t.metrics["val_loss"] for t in found.trials if t.status is Status.COMPLETE}
    read = {
        (Cell(float(r["lr"]), float(r["weight_decay"])), int(r["seed"])): float(r["value"])
        for r in rows
        if r["status"] == "complete"
    }
    assert read == complete
    assert [(r["status"], r["value"]) for r in rows if r["status"] != "complete"] == [
        ("diverged", "nan"),
        ("failed", ""),
    ]


def test_csv_of_several_studies_names_each() -> None:
    rows = rows_of(csv_table([study("=cmd()"), study("b")]))
    assert {row["study"] for row in rows} == {"'=cmd()", "b"}


def test_csv_keeps_negative_numbers_as_numbers() -> None:
    found = study()
    negative = [replace(t, metrics={m: -v for m, v in t.metrics.items()}) for t in found.trials]
    rows = rows_of(csv_table([result("n", found.spec, "", negative)]))
    assert all(float(row["value"]) < 0 for row in rows if row["status"] == "complete")


def tpe_study() -> Result:
    """Points between the cells, two of them near one cell."""
    spec = replace(study().spec, kind=Kind.TPE, seeds=(0,))
    lr, weight_decay = spec.lattice.lr[2], spec.lattice.weight_decay[3]
    points = [(1.1, 1.1, 0.3), (0.9, 1.2, 0.1), (4.2, 1.0, 0.4)]
    trials = [
        Trial(Cell(x * lr, y * weight_decay), 0, Status.COMPLETE, {"val_loss": value, "test_loss": value})
        for x, y, value in points
    ]
    return result("tpe", spec, "", trials)


def test_a_search_is_drawn_as_the_lattice_of_its_nearest_cells() -> None:
    surface = tpe_study().surface
    assert surface.mean[2, 3] == pytest.approx(0.2)
    assert surface.mean[4, 3] == pytest.approx(0.4)
    assert sum(math.isfinite(value) for value in surface.mean.flat) == 2


def test_a_search_lists_its_own_best_points() -> None:
    found = tpe_study()
    assert [candidate.value for candidate in found.ranked(10)] == [0.1, 0.3, 0.4]
    assert found.best is not None
    assert found.best.lr == pytest.approx(0.9 * found.spec.lattice.lr[2])
    assert "best of adamw" in text_of([found], Format.TABLE)
    assert "| 3 | " in text_of([found], Format.MARKDOWN)


@pytest.mark.parametrize("form", list(Format))
@pytest.mark.parametrize("absurd", [1e300, -1e300])
def test_one_absurdly_large_value_is_reported_in_every_format(form: Format, absurd: float) -> None:
    found = study()
    trials = [
        replace(trial, metrics={**trial.metrics, "val_loss": absurd}) if k == 40 else trial
        for k, trial in enumerate(found.trials)
    ]
    text = text_of([result(found.name, found.spec, found.created, trials)], form)
    assert "0" * 30 not in text
