"""Anyone's sweep comes in whole, or with one clear line for each fault."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lrwd_sweep.decay import DecayRule
from lrwd_sweep.errors import UnknownName, UsageError
from lrwd_sweep.lattice import Cell, Lattice
from lrwd_sweep.optimizer import Family, Optimizer
from lrwd_sweep.spec import Kind
from lrwd_sweep.store import open_store
from lrwd_sweep.store.csv_import import import_spec, read_csv
from lrwd_sweep.trial import Status, Trial

GOOD = "lr,weight_decay,seed,value\n0.1,0,0,1.5\n0.1,0.01,0,1.25\n0.2,0,0,nan\n0.2,0.01,0,2\n"
TRIALS = [
    Trial(Cell(0.1, 0.0), 0, Status.COMPLETE, {"value": 1.5}),
    Trial(Cell(0.1, 0.01), 0, Status.COMPLETE, {"value": 1.25}),
    Trial(Cell(0.2, 0.0), 0, Status.DIVERGED),
    Trial(Cell(0.2, 0.01), 0, Status.COMPLETE, {"value": 2.0}),
]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "sweep.csv"


def read(
    file: Path, content: str, columns: dict[str, str] | None = None, metric: str = "value"
) -> list[Trial]:
    file.write_bytes(content.encode())
    return read_csv(file, columns, metric=metric)


def faults(
    file: Path, content: str, columns: dict[str, str] | None = None, metric: str = "value"
) -> list[str]:
    """The lines of the refusal, without the file's name that begins each."""
    with pytest.raises(UsageError) as error:
        read(file, content, columns, metric)
    lines = str(error.value).split("\n")
    assert all(line.startswith(f"{file}: ") for line in lines)
    return [line.removeprefix(f"{file}: ") for line in lines]


