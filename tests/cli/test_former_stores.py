"""Databases that earlier versions wrote open, report the same numbers, and continue.

An earlier version wrote those in `tests/former`, each by the commands above its name below; the first of
`unfinished` was interrupted by SIGINT after its first pack. They stand for what users of that version have on
disk: they are not made again. Their JSON files hold commands and what these printed then, and the CSV of
studies that were not interrupted (`--storage whole.db`).
"""

import json
import math
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.science.trial import Trial
from lrwd_sweep.spec import user_code
from lrwd_sweep.store import Lane
from tests.cli.conftest import STORE, Patch, Run, assert_holds, assert_refused, trials
from tests.report.view.schema import faults
from tests.store.sample import rewrite_spec

HERE, WHOLE = Path(__file__).parents[1] / "former", "--storage whole.db"

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
# IMPORT: study import theirs.csv --study-name theirs --optimizer lion --decay-rule lr-scaled --maximize
# --cap 0.2 --columns lr=learning_rate,value=accuracy --metric accuracy

# The names that the program gave these studies.
GRID_NAME, TPE_NAME = "digits-mlp-norm-sgdw-cosine-6ep-b64", "digits-mlp-norm-sgdw-cosine-3ep-b64-tpe"
USER_NAME = "mine-data-load-net-net-adamw-cosine-3ep-b16-weights-only-spare-head-loss-smooth-width-6"
IMAGES_NAME = "data-images-net-imagenet-adam-cosine-2ep-b16-crop-flip-spare-bias-loss-weighted"

# Sentences, whose words may change; everything else that `report` and `study list` print is compared.
WORDING = {"formula", "reason", "remark", "why", "why_not_forgiving"}
STORED = re.compile(r"\.(seeds|axes)\.")
DERIVED = 1e-8  # relative: statistics of the stored values, whose sums may be taken in another order
TRAINED = 1e-3  # relative: values trained on another machine

Lanes = dict[Lane, Trial]


@pytest.fixture(autouse=True)
def _user_files(_empty_directory: None, monkeypatch: Patch) -> None:
    shutil.copytree(HERE / "user", ".", dirs_exist_ok=True)
    monkeypatch.setattr("lrwd_sweep.engine.device.cores", lambda: 1)  # in a thread, without seconds of start
    monkeypatch.setattr(user_code, "_helper_paths", {})
    forget_imports()


def forget_imports() -> None:
    for name in ("blocks", "net", "data", "loss"):
        sys.modules.pop(name, None)


def restored(name: str) -> Any:
    """Copy a database to the default store; return the expected output by command."""
    shutil.copy(HERE / f"{name}.sqlite", STORE)
    return json.loads((HERE / f"{name}.json").read_text(encoding="utf-8"))


def continued(run: Run, command: str, study: str, part: str) -> Lanes:
    """Continue a study, of which a part is stored and must stay; return its lanes."""
    before = trials(name=study)
    assert_holds(run(command, code=0).err, f"{part} are in the store")
    after = trials(name=study)
    assert list(after.items())[: len(before)] == list(before.items())
    return after


def differences(expected: Any, found: Any, where: str = "") -> Iterator[str]:
    """Yield where JSON differs from `expected`: derived numbers by more than rounding, others at all."""
    if isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        expected, found = dict(enumerate(expected)), dict(enumerate(found))
    if isinstance(expected, dict) and isinstance(found, dict):
        for key in expected:
            if key not in found:
                yield f"{where}.{key} is missing"
            elif key not in WORDING and not (key == "verdict" and ".comparisons." in where):
                yield from differences(expected[key], found[key], f"{where}.{key}")
        return
    derived = isinstance(expected, float) and isinstance(found, float) and not STORED.search(where)
    if expected != found and not (derived and math.isclose(expected, found, rel_tol=DERIVED, abs_tol=1e-12)):
        yield f"{where}: {expected!r} is now {found!r}"


def assert_trained_alike(found: Lanes, csv: str) -> None:
    """Assert that val_loss of every lane is that of a CSV from another machine, up to rounding."""
    rows = [line.split(",") for line in csv.splitlines()]
    assert rows[0][:4] == ["lr", "weight_decay", "seed", "value"]
    expected = {(Cell(float(row[0]), float(row[1])), int(row[2])): float(row[3]) for row in rows[1:]}
    losses = {lane: trial.metrics["val_loss"] for lane, trial in found.items()}
    assert losses == pytest.approx(expected, rel=TRAINED)


@pytest.mark.parametrize("name", ["lattices", "unfinished", "options"])
def test_former_store_gives_the_same_output(name: str, run: Run) -> None:
    for command, old in restored(name).items():
        if command.endswith(WHOLE):
            continue
        text = run(command, code=0).out
        found = text if isinstance(old, str) else json.loads(text)
        if command.startswith("report"):
            assert faults(found, "report") == [], command
            old |= {"schema_version": 2}  # which keeps what 1 had
        assert list(differences(old, found)) == [], command


def test_same_command_trains_nothing_in_a_former_store_nor_in_a_still_earlier_one(run: Run) -> None:
    def forget(spec: Any) -> None:
        del (task := spec["training"])["standardize"], task["tensors"], task["sizes"]["digest"]

    for name, again in (("lattices", [LATTICES]), ("options", [*OPTIONS, IMAGES])):
        restored(name)
        studies = json.loads(run("study list --format json").out)["studies"]
        names = [study["study_name"] for study in studies]
        before = [repr(trials(name=study)) for study in names]  # NaN is not equal to itself
        for command in again:
            err = run(command, code=0).err
            assert ("nothing to train" in err, "training" in err) == (True, False), (command, err)
        assert [repr(trials(name=study)) for study in names] == before, name
    rewrite_spec(Path(STORE), IMAGES_NAME, forget)
    assert "which tensors decay is not stored" in run(f"report {IMAGES_NAME} --full").out
    found = run(IMAGES.replace(" --standardize", ""), code=2)
    assert_holds(found.err, "(standardize: True, False: stored, asked for)")
    assert_holds(run(IMAGES, code=0).err, "nothing to train")


def test_former_studies_continue_to_the_values_of_fresh_ones_with_the_same_files_only(run: Run) -> None:
    outputs = restored("unfinished")
    before = trials(name=GRID_NAME)
    assert 0 < len(before) < 24
    after = continued(run, GRID, GRID_NAME, f"{len(before)} of 24 lanes")
    run(f"{GRID} --storage fresh.db", code=0)
    fresh = trials("fresh.db", GRID_NAME)
    assert after.keys() == fresh.keys()
    assert [lane for lane in fresh if after[lane] != fresh[lane] and lane not in before] == []
    assert_trained_alike(after, outputs[f"study export {GRID_NAME} {WHOLE}"])
    after = continued(run, f"{TPE} --trials 7", TPE_NAME, "5 of 7 points")
    assert len({cell for cell, _ in after}) == 7
    before = trials(name=USER_NAME)
    larger = f"{USER} --lr 2^-6:2^-4"
    file = Path("blocks.py")  # net.py imports it
    text = file.read_text()
    file.write_text(f"{text}\n# changed\n")
    assert_refused(run(larger), 2, "./net.py:Net")
    assert trials(name=USER_NAME) == before
    file.write_text(text)
    forget_imports()
    after = continued(run, larger, USER_NAME, "12 of 18 lanes")
    assert_trained_alike(after, outputs[f"study export {USER_NAME} {WHOLE}"])
