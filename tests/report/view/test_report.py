"""Reports are complete in every format, and the same every time; JUnit has the shape that CI reads."""

import html
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from lrwd_sweep.report.answer import answer
from lrwd_sweep.report.gates import Gate, MaxBest, MaxFailed, NoEdge, Require
from lrwd_sweep.report.recommend import recommendations
from lrwd_sweep.report.result import Result, comparison, result
from lrwd_sweep.report.view import Format, render
from lrwd_sweep.report.view.ci import CUT, LEFT_OUT, MOST_CHARACTERS, code, escaped, fitted, junit
from lrwd_sweep.report.view.tables import separability_rows, task_text
from lrwd_sweep.science.lattice import Cell, Lattice
from lrwd_sweep.science.separability import Verdict
from lrwd_sweep.science.trial import Status, Trial
from lrwd_sweep.spec.study import Kind
from tests import studies
from tests.report.view.examples import drawn, known, study

PROSE = (Format.TABLE, Format.MARKDOWN)


def text_of(results: list[Result], form: Format, encoding: str = "utf-8", gates: Sequence[Gate] = ()) -> str:
    outcomes = [gate.check(result) for result in results for gate in gates]
    full = form in PROSE
    found = render(results, [comparison(a, b) for a, b in pairwise(results)], form, outcomes, full=full)
    return found if isinstance(found, str) else " ".join(drawn(found, 400, encoding).split())


def test_every_format_holds_formulas_measures_and_the_answer() -> None:
    a, b = study("a", "adam"), study("b")
    labels = """verdict|ridge slope s|reverse slope s′|curvature coupling ρ|transfer regret, 1 octave
interaction share|top-10 tilt|basin|w lr-scaled|averaging time scale, η = 1|on the test split
on the lattice's edge|slope difference|torch.optim.AdamW(params, lr=|tuning one at a time costs"""
    for form in (*PROSE, Format.HTML):
        text = re.sub(r"\\(.)", r"\1", html.unescape(text_of([a, b], form)))
        for part in [*labels.replace("\n", "|").split("|"), *(each.spec.formula for each in (a, b))]:
            assert part in text, (form, part)
        head = text.partition({Format.MARKDOWN: "\n## ", Format.HTML: "<main>"}.get(form, "\0"))[0]
        for line in answer([a, b], [comparison(a, b)]):
            assert all(part in head for part in [*line.parts[:3], line.code_line]), (form, line)
    text = text_of([a, b], Format.TABLE, "ascii")
    assert "(g <- g + lambda'*theta ; theta <- theta - eta*alpha*m_hat/(sqrt(v_hat)+eps))" in text
    assert "\\u" not in text


def test_markdown_begins_with_the_answer_and_the_gates_and_has_a_row_per_learning_rate() -> None:
    text = text_of([study()], Format.MARKDOWN, gates=[MaxFailed(0)])
    table = "\n\n## Gates\n\n| gate | limit | study | value | result | "  # first, so that no cut loses it
    assert text.index("\n- **next**: ") < text.index(table) < text.index("\n\n## `adamw`")
    assert "| max-failed | 0 | adamw | 1 | FAILED | " in text
    rows = [line for line in text.splitlines() if line.startswith("| 2⁻")]
    assert [row.count("|") for row in rows] == [7] * 5
    assert sum(row.count("★") for row in rows) == 1
    assert rows[-1].split(" | ")[1:4] == ["×", "!", ".41~"]
    assert escaped("a|b_c*<script>@all") == "a\\|b\\_c\\*&lt;script>@<!-- -->all"
    assert code("a`b") == "`` a`b ``"


def test_absurd_values_are_short_in_every_format() -> None:
    found = study()
    for absurd in (1e300, -1e300):
        trials = list(found.trials)
        trials[40] = replace(trials[40], metrics={**trials[40].metrics, "val_loss": absurd})
        for form in Format:
            text = text_of([result(found.name, found.spec, found.created, trials)], form)
            assert "0" * 30 not in text, (form, absurd)


def test_search_is_drawn_at_its_nearest_cells_and_lists_its_best_points() -> None:
    spec = replace(study().spec, kind=Kind.TPE, seeds=(0,))
    lr, weight_decay = spec.lattice.lr[2], spec.lattice.weight_decay[3]
    trials = []
    for x, y, value in ((1.1, 1.1, 0.3), (0.9, 1.2, 0.1), (4.2, 1.0, 0.4)):
        cell, metrics = Cell(x * lr, y * weight_decay), {"val_loss": value, "test_loss": value}
        trials.append(Trial(cell, 0, Status.COMPLETE, metrics))
    found = result("tpe", spec, "", trials)
    mean = found.surface.mean
    assert [mean[2, 3], mean[4, 3], np.isfinite(mean).sum()] == pytest.approx([0.2, 0.4, 2])
    assert [candidate.value for candidate in found.ranked(10)] == [0.1, 0.3, 0.4]
    assert found.best == Cell(0.9 * lr, 1.2 * weight_decay)
    for form, best, cells in (
        (Format.TABLE, "best of adamw .* 1 0.00703 .* 2 0.00859 .* 3 0.0328 ", r"\.400 .*\.200★"),
        (Format.MARKDOWN, r"\n\| 1 \| 0.00703.*\n\| 2 \| 0.00859.*\n\| 3 \| 0.0328 ", r"\.40\*[^★]*\.20.. ★"),
    ):
        text = text_of([found], form)
        assert None not in (re.search(best, text), re.search(cells, text)), form


