"""Every gate compares its value with its limit, fails with a reason if it is undetermined, and is told of."""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from lrwd_sweep.report import gates
from lrwd_sweep.report.result import Result, result
from lrwd_sweep.report.view import Format, render, text_of
from lrwd_sweep.report.view.ci import command, gate_headline
from lrwd_sweep.report.view.document import document, dumps
from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.science.separability import Estimate, LrSensitivity, SequentialRegret, Verdict
from lrwd_sweep.science.trial import Direction, Status
from lrwd_sweep.spec.study import Kind
from tests.refusal import assert_raises
from tests.report.view.examples import HOSTILE, having, labelled
from tests.studies import bowl, mirrored, ridge, study, without

BEST = 0.1 + 1e-4  # of every study here
LOW, HIGH = study(), mirrored(study())
NOTHING = without(study(), *np.ndindex(7, 7, 3), status=Status.DIVERGED)


def earlier(value: float | None, **others: Any) -> gates.EarlierReport:
    fields: dict[str, Any] = {"metric": "val_loss", "sem": 0.001} | others
    return gates.EarlierReport("old.json", {"mine": gates.EarlierBest(value=value, **fields)})


def regrets(lr: float | None, decay: float | None, **other: Any) -> Result:
    each, found = {"start": None, "starts_out": 0, "in_sample": False} | other, []
    for first, value in (("lr", lr), ("weight_decay", decay)):
        found.append(SequentialRegret(first, Estimate(value, reason="" if value else "no cell"), **each))
    return having(sequential_regret=tuple(found))


def sensitive(kept: Estimate) -> Result:
    return having(lr_sensitivity=LrSensitivity(Estimate(0.1, 0.08, 0.12), kept, Estimate(0.1)))


def test_gate_compares_its_value_with_its_limit() -> None:
    def against(value: float, **others: Any) -> Any:
        return lambda limit: gates.MaxRegression(limit, earlier(value, **others))

    corner = study(lambda a, b: bowl(a + 4, b - 4))
    fewer = without(study(seeds=5), (3, 3, 0), (3, 3, 4), (0, 0, 1))
    none = without(LOW, *((0, 0, seed) for seed in range(3)))
    cases: list[tuple[Any, Result, float | str, Sequence[Any], Sequence[Any]]] = [
        (gates.MaxBest, LOW, BEST, [BEST + 1e-9], [BEST - 1e-9]),
        (gates.MinBest, HIGH, -BEST, [-BEST], [-BEST + 0.01]),
        (gates.MaxAbsSlope, LOW, 0.0, [0.01], []),
        (gates.MaxAbsSlope, study(ridge), 1.0, [], [0.9]),
        (gates.MaxTransferRegret, LOW, 0.0, [1e-9], []),
        (gates.MaxTransferRegret, study(ridge), 0.01, [0.011], [0.009]),
        (lambda limit: gates.MaxTransferRegret(limit, 2), study(ridge), 0.04, [], [0.011]),
        (gates.MaxSequentialRegret, regrets(0.01, 0.02), 0.02, [0.03], [0.015]),
        (gates.MaxSequentialRegret, regrets(0.02, 0.01), 0.02, [], [0.015]),
        (gates.MaxLrSensitivity, sensitive(Estimate(0.2)), 0.2, [0.3], [0.1]),
        (gates.Require, LOW, "separable", [Verdict.SEPARABLE], [Verdict.COUPLED]),
        (gates.Require, study(ridge), "product-coupled", [], [Verdict.SEPARABLE]),
        (gates.Require, study(seeds=1), "undetermined", [], [Verdict.SEPARABLE]),
        (lambda _: gates.NoEdge(), LOW, "inside", [0], []),
        (lambda _: gates.NoEdge(), corner, "lr:low, weight_decay:high", [], [0]),
        (gates.MaxFailed, without(study(), (0, 0, 0), status=Status.DIVERGED), 0, [0], []),
        (gates.MaxFailed, without(study(), (0, 0, 0), (0, 0, 1), status=Status.FAILED), 2, [2], [1]),
        (gates.MinSeeds, without(study(), (6, 6, 2), status=Status.DIVERGED), 3, [3], [4]),
        (gates.MinSeeds, without(study(), (6, 6, 2), status=Status.FAILED), 2, [], [3]),
        (gates.MinSeeds, fewer, 3, [3], []),
        (gates.MinSeeds, none, 0, [], [1]),
        (against(BEST - 0.01), LOW, 0.01, [0.011], [0.009]),
        (against(BEST + 0.01), LOW, -0.01, [0.0], []),
        (against(BEST), LOW, 0.0, [0.0], []),
        (against(-BEST + 0.01, direction=Direction.MAXIMIZE), HIGH, 0.01, [0.011], [0.009]),
    ]
    for low, high in ((-0.3, 0.1), (-0.1, 0.3)):  # the far end of the slope's interval decides
        found = having(ridge_slope=Estimate((low + high) / 2, low, high))
        cases.append((gates.MaxAbsSlope, found, 0.3, [0.3], [0.25]))
    search = study(kind=Kind.TPE)
    points = [trial for trial in search.trials if trial.cell == next(search.spec.lattice.cells())]
    moved = [replace(trial, cell=Cell(trial.cell.lr * 1.01, trial.cell.weight_decay)) for trial in points[1:]]
    for trials, fewest in ((points, 3), ([*points, *moved], 2), ([], 0)):
        cases.append((gates.MinSeeds, result("mine", search.spec, "", trials), fewest, range(1, fewest), [4]))
    for make, found, value, passing, failing in cases:
        for limit in (*passing, *failing):
            gate = make(limit)
            outcome = gate.check(found)
            assert (outcome.gate, outcome.study) == (gate.name, "mine")
            expected = value if isinstance(value, str) else pytest.approx(value, rel=0.02, abs=1e-9)
            assert (outcome.value, outcome.passed) == (expected, limit in passing), gate


