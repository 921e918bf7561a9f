"""Reports are complete in every format, and the same every time."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import html5lib
import numpy as np
import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from lrwd_sweep.cli.app import app
from lrwd_sweep.report.gates import Gate, MaxAbsSlope, MaxBest, MaxFailed, Require
from lrwd_sweep.report.result import Result, comparison, result
from lrwd_sweep.report.view.csv_table import csv_table
from lrwd_sweep.report.view.markdown import CUT, LEFT_OUT, MOST_CHARACTERS, code, escaped, fitted
from lrwd_sweep.report.view.output_file import Format
from lrwd_sweep.report.view.report import notebook_html, render
from lrwd_sweep.report.view.report import text_of as text_for_file
from lrwd_sweep.report.view.terminal import Report
from lrwd_sweep.science.decay import DecayRule
from lrwd_sweep.science.lattice import Cell, Lattice
from lrwd_sweep.science.optimizer import Optimizer
from lrwd_sweep.science.separability import Verdict
from lrwd_sweep.science.trial import Status, Trial
from lrwd_sweep.spec.study import Kind
from tests import studies
from tests.report.view.examples import HOSTILE, drawn, harmful, study


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


def test_the_same_results_give_the_same_bytes() -> None:
    results = [study("a", "adam"), study("b")]
    for form in Format:
        assert text_of(results, form) == text_of(results, form), form


def test_every_gate_is_reported_with_its_value_and_limit() -> None:
    found = study("a")
    gates: list[Gate] = [MaxBest(0.0625), MaxAbsSlope(0.1), MaxFailed(3)]
    (best,) = found.ranked(1)
    for form in Format:
        if form is not Format.CSV:
            text = text_of([found], form, width=300, gates=gates)
            for part in ("max-best", "0.0625", f"{best.value:.6g}"[:6], "max-abs-slope", "max-failed", "3"):
                assert part in text, (form, part)
            assert "max-failed" not in text_of([found], form, width=300), form


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


def test_table_and_markdown_hold_formulas_and_every_measure() -> None:
    a, b = study("a", "adam"), study("b")
    labels = """verdict|ridge slope s|reverse slope s′|curvature coupling ρ|transfer regret, 1 octave
interaction share|top-10 tilt|basin|learning rate α|w lr-scaled|averaging time scale, η = 1
on the test split|on the lattice's edge|slope difference"""
    for form in (Format.TABLE, Format.MARKDOWN):
        text = " ".join(text_of([a, b], form, width=400).split())
        for part in [*labels.replace("\n", "|").split("|"), *(f"({each.spec.formula})" for each in (a, b))]:
            assert part in text, (form, part)


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


def test_one_absurdly_large_value_is_reported_in_every_format() -> None:
    found = study()
    for absurd in (1e300, -1e300):
        trials = [
            replace(trial, metrics={**trial.metrics, "val_loss": absurd}) if k == 40 else trial
            for k, trial in enumerate(found.trials)
        ]
        results = [result(found.name, found.spec, found.created, trials)]
        for form in Format:
            assert "0" * 30 not in text_of(results, form), (form, absurd)


def test_markdown_and_html_mark_cells_that_lack_seeds() -> None:
    every = [(i, j, seed) for i in range(7) for j in range(7) for seed in range(3)]
    stopped = studies.without(studies.study(), *(lane for lane in every if lane[2] or lane[0] == 6))
    text = text_of([stopped], Format.MARKDOWN)
    assert text.count("~ |") == 42
    assert "~ some seeds are missing (42 of 147 runs)" in text
    page = text_of([stopped], Format.HTML)
    assert page.count("~</text>") == 42
    assert "some seeds are missing (42 of 147 runs)" in page
    assert "some seeds are missing" not in text_of([studies.study()], Format.HTML)


def indifferent(name: str = "mine", seeds: int = 3) -> Result:
    """Return a study in which α matters and λ does not."""
    found = studies.study(lambda a, _: 0.1 + 0.01 * a**2, name, seeds=seeds)
    random = np.random.default_rng(0)
    trials = [
        replace(t, metrics={"val_loss": t.metrics["val_loss"] + 1e-3 * random.normal()}) for t in found.trials
    ]
    return result(name, found.spec, "", trials)