def test_verdict_left_open_by_the_noise_test_is_explained_in_every_format() -> None:
    found = studies.study(lambda a, b: 0.1 + 0.01 * a**2, noise=1e-2)
    test = known(found.separability.noise_test)
    why = f"λ has no measurable effect within rows: {test.text}"
    for form in (*PROSE, Format.HTML, Format.JUNIT):
        assert why in text_of([found], form).replace("\\_", "_"), form
    assert any(label == "remark" and why in entry for label, entry in separability_rows([found]))
    read = json.loads(text_of([found], Format.JSON))["studies"][0]["separability"]
    stored = read["noise_test"]
    assert (stored["f"], stored["freedom"], stored["passed"]) == (test.f, [42, 84], False)
    assert why in read["reason"]
    assert why in Require(Verdict.SEPARABLE).check(found).reason


def test_a_maximised_study_has_the_advice_of_its_negative_and_says_which_end_is_better() -> None:
    low = studies.plain(studies.study(studies.ridge, "low"))
    high = studies.mirrored(low)
    assert high.ranked(10) == [replace(c, value=-c.value) for c in low.ranked(10)]
    for ours, theirs in zip(recommendations(low).cells, recommendations(high).cells, strict=True):
        assert (ours.role, ours.cell) == (theirs.role, theirs.cell)
        around = known(theirs.around)
        assert known(ours.around) == replace(around, mean=-around.mean, worst=-around.worst)
    bowls = studies.study(lambda a, b: studies.bowl(a, b) - 0.05, "better"), studies.study(name="worse")
    better, worse = (studies.mirrored(studies.plain(each)) for each in bowls)
    difference = comparison(worse, better).comparison.best_difference
    assert (difference.value, difference.low, difference.high) == pytest.approx((0.05,) * 3)
    for form in (*PROSE, Format.HTML):
        text, lower = (text_of([each, each], form) for each in (high, low))
        assert "a higher val_loss is better" in text.replace("\\_", "_"), form
        assert "difference of the best values (higher is better)" in text, form
        assert "higher is better" not in lower.replace("of which higher is better", ""), form
    for each, direction, cap, side in ((high, "maximize", -0.15, "below"), (low, "minimize", 0.15, "above")):
        (found,) = json.loads(text_of([each], Format.JSON))["studies"]
        assert (found["direction"], found["best"]["value"]) == (direction, each.ranked(1)[0].value)
        capped = result("c", replace(each.spec, given_cap=cap), "", each.trials)
        assert len(capped.ranked(100)) == int((abs(each.surface.values) < 0.15).all(axis=2).sum())
        assert f"cells at or {side} the cap of {cap} are out" in task_text(capped)
    trials = [replace(t, metrics={"acc": t.metrics["val_loss"]}) for t in low.trials]
    assert "a lower acc is better" in task_text(result("acc", replace(low.spec, metric="acc"), "", trials))


CODE = f"```python\nfirst{'.' * 50}\n\nsecond\n```"


def blocks(*parts: str) -> str:
    return "\n\n".join(parts) + "\n"


def test_markdown_that_is_too_long_loses_its_longest_blocks_first() -> None:
    text = blocks("# a", "x" * 300, "b", "y" * 500, "# the verdict")
    assert fitted(text, len(text)) == text
    assert fitted(text, 500) == blocks("# a", "x" * 300, "b", LEFT_OUT, "# the verdict")
    text = blocks(*(f"# {k}" for k in range(1000)))
    assert text.startswith(fitted(text, 300).removesuffix(f"{CUT}\n")), "its end is cut"
    text = blocks("a", CODE, *(["b" * 20] * 30), CODE)
    for most in range(100, len(text)):
        found = fitted(text, most)
        assert len(found) <= most
        assert found.count("```") in (0, 2, 4), most
        assert found.count("first") == found.count("second"), most
    axis = tuple(1.0 + np.arange(90))
    spec = replace(study().spec, lattice=Lattice(axis, axis), seeds=(0,))
    trials = [Trial(c, 0, Status.COMPLETE, {"val_loss": c.lr + c.weight_decay}) for c in spec.lattice.cells()]
    text = text_of([result("huge", spec, "", trials), study()], Format.MARKDOWN)
    assert len(text) <= MOST_CHARACTERS <= 65_536  # of a comment on a pull request
    assert all(part in text for part in (LEFT_OUT, "ridge slope s", "slope difference"))


def test_every_gate_of_every_study_is_one_junit_case_with_its_value_and_limit() -> None:
    results, gates = [study("a"), study("b", seeds=1)], (MaxBest(0.2), MaxBest(0.1), NoEdge())
    outcomes = [gate.check(result) for result in results for gate in gates]
    root = ET.fromstring(junit(results, outcomes))
    cases = list(root.iter("testcase"))
    told = [(case.get("classname"), case.get("name"), case.find("failure") is None) for case in cases]
    assert told == [(outcome.study, outcome.gate, outcome.passed) for outcome in outcomes]
    for element in (root, *root):  # in the order and with the counts of Jenkins' XSD
        counts = [len(list(element.iter(tag))) for tag in ("testcase", "failure", "error")]
        assert [int(element.attrib[name]) for name in ("tests", "failures", "errors")] == counts
        assert [child.tag for child in element][-1] == ("testsuite" if element is root else "system-out")
    (best,), failure = study("a").ranked(1), known(cases[1].find("failure"))
    assert f"{best.value:.6g}, limit 0.2" in cases[0].findtext("system-out", "")
    assert f"{best.value:.6g}, limit 0.1" in failure.attrib["message"] == failure.text
    reported = ET.fromstring(junit(results)).iter("testcase")
    assert [case.get("name") for case in reported] == ["reported"] * 2