def test_undetermined_value_fails_and_every_outcome_has_its_reason() -> None:
    far = without(study(ridge), (2, 3, 0), status=Status.DIVERGED)
    none = gates.EarlierReport("old.json", {})
    several = sensitive(Estimate(0.2, 0.1, 0.4))
    cases: list[tuple[gates.Gate, Result, bool | None, str]] = [  # None: undetermined
        (gates.MaxBest(9), NOTHING, None, "no cell counts"),
        (gates.MaxAbsSlope(9), study(seeds=2), None, "too few seeds for an interval: 2"),
        (gates.MaxAbsSlope(9), study(lambda a, b: bowl(a, b - 9)), None, "interior in 0 of"),
        (gates.MaxTransferRegret(9, 2.5), LOW, None, "at 2.5 octaves the basin has no two rows"),
        (gates.MaxTransferRegret(9), NOTHING, None, "distances are none"),
        (gates.MaxTransferRegret(0.1), study(seeds=2), True, "at 1 octave, in sample: lies high"),
        (gates.MaxTransferRegret(0.1), LOW, True, "octave, 0 [0, 0]"),
        (gates.MaxTransferRegret(9), far, False, " transfers diverge or reach the cap, which is worse than"),
        (gates.MaxSequentialRegret(9), regrets(0.01, None), None, "α first 0.01; λ first no cell"),
        (gates.MaxSequentialRegret(9), having(sequential_regret=()), None, ""),
        (gates.MaxSequentialRegret(9), regrets(1, 2, starts_out=1), True, "2 start values left out"),
        (gates.MaxSequentialRegret(9), regrets(1, 2, in_sample=True), True, "in sample: lies high"),
        (gates.MaxLrSensitivity(9), LOW, None, "the value at initialisation is not known"),
        (gates.MaxLrSensitivity(9), having(lr_sensitivity=None), None, ""),
        (gates.MaxLrSensitivity(9), several, True, "λ kept 0.2 [0.1, 0.4], retuned 0.1"),
        (gates.Require(Verdict.SEPARABLE), study(seeds=1), False, "too few seeds"),
        (gates.NoEdge(), NOTHING, None, "no cell counts"),
        (gates.NoEdge(), study(lambda a, b: 0.1), None, "every cell that counts is as good"),
        (gates.MaxRegression(9, earlier(BEST)), NOTHING, None, "no cell counts"),
        (gates.MaxRegression(9, earlier(None)), LOW, None, "in old.json no cell counts"),
        (gates.MaxRegression(9, earlier(BEST, metric="val_error")), LOW, None, "old.json is in val_error"),
        (gates.MaxRegression(9, none), LOW, None, "has no study 'mine', only none"),
    ]
    for gate, found, passed, reason in cases:
        outcome = gate.check(found)
        assert (outcome.value is None, outcome.passed) == (passed is None, bool(passed)), gate
        assert reason in outcome.reason, outcome
    three = gates.MaxFailed(0), gates.Require(Verdict.COUPLED), gates.MaxBest(1)
    outcomes = [gate.check(NOTHING) for gate in three]
    values = [gate["value"] for gate in json.loads(dumps(document([NOTHING], (), outcomes)))["gates"]]
    assert values == [0, "undetermined", None]
    other = r"{}=0.5: in study 'mine' a {} val_loss is better; give {}=0.5"
    assert_raises(other.format("max_best", "higher", "min_best"), gates.MaxBest(0.5).check, HIGH)
    assert_raises(other.format("min_best", "lower", "max_best"), gates.MinBest(0.5).check, LOW)
    reason = gates.MaxRegression(1, earlier(BEST, sem=3e-4)).check(LOW).reason
    assert f"standard error {math.hypot(3e-4, 1e-4 / math.sqrt(3)):.2g}" in reason
    assert "standard error" not in gates.MaxRegression(1, earlier(BEST, sem=None)).check(LOW).reason


