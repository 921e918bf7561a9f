"""Databases that earlier versions wrote open, report the same numbers, and continue.

An earlier version wrote those in `tests/former`, each by the commands above its name below; the first of
`unfinished` was interrupted by SIGINT after its first pack. They stand for what users of that version have on
disk: they are not made again. The output of READ is next to them; the CSV of `--storage whole.db` in
`unfinished.json` is that of uninterrupted
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
from tests.report.view.schema import faults
from tests.store.sample import rewrite_spec

HERE = Path(__file__).parent / "former"
STORE = "lrwd-sweep.db"

# lattices: LATTICES. unfinished: GRID, TPE --trials 5, USER --lr 2^-6,2^-4. options: OPTIONS, IMAGES, IMPORT.
LATTICES = "compare adam adamw --lr 2^-6:2^-2 --wd 2^-10,2^-8,2^-6,2^-4,2^-2 --seeds 3 --epochs 4"
# SGD, because Adam amplifies the rounding by which machines differ.
GRID = "grid --optimizer sgdw --lr 2^-8:2^-5 --wd 2^-10,2^-7,2^-4 --seeds 2 --epochs 6 --max-lanes 2"
TPE = "tpe --optimizer sgdw --lr 2^-5:2^-1 --wd 2^-9:2^-5 --seeds 2 --epochs 3"
DECAYED = "--no-decay-norm-bias --no-decay head --wd 0,2^-8,2^-4"
USER = f"grid --preset mine.toml --optimizer adamw {DECAYED} --seeds 2"
SMALL = "--seeds 2 --lr 2^-7,2^-4"
OPTIONS = [  # each adds other keys to the stored specification
    f"grid --optimizer adamwr --wd 2^-5,2^-2 --epochs 8 --warmup 1 --t0 1 --tmult 2 {SMALL}",
    "grid --optimizer adamw:normalized --net mlp --no-decay-norm-bias --betas 0.8,0.99 --eps 1e-6 "
    f"--precision bfloat16 --wd 0,2^-5,2^-2 --epochs 3 --metric val_error {SMALL}",
    "grid --optimizer sgd --momentum 0.8 --nesterov --momentum-form torch --schedule step --eta-min 0.1 "
    f"--wd 2^-7,2^-4 --epochs 4 --cap 0.5 {SMALL}",
    f"grid --optimizer sgdw --net mlp --schedule fixed --wd 2^-7,2^12 --epochs 3 {SMALL}",  # diverges at 2^12
    f"compare adamw:lr-scaled sgdp adamp --wd 2^-6,2^-3 --epochs 3 --schedule linear {SMALL}",
]
IMAGES = (
    "grid --net ./net.py:ImageNet --data ./data.py:images --loss ./loss.py:weighted --standardize "
    "--augment crop-flip --batch-size 16 --no-decay bias --optimizer adam --lr 2^-6,2^-4 --wd 2^-8,2^-6 "
    "--seeds 2 --epochs 2"
)
IMPORT = (
    "study import theirs.csv --study-name theirs --optimizer lion --decay-rule lr-scaled --maximize "
    "--cap 0.2 --columns lr=learning_rate,value=accuracy --metric accuracy"
)

# The names that the program gave these studies.
ADAM, ADAMW = (f"digits-mlp-norm-{name}-cosine-4ep-b64" for name in ("adam", "adamw"))
GRID_NAME, TPE_NAME = "digits-mlp-norm-sgdw-cosine-6ep-b64", "digits-mlp-norm-sgdw-cosine-3ep-b64-tpe"
USER_NAME = "mine-data-load-net-net-adamw-cosine-3ep-b16-weights-only-spare-head-loss-smooth-width-6"
RESTARTS = "digits-mlp-norm-adamw-normalized-restarts-8ep-b64-warm1-t1"
OPTION_NAMES = [
    RESTARTS,
    "digits-mlp-adamw-normalized-cosine-3ep-b64-b1-0.8-b2-0.99-eps1e-06-weights-only-bfloat16",
    "digits-mlp-norm-sgd-step-4ep-b64-min0.1-mu0.8-nesterov-torch-momentum",
    "digits-mlp-sgdw-fixed-3ep-b64",
    *(f"digits-mlp-norm-{name}-linear-3ep-b64" for name in ("adamw-lr-scaled", "sgdp", "adamp")),
    "data-images-net-imagenet-adam-cosine-2ep-b16-crop-flip-spare-bias-loss-weighted",
    "theirs",
]

LIST, REPORT, EXPORT = "study list --format json", "report --format json", "study export"
READ = {  # commands that read each store; their output is in its JSON file
    "lattices": [LIST, REPORT, f"{REPORT} {ADAMW} {ADAM} --metric val_error", f"{EXPORT} {ADAMW}"],
    "unfinished": [LIST, f"{REPORT} {GRID_NAME} {TPE_NAME} {USER_NAME}", f"{EXPORT} {GRID_NAME}"],
    "options": [
        LIST,
        REPORT,  # the import, the newest
        f"{REPORT} {' '.join(OPTION_NAMES[:-1])}",
        f"{REPORT} {RESTARTS} --at-restart 2",
        f"{EXPORT} theirs",
    ],
}

# Sentences, whose words may change; everything else that `report` and `study list` print is compared.
WORDING = {"formula", "reason", "remark", "why", "why_not_forgiving"}
STORED = re.compile(r"\.seeds\[|\.axes\.")
DERIVED = 1e-8  # relative: statistics of the stored values, whose sums may be taken in another order
TRAINED = 1e-3  # relative: values trained on another machine

Lanes = dict[tuple[Any, ...], tuple[Any, ...]]
Run = Callable[[str], tuple[int, str, str]]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(HERE / "user", tmp_path, dirs_exist_ok=True)
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
    shutil.copy(HERE / f"{name}.sqlite", folder / STORE)
    outputs: dict[str, Any] = json.loads((HERE / f"{name}.json").read_text(encoding="utf-8"))
    return outputs


def lanes(folder: Path, study: str, store: str = STORE) -> Lanes:
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


@pytest.mark.parametrize("name", READ)
def test_former_store_gives_the_same_output(name: str, folder: Path, run: Run) -> None:
    outputs = restored(name, folder)
    for command in READ[name]:
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
    names = [ADAM, ADAMW]
    document = json.loads(run(f"report {' '.join(names)} --format json")[1])
    with open_store(STORE, write=False) as store:
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
    for name, again in (("lattices", [LATTICES]), ("options", [*OPTIONS, IMAGES])):
        restored(name, folder)
        studies = json.loads(run(LIST)[1])["studies"]
        before = {study["study_name"]: lanes(folder, study["study_name"]) for study in studies}
        for command in again:
            code, _, err = run(command)
            assert (code, "nothing to train" in err, "training" in err) == (0, True, False), (command, err)
        assert {name: lanes(folder, name) for name in before} == before, name


def test_a_study_of_a_still_earlier_version_continues(folder: Path, run: Run) -> None:
    restored("options", folder)
    name = OPTION_NAMES[-2]

    def forget(spec: dict[str, Any]) -> None:
        del spec["training"]["standardize"], spec["training"]["tensors"]
        del spec["training"]["sizes"]["digest"]

    rewrite_spec(folder / STORE, name, forget)
    assert "which tensors decay is not stored" in run(f"report {name} --full")[1]
    code, _, err = run(IMAGES.replace(" --standardize", ""))
    assert (code, "(standardize: True, False: stored, asked for)" in err) == (2, True)
    code, _, err = run(IMAGES)
    assert (code, "nothing to train" in err) == (0, True)


def test_former_interrupted_studies_continue_to_the_values_of_fresh_ones(folder: Path, run: Run) -> None:
    outputs = restored("unfinished", folder)
    before = lanes(folder, GRID_NAME)
    assert 0 < len(before) < 24
    code, _, err = run(GRID)
    assert (code, f"{len(before)} of 24 lanes are in the store" in err) == (0, True), err
    after = lanes(folder, GRID_NAME)
    assert {lane: after[lane] for lane in before} == before
    assert run(f"{GRID} --storage fresh.db")[0] == 0
    fresh = lanes(folder, GRID_NAME, "fresh.db")
    assert after.keys() == fresh.keys()
    assert [lane for lane in fresh if after[lane] != fresh[lane] and lane not in before] == []
    assert_trained_alike(after, outputs[f"{EXPORT} {GRID_NAME} --storage whole.db"])
    before = lanes(folder, TPE_NAME)  # a search continues to more points
    code, _, err = run(f"{TPE} --trials 7")
    assert (code, "5 of 7 points are in the store" in err) == (0, True), err
    after = lanes(folder, TPE_NAME)
    assert list(after.items())[: len(before)] == list(before.items())
    assert len({lane[:2] for lane in after}) == 7


def test_former_study_of_user_code_continues_with_the_same_files_only(folder: Path, run: Run) -> None:
    outputs = restored("unfinished", folder)
    before = lanes(folder, USER_NAME)
    larger = f"{USER} --lr 2^-6:2^-4"
    file = folder / "blocks.py"  # net.py imports it
    text = file.read_text()
    file.write_text(f"{text}\n# changed\n")
    code, out, err = run(larger)
    assert (code, out) == (2, "")
    assert "./net.py:Net" in err.splitlines()[-1], err
    file.write_text(text)
    assert lanes(folder, USER_NAME) == before
    forget_imports()
    code, _, err = run(larger)
    assert (code, "12 of 18 lanes are in the store" in err) == (0, True), err
    after = lanes(folder, USER_NAME)
    assert {lane: after[lane] for lane in before} == before
    assert_trained_alike(after, outputs[f"{EXPORT} {USER_NAME} --storage whole.db"])