def test_a_verdict_left_open_by_the_noise_test_is_explained_in_every_format() -> None:
    found = indifferent()
    test = found.separability.noise_test
    assert test is not None
    assert not test.passed
    assert test.text == (
        f"F(42, 84) = {test.f:.2f}, of ranks {test.f_of_ranks:.2f}, {test.needed:.2f} needed"
    )
    why = f"λ has no measurable effect within rows: {test.text}"
    for form in (Format.TABLE, Format.MARKDOWN, Format.JSON, Format.HTML, Format.JUNIT):
        text = text_of([found], form, width=200)
        if form is Format.JSON:
            text = json.dumps(json.loads(text), ensure_ascii=False)
        assert why in " ".join(text.replace("\\_", "_").split()), form
    outcome = Require(Verdict.SEPARABLE).check(found)
    assert not outcome.passed
    assert why in outcome.reason
    assert "Two conditions, and nothing else, decide." in text_of([found], Format.HTML)


def test_a_comparison_names_the_side_without_an_effect_of_decay() -> None:
    text = comparison(indifferent("a"), studies.study(name="b")).comparison.verdict
    first, second = text.split(" and b ")
    assert "is undetermined (ridge slope" in first
    assert first.endswith("; λ has no measurable effect within rows)")
    assert "is separable (ridge slope 0.00);" in second


def test_json_holds_the_noise_test() -> None:
    (found,) = json.loads(text_of([indifferent()], Format.JSON))["studies"]
    test = found["separability"]["noise_test"]
    assert test["freedom"] == [42, 84]
    assert max(test["f"], test["f_of_ranks"]) < test["needed"]
    assert (test["passed"], found["separability"]["verdict"]) == (False, "undetermined")
    (one,) = json.loads(text_of([indifferent(seeds=1)], Format.JSON))["studies"]
    assert one["separability"]["noise_test"] is None


def test_a_notebook_gets_the_report_as_coloured_text_that_loads_and_runs_nothing() -> None:
    label = Optimizer(None, DecayRule.COUPLED, HOSTILE)
    hostile = [study(HOSTILE, label, kind=Kind.IMPORT), study("</pre><script>alert(1)</script>")]
    for results in ([study()], hostile):
        text = notebook_html(Report(results, [comparison(a, b) for a, b in pairwise(results)]))
        tree = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse(
            f"<!DOCTYPE html><title>notebook</title>{text}"
        )
        body = tree.find("body")
        assert {node.tag for node in body.iter()} <= {"body", "pre", "code", "span"}
        assert {name for node in body.iter() for name in node.attrib} <= {"style"}
        assert "url(" not in text
        assert not harmful(text)
        shown = "".join(body.itertext())
        assert "★" in shown
        assert "values to use" in shown
        assert "background-color: #" in text
    assert notebook_html(Report([study()])) == notebook_html(Report([study()]))


CODE = "```python\nfirst\n\nsecond\n```"


def blocks(*parts: str) -> str:
    return "\n\n".join(parts) + "\n"


def test_markdown_that_is_too_long_loses_its_longest_blocks_first() -> None:
    text = blocks("a", CODE, "b" * 50)
    assert fitted(text, len(text)) == text
    text = blocks("# a", "x" * 300, "b", "y" * 500, "# the verdict")
    assert fitted(text, 500) == blocks("# a", "x" * 300, "b", LEFT_OUT, "# the verdict")
    text = blocks(*(f"# {k}" for k in range(1000)))
    cut = fitted(text, 300)
    assert cut.endswith(f"\n\n{CUT}\n")
    assert text.startswith(cut.removesuffix(f"{CUT}\n"))
    assert MOST_CHARACTERS <= 65_536  # of a comment on a pull request
    assert 4 * MOST_CHARACTERS < 900_000  # bytes of a step's summary


def test_shortened_markdown_keeps_code_blocks_whole() -> None:
    text = blocks("a", CODE, *(["b" * 20] * 30), CODE)
    for most in range(200, len(text)):
        found = fitted(text, most)
        assert found.count("```") in (0, 2, 4), most
        assert found.count("first") == found.count("second"), most


@given(st.lists(st.integers(1, 300), max_size=60), st.integers(150, 2000))
def test_shortened_markdown_fits(sizes: list[int], most: int) -> None:
    assert len(fitted(blocks(*("x" * size for size in sizes)), most)) <= most