def test_report_is_read_back_and_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "old.json"
    path.write_text(dumps(document([LOW, replace(NOTHING, name="lost")])))
    (best,) = LOW.ranked(1)
    numbers = {"mine": (best.value, best.sem), "lost": (None, None)}
    expected = {name: gates.EarlierBest("val_loss", *both) for name, both in numbers.items()}
    assert gates.read_earlier_report(path).studies == expected
    path.write_text(dumps(document([HIGH])))
    outcome = gates.MaxRegression(9, gates.read_earlier_report(path)).check(LOW)
    why = "has val_loss maximized, this report minimized; see --maximize and --minimize"
    assert (outcome.passed, why in outcome.reason) == (False, True), outcome
    older = json.loads(path.read_text())
    del older["studies"][0]["direction"]
    path.write_text(json.dumps(older))
    assert gates.read_earlier_report(path).studies["mine"].direction is Direction.MINIMIZE
    older["studies"][0]["direction"] = "upward"
    study_of = '{{"studies": [{{"study_name": "a", "metric": "m", "best": {{"value": {}}}}}]}}'
    one = '{"schema_version": 1, "studies": [{"study_name": %s}]}'
    for fault, *texts in (
        ("is not JSON", "", "{", '{"a": NaN}', "[" * 100_000, "\udcff"),
        ("is not a report", "[]", "7", "{}", '{"schema_version": 1, "studies": {"a": 1}}'),
        ("is not a report", '{"studies": [1]}', one % "1", one % '"a", "created": "x"', json.dumps(older)),
        ("is not a report", *map(study_of.format, ('"1"', "true", "1e999"))),
        ("has schema_version 3", '{"schema_version": 3, "studies": []}'),
        ("has schema_version '1'", '{"schema_version": "1", "studies": []}'),
    ):
        for text in texts:
            path.write_bytes(text.encode(errors="surrogateescape"))
            assert_raises(f"^baseline={str(path)!r} {fault}", gates.read_earlier_report, path)


