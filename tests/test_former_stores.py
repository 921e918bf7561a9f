"""Databases that earlier versions wrote open, report the same numbers, and continue.

The databases, their output and the commands are in `tests/former`, see `commands.py` there.
"""

import json
import math
import re
import shlex
import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from lrwd_sweep.cli import app
from lrwd_sweep.report.result import read_results
from lrwd_sweep.science.separability import Separability
from lrwd_sweep.spec import user_code
from lrwd_sweep.store import open_store
from tests.former import commands
from tests.report.view.schema import faults
from tests.store.sample import rewrite_spec

# Sentences, whose words may change; everything else that `report` and `study list` print is compared.
WORDING = {"formula", "reason", "remark", "why", "why_not_forgiving"}
STORED = re.compile(r"\.seeds\[|\.axes\.")
DERIVED = 1e-8  # relative: statistics of the stored values, whose sums may be taken in another order
TRAINED = 1e-3  # relative: values trained on another machine

Lanes = dict[tuple[Any, ...], tuple[Any, ...]]
Run = Callable[[str], tuple[int, str, str]]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(commands.HERE / "user", tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LRWD_STORAGE", raising=False)
    monkeypatch.setattr("lrwd_sweep.engine.device.cores", lambda: 1)  # in a thread, without seconds of start
    monkeypatch.setattr(user_code, "_helper_paths", {})
    forget_imports()
    return tmp_path


def forget_imports() -> None:
    for name in ("blocks", "net", "data", "loss"):
        sys.modules.pop(name, None)


@pytest.fixture
def run(folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Run a command line in this process; return exit code, standard output and standard error."""

    def run_here(command: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["lrwd-sweep", *shlex.split(command)])
        code = app.run()
        return (code, *capfd.readouterr())

    return run_here


def restored(name: str, folder: Path) -> dict[str, Any]:
    """Copy a database to the default store of `folder`; return the expected output by command."""
    shutil.copy(commands.HERE / f"{name}.sqlite", folder / commands.STORE)
    outputs: dict[str, Any] = json.loads((commands.HERE / f"{name}.json").read_text(encoding="utf-8"))
    return outputs


def lanes(folder: Path, study: str, store: str = commands.STORE) -> Lanes:
    """Return every stored number of a study's lanes by (α, λ, seed), in the order of storing."""
    with closing(sqlite3.connect(folder / store)) as connection:
        rows = connection.execute(
            "SELECT lr, weight_decay, seed, status, metrics, snapshots, group_concat(curve) FROM trials "
            'LEFT JOIN (SELECT trial_id, curves.name || hex("values") AS curve FROM curves ORDER BY 1, 2) '
            "ON trial_id = trials.id JOIN studies ON studies.id = study_id WHERE studies.name = ? "
            "GROUP BY trials.id ORDER BY trials.id",
            (study,),
        )
        return {row[:3]: (row[3], json.loads(row[4]), *row[5:]) for row in rows}


def differences(expected: Any, found: Any, where: str = "") -> Iterator[str]:
    """Yield where JSON differs from `expected`: derived numbers by more than rounding, others at all."""
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
    """Assert that val_loss of every lane is that of a CSV from another machine, up to rounding."""
    rows = [line.split(",") for line in csv.splitlines()]
    assert rows[0][:4] == ["lr", "weight_decay", "seed", "value"]
    expected = {(float(row[0]), float(row[1]), int(row[2])): float(row[3]) for row in rows[1:]}
    assert {lane: row[1]["val_loss"] for lane, row in found.items()} == pytest.approx(expected, rel=TRAINED)


@pytest.mark.parametrize("name", commands.READ)
def test_former_store_gives_the_same_output(name: str, folder: Path, run: Run) -> None:
    outputs = restored(name, folder)
    for command in commands.READ[name]:
        code, text, err = run(command)
        assert code == 0, f"{command}: {err}"
        if isinstance(outputs[command], str):
            assert text == outputs[command], command
            continue
        found, old = json.loads(text), outputs[command]
        if command.startswith("report"):
            assert faults(found, "report") == [], command
            old |= {"schema_version": 2}  # which keeps what 1 had
        assert list(differences(old, found)) == [], command


def test_numbers_of_the_json_are_those_of_the_analysis(folder: Path, run: Run) -> None:
    restored("lattices", folder)
    names = [commands.ADAM, commands.ADAMW]
    document = json.loads(run(f"report {' '.join(names)} --format json")[1])
    with open_store(commands.STORE, write=False) as store:
        results, (compared,) = read_results(store, names)
    for each, result in zip(document["studies"], results, strict=True):
        written, found = each["separability"], result.separability
        for name in set(Separability.__slots__) - {"ridge_rows", "basin_tolerance"}:  # written elsewhere
            wanted, value = getattr(found, name), written.get(name)
            if name in ("ridge", "best_by_row"):
                assert [result.surface.lr[i] for i, _ in wanted] == [place["lr"] for place in value], name
            elif isinstance(wanted, bool | int | float | str):
                assert value == wanted, name
            elif hasattr(wanted, "low"):
                bounds = (wanted.value, wanted.low, wanted.high)
                assert (value["value"], value.get("low"), value.get("high")) == bounds, name
        assert written["lr_sensitivity"]["fixed"]["value"] is None, "it was not measured then"
    distance = document["comparisons"][0]["distance_difference"]
    assert distance["value"] == compared.comparison.distance_difference.value


def test_same_command_trains_nothing_in_a_former_store(folder: Path, run: Run) -> None:
    for name, again in (("lattices", [commands.LATTICES]), ("options", [*commands.OPTIONS, commands.IMAGES])):
        restored(name, folder)
        studies = json.loads(run(commands.LIST)[1])["studies"]
        before = {study["study_name"]: lanes(folder, study["study_name"]) for study in studies}
        for command in again:
            code, _, err = run(command)
            assert (code, "nothing to train" in err, "training" in err) == (0, True, False), (command, err)
        assert {name: lanes(folder, name) for name in before} == before, name


def test_a_study_of_a_still_earlier_version_continues(folder: Path, run: Run) -> None:
    restored("options", folder)
    name = commands.OPTION_NAMES[-2]

    def forget(spec: dict[str, Any]) -> None:
        del spec["training"]["standardize"], spec["training"]["tensors"]
        del spec["training"]["sizes"]["digest"]

    rewrite_spec(folder / commands.STORE, name, forget)
    assert "which tensors decay is not stored" in run(f"report {name} --full")[1]
    code, _, err = run(commands.IMAGES.replace(" --standardize", ""))
    assert (code, "(standardize: True, False: stored, asked for)" in err) == (2, True)
    code, _, err = run(commands.IMAGES)
    assert (code, "nothing to train" in err) == (0, True)


def test_former_interrupted_studies_continue_to_the_values_of_fresh_ones(folder: Path, run: Run) -> None:
    outputs = restored("unfinished", folder)
    before = lanes(folder, commands.GRID_NAME)
    assert 0 < len(before) < 24
    code, _, err = run(commands.GRID)
    assert (code, f"{len(before)} of 24 lanes are in the store" in err) == (0, True), err
    after = lanes(folder, commands.GRID_NAME)
    assert {lane: after[lane] for lane in before} == before
    assert run(f"{commands.GRID} --storage fresh.db")[0] == 0
    fresh = lanes(folder, commands.GRID_NAME, "fresh.db")
    assert after.keys() == fresh.keys()
    assert [lane for lane in fresh if after[lane] != fresh[lane] and lane not in before] == []
    assert_trained_alike(after, outputs[f"{commands.EXPORT} {commands.GRID_NAME} --storage whole.db"])
    before = lanes(folder, commands.TPE_NAME)  # a search continues to more points
    code, _, err = run(f"{commands.TPE} --trials 7")
    assert (code, "5 of 7 points are in the store" in err) == (0, True), err
    after = lanes(folder, commands.TPE_NAME)
    assert list(after.items())[: len(before)] == list(before.items())
    assert len({lane[:2] for lane in after}) == 7


def test_former_study_of_user_code_continues_with_the_same_files_only(folder: Path, run: Run) -> None:
    outputs = restored("unfinished", folder)
    before = lanes(folder, commands.USER_NAME)
    larger = f"{commands.USER} --lr 2^-6:2^-4"
    file = folder / "blocks.py"  # net.py imports it
    text = file.read_text()
    file.write_text(f"{text}\n# changed\n")
    code, out, err = run(larger)
    assert (code, out) == (2, "")
    assert "./net.py:Net" in err.splitlines()[-1], err
    file.write_text(text)
    assert lanes(folder, commands.USER_NAME) == before
    forget_imports()
    code, _, err = run(larger)
    assert (code, "12 of 18 lanes are in the store" in err) == (0, True), err
    after = lanes(folder, commands.USER_NAME)
    assert {lane: after[lane] for lane in before} == before
    assert_trained_alike(after, outputs[f"{commands.EXPORT} {commands.USER_NAME} --storage whole.db"])
