"""Reports of studies that an earlier version began say once why their numbers differ."""

from __future__ import annotations

import sqlite3
from itertools import product
from pathlib import Path

import pytest

from tests.cli.conftest import ADAM, STORE, TINY, Run
from tests.store.test_migrations import DUMPS, restored

LOSSES = {(0.01, 0.0): 0.2, (0.01, 0.001): 0.1, (0.1, 0.0): 2.2, (0.1, 0.001): 2.4}  # ln 10 = 2.303


@pytest.fixture
def older(tmp_path: Path) -> Path:
    """A store of schema 2 with two finished studies of 2 × 2 cells and 2 seeds."""
    dump = next(path for path in DUMPS if path.name == "schema_v2.sql")
    path = restored(dump, tmp_path / STORE)
    connection = sqlite3.connect(path)
    connection.execute("DELETE FROM trials")
    for study, (cell, loss), seed in product((1, 2), LOSSES.items(), (0, 1)):
        values = (study, *cell, seed, f'{{"val_loss": {loss + seed / 100}}}')
        connection.execute(
            "INSERT INTO trials (study_id, lr, weight_decay, seed, status, metrics, detail) "
            "VALUES (?, ?, ?, ?, 'complete', ?, '')",
            values,
        )
    connection.commit()
    connection.close()
    return path


def test_report_says_once_why_numbers_differ(run: Run, older: Path) -> None:
    found = run("report", "digits-adam", "digits-adamw")
    assert found.code == 0
    assert found.err.count("begun by an earlier lrwd-sweep") == 1
    said = " ".join(found.err.replace("lrwd-sweep: ", "").split())
    assert "digits-adam, digits-adamw: begun by" in said
    assert "2 cells with a loss above chance count" in said


def test_older_study_says_nothing_of_chance_in_another_metric(run: Run, older: Path) -> None:
    connection = sqlite3.connect(older)
    connection.execute("""UPDATE trials SET metrics = '{"val_error": 0.2}'""")
    connection.commit()
    connection.close()
    found = run("report", "digits-adam", "--metric", "val_error")
    assert "begun by an earlier lrwd-sweep" in found.err
    assert "above chance" not in found.err


def test_study_of_this_version_says_nothing_of_earlier_ones(run: Run) -> None:
    assert run("grid", "--optimizer", "adam", *TINY).code == 0
    assert "earlier" not in run("report", ADAM).err