def test_headline_names_what_failed_in_every_format() -> None:
    cases = [
        (gates.GateOutcome(gate, "mine", value, limit, passed=False, reason="3 diverge"), text)
        for gate, value, limit, text in (
            ("max-best", 0.14611, 0.14, "max-best 0.146 > 0.14 (adamw)"),
            ("max-best", 0.140001, 0.14, "max-best 0.140001 > 0.14 (adamw)"),
            ("max-best", 0.14000000001, 0.14, "max-best 0.14000000001 > 0.14 (adamw)"),
            ("min-best", 0.9, 0.95, "min-best 0.9 < 0.95 (adamw)"),
            ("max-abs-slope", None, 0.2, "max-abs-slope undetermined (adamw)"),
            ("require", "coupled", "separable", "require coupled, not separable (adamw)"),
            ("max-transfer-regret", 0.1, 0.2, "max-transfer-regret: 3 diverge (adamw)"),
        )
    ]
    passed = replace(cases[0][0], passed=True)
    for failed, text in cases:
        assert gate_headline([passed, failed], [LOW]) == f"1 of 2 gates failed: {text}"
    assert gate_headline([each for each, _ in cases], [LOW]).endswith("; 4 more")
    assert gate_headline([passed], [LOW]) == "1 of 1 gate passed"
    four = gates.MaxBest(0.01), gates.MaxAbsSlope(0.5), gates.Require(Verdict.COUPLED), gates.NoEdge()
    outcomes = [gate.check(LOW) for gate in four]
    headline = "2 of 4 gates failed: max-best 0.1 > 0.01 (adamw); require separable, not coupled (adamw)"
    headline = headline.replace("0.1 >", f"{outcomes[0].value:.3g} >")
    texts, bare = ({form: text_of(render([LOW], [], form, of)) for form in Format} for of in (outcomes, ()))
    starts = {Format.MARKDOWN: f"**{headline}**", Format.GITHUB: f"::error title=lrwd-sweep::{headline}"}
    for form, start in ({Format.TABLE: headline} | starts).items():
        assert texts[form].partition("\n")[0] == start
    assert ET.fromstring(texts[Format.JUNIT]).attrib["name"] == f"lrwd-sweep: {headline}"
    body = texts[Format.HTML].partition("</h1>")[2].replace("&gt;", ">")
    assert body.strip().startswith(f'<p class="verdict">{headline}</p>')
    summary = json.loads(texts[Format.JSON])["gate_summary"]
    assert summary == {"failed": 2, "all": 4, "text": headline}
    assert texts[Format.CSV] == bare[Format.CSV]
    assert all("gates failed" not in text for text in bare.values())


def test_annotations_are_one_command_a_line_and_junit_invents_no_time() -> None:
    assert command("error", "a: 1, b", "50 %\r\n::x") == "::error title=a%3A 1%2C b::50 %25\\r\\n::x"
    odd = labelled("%0A::error::x ##[error]y\n::warning::" + HOSTILE)
    outcomes = [gates.MaxBest(0.01).check(odd), gates.NoEdge().check(odd)]
    lines = text_of(render([odd], [], Format.GITHUB, outcomes)).splitlines()
    for line in lines:
        kind, _, message = line.removeprefix("::").partition("::")
        assert re.fullmatch(r"(error|notice) title=[^:,]+", kind), line
        assert not re.search("%(?!25)", message), line
    assert [line.split()[0] for line in lines] == ["::error", "::error", "::notice", "::notice"]
    for created, seconds in (("2025-01-01T00:00:00+00:00", 61.25), ("", 0), ("?", 0)):
        found = replace(LOW, created=created, seconds=float(seconds))
        root = ET.fromstring(text_of(render([found], [], Format.JUNIT, [gates.NoEdge().check(LOW)])))
        (suite,) = root
        assert suite.get("timestamp") == (created.removesuffix("+00:00") if seconds else None)
        assert [root.get("time"), suite.get("time")] == [f"{seconds}"] * 2, created
        assert {case.get("time") for case in suite.iter("testcase")} == {"0"}, "a gate takes none"