class TestReading:
    """What people's programs write."""

    def test_rows_are_trials(self, file: Path) -> None:
        assert read(file, GOOD) == TRIALS

    @pytest.mark.parametrize(
        "content",
        [
            "\ufeff" + GOOD,
            GOOD.replace("\n", "\r\n"),
            GOOD.rstrip("\n"),
            GOOD.replace(",", ";"),
            GOOD.replace(",", "\t"),
            GOOD.replace(",", " , "),
            GOOD.replace("0.1", '"0.1"').replace("lr", '"lr"'),
            GOOD.replace("\n0.2,0,", "\n\n,,,\n0.2,0,"),
            GOOD.replace("nan", "-Infinity"),
            GOOD.replace("0.1", "1.0e-1").replace(",0,1.5", ",0.0,1.5"),
        ],
        ids=[
            "bom",
            "crlf",
            "no-end",
            "semicolon",
            "tab",
            "spaces",
            "quotes",
            "blank-rows",
            "infinity",
            "float-seed",
        ],
    )
    def test_same_sweep_written_otherwise(self, file: Path, content: str) -> None:
        assert read(file, content) == TRIALS

    def test_without_a_seed_column_there_is_one_seed(self, file: Path) -> None:
        assert read(file, "lr,weight_decay,value\n0.1,0,1.5\n") == [TRIALS[0]]

    def test_columns_are_named_by_the_reader(self, file: Path) -> None:
        content = "wd,learning_rate,run,val_err\n0,0.1,7,1.5\n"
        columns = {"lr": "learning_rate", "weight_decay": "wd", "value": "val_err", "seed": "run"}
        trial = Trial(Cell(0.1, 0.0), 7, Status.COMPLETE, {"val_err": 1.5})
        assert read(file, content, columns, "val_err") == [trial]

    def test_further_columns_of_numbers_are_metrics(self, file: Path) -> None:
        content = (
            ",lr,weight_decay,value,name,val_error,test_loss,notes\n"
            "0,0.1,0,1.5,first,0.25,,\n1,0.1,0.01,1.25,2,0.125,nan,\n2,0.1,0.02,nan,3,0.9,7.0,\n"
        )
        assert [trial.metrics for trial in read(file, content)] == [
            {"value": 1.5, "val_error": 0.25},
            {"value": 1.25, "val_error": 0.125},
            {},
        ]

    @pytest.mark.parametrize(
        ("value", "status", "expected"),
        [
            ("1.5", "complete", Status.COMPLETE),
            ("1.5", "", Status.COMPLETE),
            ("inf", "", Status.DIVERGED),
            ("", "diverged", Status.DIVERGED),
            ("1.5", "diverged", Status.DIVERGED),
            ("", "failed", Status.FAILED),
        ],
    )
    def test_status_column_is_honoured(self, file: Path, value: str, status: str, expected: Status) -> None:
        content = f"lr,weight_decay,value,status,detail\n0.1,0,{value},{status},why\n"
        metrics = {"value": 1.5} if expected is Status.COMPLETE else {}
        assert read(file, content) == [Trial(Cell(0.1, 0), 0, expected, metrics, detail="why")]

    def test_export_with_the_metric_twice_gives_the_same_trials(self, file: Path) -> None:
        content = "lr,weight_decay,seed,value,status,val_error,val_loss\n0.1,0,0,1.5,complete,0.25,1.5\n"
        (trial,) = read(file, content, metric="val_loss")
        assert trial.metrics == {"val_loss": 1.5, "val_error": 0.25}

    @given(st.data())
    @settings(max_examples=30, deadline=None)
    def test_written_trials_are_read_without_loss(
        self, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
    ) -> None:
        positive, finite = st.floats(1e-12, 1e12), st.floats(allow_nan=False, allow_infinity=False)
        lattice = Lattice(
            tuple(data.draw(st.lists(positive, min_size=1, max_size=3))),
            tuple(data.draw(st.lists(st.floats(0, 1e12), min_size=1, max_size=3))),
        )
        trials = []
        for cell in lattice.cells():
            for seed in (-3, 2**40):
                status = data.draw(st.sampled_from(Status))
                metrics = {"value": data.draw(finite), "extra": data.draw(finite)}
                trials.append(Trial(cell, seed, status, metrics if status is Status.COMPLETE else {}))
        out = io.StringIO()
        writer = csv.writer(out)
        writer.writerow(["lr", "weight_decay", "seed", "value", "status", "extra"])
        for t in trials:
            value, extra = t.metrics.get("value", ""), t.metrics.get("extra", "")
            writer.writerow([t.cell.lr, t.cell.weight_decay, t.seed, value, t.status, extra])
        assert read(tmp_path_factory.mktemp("csv") / "a.csv", out.getvalue()) == trials


