"""A CSV is read without loss, in any dialect, or refused."""

import csv
import io
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from lrwd_sweep.errors import UsageError
from lrwd_sweep.science.lattice import Cell, Lattice
from lrwd_sweep.science.trial import Status, Trial
from lrwd_sweep.store.imports.extent import merged_rates
from tests.store.sample import read_sweep

GOOD = "lr,weight_decay,seed,value\n0.1,0,0,1.5\n0.1,0.01,0,1.25\n0.2,0,0,nan\n0.2,0.01,0,2\n"
TRIALS = [
    Trial(Cell(0.1, 0.0), 0, Status.COMPLETE, {"value": 1.5}),
    Trial(Cell(0.1, 0.01), 0, Status.COMPLETE, {"value": 1.25}),
    Trial(Cell(0.2, 0.0), 0, Status.DIVERGED),
    Trial(Cell(0.2, 0.01), 0, Status.COMPLETE, {"value": 2.0}),
]


def test_csv_dialects_give_the_same_trials(tmp_path: Path) -> None:
    file = tmp_path / "sweep.csv"
    for text in (
        *(GOOD, "\ufeff" + GOOD, GOOD.replace("\n", "\r\n")),
        *(GOOD.replace(",", ";"), GOOD.replace(",", " , ")),
        GOOD.replace("0.1", '"0.1"').replace("lr", '"lr"'),
        GOOD.replace("\n0.2,0,", "\n\n,,,\n0.2,0,"),
        GOOD.replace("0.1", "1.0e-1").replace(",0,1.5", ",0.0,1.5"),
    ):
        file.write_bytes(text.encode())
        assert [*read_sweep(file).trials] == TRIALS, text
    file.write_bytes(GOOD.encode("utf-16"))
    for path, fault in (
        (file, "byte 0 is not UTF-8; save the file as UTF-8 CSV"),
        *((tmp_path / "no", "No such file"), (tmp_path, "is a directory")),
    ):
        with pytest.raises(UsageError, match=fault):
            read_sweep(path)


@given(st.data())
def test_written_trials_are_read_without_loss(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    positive, finite = st.floats(1e-12, 1e12), st.floats(allow_nan=False, allow_infinity=False)
    axes = [data.draw(st.lists(axis, min_size=1, max_size=3)) for axis in (positive, st.floats(0, 1e12))]
    lattice = Lattice(*map(tuple, axes))
    assume(not any(merged_rates(dict.fromkeys(axis, 1)) for axis in (lattice.lr, lattice.weight_decay)))
    trials, out = [], io.StringIO()
    writer = csv.writer(out)
    writer.writerow(["lr", "weight_decay", "seed", "value", "status", "extra"])
    for cell in lattice.cells():
        for seed in (-3, 2**40):
            status = data.draw(st.sampled_from(Status))
            names = ("value", "extra") if status is Status.COMPLETE else ()
            metrics = {name: data.draw(finite) for name in names}
            trials.append(Trial(cell, seed, status, metrics))
            value, extra = metrics.get("value", ""), metrics.get("extra", "")
            writer.writerow([cell.lr, cell.weight_decay, seed, value, status, extra])
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    path.write_text(out.getvalue())
    assert [*read_sweep(path).trials] == trials
