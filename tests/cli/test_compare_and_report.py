"""`report` shows from the store what `compare` showed after training."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path
from typing import Any

from tests.cli.conftest import ADAM, ADAMW, STORE, TINY, Run, ended, process

AXIS = [2**-8, 2**-7, 2**-6]
COUNTS = {"cells": 9, "complete": 9, "diverged": 0, "failed": 0, "missing": 0}


def strict(text: str) -> Any:
    """Parse JSON, which has no NaN and no Infinity."""

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    return json.loads(text, parse_constant=refuse)


def test_compare_trains_only_what_is_missing_and_shows_the_same(run: Run, compared: Path) -> None:
    done = [f"{name}: 9 of 9 lanes are in the store; nothing to train" for name in (ADAM, ADAMW)]
    found = run("compare", "adam", "adamw", *TINY)
    assert (found.code, found.err.splitlines()) == (0, done)
    assert found.out == run("report", ADAM, ADAMW).out
    full = run("compare", "adam", "adamw", *TINY, "--full").out
    assert full == run("report", ADAM, ADAMW, "--full").out
    assert full.endswith(found.out[found.out.index("\nuse ") : found.out.index("\nmore ")] + "\n")
    text = " ".join(full.split())
    for formula in ("g ← g + λ′θ ; θ ← θ − ηα m̂/(√v̂+ε)", "θ ← θ − η(α m̂/(√v̂+ε) + λθ)"):
        assert text.count(formula) >= 2  # over its heatmap, and in the verdict
    found = run("compare", "adamw", "sgdw", *TINY)
    assert found.code == 0
    assert done[1] in found.err
    assert "sgdw: training 9 lanes" in found.err


def test_report_without_names_shows_the_latest_comparison_or_study(run: Run, compared: Path) -> None:
    assert run("report").out == run("report", ADAM, ADAMW).out
    run("grid", "-o", "adam", *TINY)
    assert run("report").out == run("report", ADAM).out
    run("compare", "adamw", "adam", *TINY)
    assert run("report").out == run("report", ADAMW, ADAM).out
    assert run("study", "delete", ADAMW, "--yes").code == 0
    assert run("report").out == run("report", ADAM).out


def test_a_report_is_the_same_every_time_and_changes_nothing(run: Run, compared: Path) -> None:
    before = compared.read_bytes()
    compared.chmod(0o444)
    compared.parent.chmod(0o555)
    try:
        for form in ("table", "markdown", "json", "csv"):
            first, second = run("report", "--format", form), run("report", "--format", form)
            assert (first.code, first.err) == (0, ""), form
            assert first == second, form
        assert run("study", "list").code == 0
    finally:
        compared.parent.chmod(0o755)
    assert compared.read_bytes() == before
    assert [path.name for path in compared.parent.iterdir()] == [STORE]


def test_json_and_csv_keep_their_contracts(run: Run, compared: Path) -> None:
    document = strict(run("report", "--format", "json").out)
    assert document.keys() == {"schema_version", "studies", "comparisons"}
    listed = strict(run("study", "list", "--format", "json").out)
    assert listed.keys() == {"schema_version", "studies"}
    assert document["schema_version"] == listed["schema_version"] == 1
    for k, (name, optimizer) in enumerate(((ADAM, "adam"), (ADAMW, "adamw"))):
        study, entry = document["studies"][k], listed["studies"][k]
        for found in (study, entry):
            assert [found[key] for key in ("study_name", "optimizer", "counts")] == [name, optimizer, COUNTS]
        assert {"recommended", "direction", "cap", "runs", "tensors"} <= study.keys()  # not in the schema
        assert study["axes"] == {"lr": AXIS, "weight_decay": AXIS}
        assert len(study["cells"]) == 9
    (found,) = document["comparisons"]
    assert (found["a"], found["b"]) == (ADAM, ADAMW)
    rows = list(csv.DictReader(io.StringIO(run("report", ADAMW, "--format", "csv").out)))
    assert list(rows[0])[:4] == ["lr", "weight_decay", "seed", "value"]
    assert len(rows) == 9
    assert all(math.isfinite(float(row["value"])) for row in rows)


def test_report_ranks_by_another_metric(run: Run, compared: Path) -> None:
    document = strict(run("report", ADAMW, "--format", "json", "--metric", "val_error").out)
    assert document["studies"][0]["metric"] == "val_error"
    refused = run("report", ADAMW, "--metric", "val_eror")
    assert refused.code == 2
    assert "val_error" in refused.err


def test_a_command_loads_only_the_libraries_it_needs(compared: Path) -> None:
    for arguments, absent in (
        (("grid", "--help"), "torch numpy sqlalchemy optuna sklearn"),
        (("report",), "torch optuna sklearn matplotlib jinja2 pandas"),
    ):
        found = ended(process(*arguments, PYTHONPROFILEIMPORTTIME="1"))
        assert found.code == 0
        loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in found.err.splitlines()}
        assert "lrwd_sweep" in loaded
        assert not loaded & set(absent.split()), arguments
