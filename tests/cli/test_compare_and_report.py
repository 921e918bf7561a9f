"""`report` shows from the store what `compare` showed after training."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path

from tests.cli.conftest import ADAM, ADAMW, STORE, TINY, Run, ended, process, strict

AXIS = [2**-8, 2**-7, 2**-6]
COUNTS = {"cells": 9, "complete": 9, "diverged": 0, "failed": 0, "missing": 0}


def test_compare_trains_only_what_is_missing_and_shows_the_same(run: Run, compared: Path) -> None:
    done = [f"{name}: 9 of 9 lanes are in the store; nothing to train" for name in (ADAM, ADAMW)]
    found = run("compare", "adam", "adamw", *TINY)
    said = "adam, adamw: 3×3 lattices × 1 seed, 18 runs on cpu"
    assert (found.code, found.err.splitlines()) == (0, [said, *done])
    assert found.out == run("report", ADAM, ADAMW).out
    full = run("compare", "adam", "adamw", *TINY, "--full").out
    assert full == run("report", ADAM, ADAMW, "--full").out
    assert full.endswith(found.out[found.out.index("\nuse ") : found.out.index("\nmore ")] + "\n")
    found = run("compare", "adamw", "sgdw", *TINY)
    assert found.code == 0
    assert done[1] in found.err
    assert "sgdw: trained 9 runs" in found.err


def test_report_changes_nothing_and_shows_the_latest_comparison_or_study(run: Run, compared: Path) -> None:
    before = compared.read_bytes()
    compared.chmod(0o444)
    compared.parent.chmod(0o555)
    try:
        first, second = run("report"), run("report")
        assert (first.code, first.err) == (0, "")
        assert first == second
        assert run("study", "list").code == 0
    finally:
        compared.parent.chmod(0o755)
    assert compared.read_bytes() == before
    assert [path.name for path in compared.parent.iterdir()] == [STORE]
    assert run("report").out == run("report", ADAM, ADAMW).out
    run("grid", "-o", "adam", *TINY)
    assert run("report").out == run("report", ADAM).out
    run("compare", "adamw", "adam", *TINY)
    assert run("report").out == run("report", ADAMW, ADAM).out
    assert run("study", "delete", ADAMW, "--yes").code == 0
    assert run("report").out == run("report", ADAM).out


def test_json_and_csv_keep_their_contracts(run: Run, compared: Path) -> None:
    document = strict(run("report", "--format", "json").out)
    assert document.keys() == {"schema_version", "answer", "next", "studies", "comparisons"}
    listed = strict(run("study", "list", "--format", "json").out)
    assert listed.keys() == {"schema_version", "studies"}
    assert (document["schema_version"], listed["schema_version"]) == (2, 1)
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


def test_command_loads_only_the_libraries_it_needs(compared: Path) -> None:
    for arguments, absent in (
        (("convert", "-o", "adamw", "--lr", "1", "--wd", "1"), "torch numpy sqlalchemy optuna sklearn"),
        (("report",), "torch optuna sklearn matplotlib jinja2 pandas"),
    ):
        found = ended(process(*arguments, PYTHONPROFILEIMPORTTIME="1"))
        assert found.code == 0
        loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in found.err.splitlines()}
        assert "lrwd_sweep" in loaded
        assert not loaded & set(absent.split()), arguments
