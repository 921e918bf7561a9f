"""Databases that earlier versions wrote open, report the same numbers, and continue.

The databases, their output and the commands are in `tests/former`, see `make.py` there. These tests use only
the command line and the files, so that they hold whatever the package's modules are called.
"""

from __future__ import annotations

import json
import math
import re
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.former import make

# Text for people, which may be worded otherwise; all else that `report` and `study list` print is compared.
WORDING = {"formula", "reason", "remark", "why", "why_not_forgiving"}
STORED = re.compile(r"\.seeds\[|\.axes\.")
DERIVED = 1e-9  # relative: statistics of the stored values, whose sums may be taken in another order
TRAINED = 1e-3  # relative: values trained on another machine

Lanes = dict[tuple[Any, ...], tuple[Any, ...]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the user's code."""
    shutil.copytree(make.HERE / "user", tmp_path, dirs_exist_ok=True)
    return tmp_path


def restored(name: str, folder: Path) -> dict[str, Any]:
    """Copy a database to where commands in `folder` look for it; return its output by command."""
    shutil.copy(make.HERE / f"{name}.sqlite", folder / make.STORE)
    outputs: dict[str, Any] = json.loads((make.HERE / f"{name}.json").read_text(encoding="utf-8"))
    return outputs


def lanes(folder: Path, study: str, store: str = make.STORE) -> Lanes:
    """Return every stored number of a study's lanes by (α, λ, seed), in the order of storing."""
    with closing(sqlite3.connect(folder / store)) as connection:
        rows = connection.execute(
            "SELECT lr, weight_decay, seed, status, metrics, snapshots, trials.id FROM trials "
            "JOIN studies ON studies.id = study_id WHERE studies.name = ? ORDER BY trials.id",
            (study,),
        ).fetchall()
        curves = 'SELECT name, hex("values") FROM curves WHERE trial_id = ? ORDER BY name'
        return {
            tuple(row[:3]): (
                row[3],
                json.loads(row[4]),
                json.loads(row[5]),
                connection.execute(curves, row[6:]).fetchall(),
            )
            for row in rows
        }


def all_lanes(folder: Path) -> dict[str, Lanes]:
    """Return the lanes of all studies by name."""
    with closing(sqlite3.connect(folder / make.STORE)) as connection:
        names = [name for (name,) in connection.execute("SELECT name FROM studies ORDER BY name")]
    return {name: lanes(folder, name) for name in names}


def differences(expected: Any, found: Any, where: str = "") -> Iterator[str]:
    """Yield where JSON differs from `expected`: exactly, but for derived numbers; keys may be added."""
    if isinstance(expected, dict) and isinstance(found, dict):
        for key in expected:
            if key not in found:
                yield f"{where}.{key} is missing"
            elif key not in WORDING and not (key == "verdict" and ".comparisons[" in where):
                yield from differences(expected[key], found[key], f"{where}.{key}")
        return
    if isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        for k, pair in enumerate(zip(expected, found, strict=True)):
            yield from differences(*pair, f"{where}[{k}]")
        return
    if isinstance(expected, float) and isinstance(found, float) and not STORED.search(where):
        same = math.isclose(expected, found, rel_tol=DERIVED, abs_tol=1e-12)
    else:
        same = expected == found
    if not same:
        yield f"{where}: {expected!r} is now {found!r}"


def assert_trained_alike(found: Lanes, csv: str) -> None:
    """Assert that val_loss of every lane is that of a CSV from another machine, up to its arithmetic."""
    rows = [line.split(",") for line in csv.splitlines()]
    assert rows[0][:4] == ["lr", "weight_decay", "seed", "value"]
    expected = {(float(row[0]), float(row[1]), int(row[2])): float(row[3]) for row in rows[1:]}
    assert {lane: row[1]["val_loss"] for lane, row in found.items()} == pytest.approx(expected, rel=TRAINED)


def retrained(command: str, folder: Path) -> str:
    """Run a training command that must succeed; return what it writes on stderr."""
    started = make.start(command, folder)
    _, err = started.communicate()
    assert started.returncode == 0, f"{command}: {err}"
    return err


@pytest.mark.parametrize("name", make.READ)
def test_former_store_gives_the_same_output(name: str, folder: Path) -> None:
    outputs = restored(name, folder)
    for command in make.READ[name]:
        expected, found = outputs[command], make.read(command, folder)
        if isinstance(expected, str):
            assert found == expected, command
        else:
            assert list(differences(expected, found)) == [], command


def test_same_command_trains_nothing_in_a_former_store(folder: Path) -> None:
    for name, commands in (
        ("lattices", [make.LATTICES]),
        ("options", [*make.OPTIONS, make.IMAGES]),
    ):
        restored(name, folder)
        before = all_lanes(folder)
        for command in commands:
            assert "nothing to train" in (err := retrained(command, folder)), f"{command}: {err}"
            assert "training" not in err, f"{command}: {err}"
        assert all_lanes(folder) == before, name


def test_former_interrupted_study_continues_to_the_values_of_a_fresh_one(folder: Path) -> None:
    outputs = restored("unfinished", folder)
    before = lanes(folder, make.GRID_NAME)
    assert 0 < len(before) < 24
    err = retrained(make.GRID, folder)
    assert f"{len(before)} of 24 lanes are in the store" in err
    after = lanes(folder, make.GRID_NAME)
    assert {lane: after[lane] for lane in before} == before
    retrained(f"{make.GRID} --storage fresh.db", folder)
    fresh = lanes(folder, make.GRID_NAME, "fresh.db")
    assert after.keys() == fresh.keys()
    assert [lane for lane in fresh if after[lane] != fresh[lane] and lane not in before] == []
    assert_trained_alike(after, outputs[f"{make.EXPORT} {make.GRID_NAME} --storage whole.db"])


def test_former_search_continues_to_more_points(folder: Path) -> None:
    restored("unfinished", folder)
    before = lanes(folder, make.TPE_NAME)
    err = retrained(f"{make.TPE} --trials 7", folder)
    assert "5 of 7 points are in the store" in err
    after = lanes(folder, make.TPE_NAME)
    assert list(after.items())[: len(before)] == list(before.items())
    assert len({lane[:2] for lane in after}) == 7


def test_former_study_of_user_code_continues_with_the_same_files_only(folder: Path) -> None:
    outputs = restored("unfinished", folder)
    before = lanes(folder, make.USER_NAME)
    larger = f"{make.USER} --lr 2^-6:2^-4"
    file = folder / "blocks.py"  # which net.py imports
    text = file.read_text()
    file.write_text(f"{text}\n# changed\n")
    started = make.start(larger, folder)
    out, err = started.communicate()
    assert (started.returncode, out) == (2, "")
    assert "./net.py:Net" in err.splitlines()[-1], err
    file.write_text(text)
    assert lanes(folder, make.USER_NAME) == before
    assert "12 of 18 lanes are in the store" in retrained(larger, folder)
    after = lanes(folder, make.USER_NAME)
    assert {lane: after[lane] for lane in before} == before
    assert_trained_alike(after, outputs[f"{make.EXPORT} {make.USER_NAME} --storage whole.db"])