class TestFaults:
    """One line each, with the line of the file and the value."""

    @pytest.mark.parametrize(
        ("row", "fault"),
        [
            ("0,0.01,0,1", "lr '0' is not a learning rate; it must be positive and finite"),
            ("-0.1,0.01,0,1", "lr '-0.1' is not a learning rate; it must be positive and finite"),
            ("0.1,1e-400,0,1", "weight_decay '1e-400' is not a number"),
            ("inf,0.01,0,1", "lr 'inf' is not a learning rate; it must be positive and finite"),
            ("nan,0.01,0,1", "lr 'nan' is not a learning rate; it must be positive and finite"),
            ("0.1x,0.01,0,1", "lr '0.1x' is not a number"),
            ("1_0,0.01,0,1", "lr '1_0' is not a number"),
            ("\u0661,0.01,0,1", "lr '\u0661' is not a number"),
            (",0.01,0,1", "lr '' is empty; it needs a number"),
            (
                "0.1,-1e-3,0,1",
                "weight_decay '-1e-3' is not a weight decay; it must be finite and not negative",
            ),
            ("0.1,nan,0,1", "weight_decay 'nan' is not a weight decay; it must be finite and not negative"),
            ("0.1,0.01,1.5,1", "seed '1.5' is not a seed; it must be a whole number"),
            ("0.1,0.01,1e300,1", "seed '1e300' is not a seed; it must be a whole number"),
            ("0.1,0.01,nan,1", "seed 'nan' is not a seed; it must be a whole number"),
            ("0.1,0.01,0,", "value is empty; write nan for a run that diverged"),
            ("0.1,0.01,0,good", "value 'good' is not a number"),
            ("0.1,0.01,0,\x1b[31m", r"value '\x1b[31m' is not a number"),
            ("0.1,0.01,0", "there are 3 fields under a header of 4"),
            ("0.1,0.01,0,1,2", "there are 5 fields under a header of 4"),
        ],
    )
    def test_fault_of_a_row(self, file: Path, row: str, fault: str) -> None:
        assert faults(file, f"lr,weight_decay,seed,value\n0.1,0,0,1\n{row}\n") == [f"line 3: {fault}"]

    @pytest.mark.parametrize(
        ("row", "fault"),
        [
            ("0.1,0,1,finished", "status 'finished' is none of complete, diverged, failed"),
            ("0.1,0,inf,complete", "status is complete, but the value is inf"),
            ("0.1,0,,complete", "value is empty; write nan for a run that diverged"),
        ],
    )
    def test_fault_of_a_status(self, file: Path, row: str, fault: str) -> None:
        assert faults(file, f"lr,weight_decay,value,status\n{row}\n") == [f"line 2: {fault}"]

    def test_all_faults_are_listed_up_to_ten(self, file: Path) -> None:
        listed = faults(file, GOOD + "x,-1,0.5,y\n" + "0.1,0,0\n" * 20)
        assert listed[:5] == [
            "line 6: value 'y' is not a number",
            "line 6: lr 'x' is not a number",
            "line 6: weight_decay '-1' is not a weight decay; it must be finite and not negative",
            "line 6: seed '0.5' is not a seed; it must be a whole number",
            "line 7: there are 3 fields under a header of 4",
        ]
        assert len(listed) == 11
        assert listed[-1] == "and 14 more"

    def test_repeated_lane_names_both_lines(self, file: Path) -> None:
        assert faults(file, GOOD + "0.10000000000000001,0,0,7\n") == [
            "line 6: repeats line 2 (lr 0.1, weight_decay 0.0, seed 0)"
        ]

    def test_missing_lane_is_named(self, file: Path) -> None:
        assert faults(file, GOOD + "0.1,0,1,1\n0.1,0.01,1,1\n0.2,0.01,1,1\n") == [
            "there is no row for lr 0.2, weight_decay 0.0, seed 1; a lattice needs every combination"
        ]

    def test_random_search_is_refused_in_one_line(self, file: Path) -> None:
        rows = "".join(f"{k + 1},{k},1\n" for k in range(3000))
        assert faults(file, "lr,weight_decay,value\n" + rows) == [
            "3000 rows are not a lattice, 3000 learning rates and 3000 weight decays at 1 seed make "
            "9000000 runs; import a grid, a random search has no surface to judge"
        ]

    @pytest.mark.parametrize(
        ("content", "fault"),
        [
            ("", "the file is empty; write lr,weight_decay,seed,value and one row for each run"),
            ("\n,,,\n", "the file is empty; write lr,weight_decay,seed,value and one row for each run"),
            (
                "lr,weight_decay,value\n",
                "there are no rows under the header; write lr,weight_decay,seed,value",
            ),
            ('lr,weight_decay,value\n0.1,0,"1\n', "line 2: unexpected end of data; check the quotes"),
            ("lr,lr,weight_decay,value\n1,1,1,1\n", "two columns are named 'lr'"),
        ],
    )
    def test_fault_of_the_file(self, file: Path, content: str, fault: str) -> None:
        (line,) = faults(file, content)
        assert line.startswith(fault)

    def test_missing_columns_are_named_beside_those_there_are(self, file: Path) -> None:
        assert faults(file, "lr,wd,val\n1,1,1\n", {"weight_decay": "wd", "seed": "run"}) == [
            "there is no column 'value', only 'lr', 'wd', 'val'; name it with --columns value=COLUMN",
            "there is no column 'run', only 'lr', 'wd', 'val'; name it with --columns seed=COLUMN",
        ]

    def test_column_for_two_things_is_refused(self, file: Path) -> None:
        listed = faults(file, "lr,weight_decay,value\n1,1,1\n", {"value": "lr"})
        assert listed == ["column 'lr' is to be two things; see --columns"]

    def test_unknown_thing_in_columns(self, file: Path) -> None:
        with pytest.raises(UnknownName, match=r"unknown column 'weight-decay'; did you mean weight_decay\?"):
            read(file, GOOD, {"weight-decay": "wd"})

    def test_value_and_its_namesake_must_agree(self, file: Path) -> None:
        content = "lr,weight_decay,value,val_loss\n0.1,0,1.5,1.5\n0.2,0,1.5,2.5\n"
        (line,) = faults(file, content, metric="val_loss")
        assert line == "line 3: the value is 1.5 but val_loss is 2.5; use another --metric"

    def test_file_that_is_not_there_or_not_text(self, file: Path) -> None:
        with pytest.raises(UsageError, match="No such file or directory; name a CSV file"):
            read_csv(file)
        with pytest.raises(UsageError, match="Is a directory; name a CSV file"):
            read_csv(file.parent)
        file.write_bytes(GOOD.encode("utf-16"))
        with pytest.raises(UsageError, match="byte 0 is not UTF-8; save the file as UTF-8 CSV"):
            read_csv(file)


class TestSpec:
    """The study that an imported sweep becomes."""

    def test_spec_spans_the_file(self, file: Path) -> None:
        spec = import_spec(read(file, GOOD), "adamw:lr-scaled")
        assert spec.kind is Kind.IMPORT
        assert spec.lattice == Lattice((0.1, 0.2), (0.0, 0.01))
        assert (spec.seeds, spec.metric, spec.training) == ((0,), "value", None)
        assert spec.optimizer == Optimizer(Family.ADAM, DecayRule.LR_SCALED)
        assert import_spec(TRIALS, "adamw:lr-scaled", decay_rule="lr-scaled", metric="m").metric == "m"

    def test_free_label_needs_its_rule(self) -> None:
        with pytest.raises(UsageError) as error:
            import_spec(TRIALS, "Lion v2")
        assert "add --decay-rule: one of coupled, independent, lr-scaled" in str(error.value)
        optimizer = import_spec(TRIALS, "Lion v2", decay_rule="lr-scaled").optimizer
        assert (str(optimizer), optimizer.rule, optimizer.family) == ("Lion v2", DecayRule.LR_SCALED, None)

    def test_typo_names_the_near_optimizer(self) -> None:
        with pytest.raises(UsageError, match=r"did you mean adam, adamw or adamp\?"):
            import_spec(TRIALS, "adamv")

    @pytest.mark.parametrize(
        ("optimizer", "rule", "text"),
        [
            ("adam", "lr-scaled", "--decay-rule lr-scaled contradicts --optimizer adam, which is coupled"),
            ("lion", "lr-scald", "unknown decay rule 'lr-scald'; did you mean lr-scaled"),
            (" ", "lr-scaled", "--optimizer ' ' is empty"),
        ],
    )
    def test_optimizer_and_rule_that_make_no_sense(self, optimizer: str, rule: str, text: str) -> None:
        with pytest.raises(UsageError) as error:
            import_spec(TRIALS, optimizer, decay_rule=rule)
        assert text in str(error.value)

    def test_imported_study_is_stored_like_any_other(self, tmp_path: Path) -> None:
        with open_store(str(tmp_path / "a.db"), write=True) as store:
            store.begin_study("theirs", import_spec(TRIALS, "lion", decay_rule="lr-scaled"))
            store.add_trials("theirs", TRIALS)
            assert store.trials("theirs") == TRIALS
            assert store.studies()[0].counts == {
                "cells": 4,
                "complete": 3,
                "diverged": 1,
                "failed": 0,
                "missing": 0,
            }
