"""Anyone's sweep comes in whole, or with one clear line for each fault."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lrwd_sweep.cli.options import option_text
from lrwd_sweep.errors import UnknownName, UsageError
from lrwd_sweep.science.lattice import Cell, Lattice
from lrwd_sweep.science.trial import Status, Trial
from lrwd_sweep.store.csv_import import Sweep, read_csv
from lrwd_sweep.store.near_rates import one_for_each

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


def sweep_of(file: Path, content: str, columns: dict[str, str] | None = None, metric: str = "value") -> Sweep:
    file.write_bytes(content.encode())
    return read_csv(file, columns, metric=metric)


def read(
    file: Path, content: str, columns: dict[str, str] | None = None, metric: str = "value"
) -> list[Trial]:
    return [*sweep_of(file, content, columns, metric).trials]


def faults(
    file: Path, content: str, columns: dict[str, str] | None = None, metric: str = "value"
) -> list[str]:
    """The lines of the refusal, without the file's name that begins each."""
    with pytest.raises(UsageError) as error:
        read(file, content, columns, metric)
    lines = error.value.spelled(option_text).split("\n")
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
            ("1.5", "finished", Status.COMPLETE),
            ("nan", "finished", Status.DIVERGED),
            ("inf", "complete", Status.DIVERGED),
            ("1.5", "OUT_OF_MEMORY", Status.FAILED),
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
        assume(not one_for_each(lattice.lr) and not one_for_each(lattice.weight_decay))
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
    """One line for each kind, with the line of the file and the value."""

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
            ("0.1,0,,finished", "value is empty; write nan for a run that diverged"),
            ("0.1,0,,complete", "value is empty; write nan for a run that diverged"),
        ],
    )
    def test_fault_of_a_status(self, file: Path, row: str, fault: str) -> None:
        assert faults(file, f"lr,weight_decay,value,status\n{row}\n") == [f"line 2: {fault}"]

    def test_each_kind_of_fault_is_told_once_with_the_number_of_lines(self, file: Path) -> None:
        assert faults(file, GOOD + "x,-1,0.5,y\n" + "0.1,0,0\n" * 20 + "0.1,0,0,z\n") == [
            "line 6: value 'y' is not a number (and 1 more line)",
            "line 6: lr 'x' is not a number",
            "line 6: weight_decay '-1' is not a weight decay; it must be finite and not negative",
            "line 6: seed '0.5' is not a seed; it must be a whole number",
            "line 7: there are 3 fields under a header of 4 (and 19 more lines)",
        ]

    @pytest.mark.parametrize(
        ("text", "remedy"),
        [
            ('"0,496"', "write it with a decimal point, in the whole file"),
            ('"1.234,5"', "write it with a decimal point, in the whole file"),
            ("87.5%", "leave out the %"),
            ("None", "write nan for a run that diverged, or add a column status that says missing"),
            ("N/A", "write nan for a run that diverged, or add a column status that says missing"),
            ("--", "write nan for a run that diverged, or add a column status that says missing"),
        ],
    )
    def test_numbers_written_for_a_spreadsheet_have_their_remedy(
        self, file: Path, text: str, remedy: str
    ) -> None:
        rows = "".join(f"{lr},0.01,0,{text}\n" for lr in (0.1, 0.2, 0.3))
        assert faults(file, f"lr,weight_decay,seed,value\n{rows}") == [
            f"line 2: value {text.strip(chr(34))!r} is not a number; {remedy} (and 2 more lines)"
        ]

    def test_seeds_in_a_column_of_another_name_are_told_once(self, file: Path) -> None:
        rows = "".join(f"0.1,{decay},{seed},1\n" for decay in (0.01, 0.02) for seed in (1, 2, 3))
        assert faults(file, f"lr,weight_decay,rng,value\n{rows}") == [
            "line 3: repeats line 2 (lr 0.1, weight_decay 0.01, seed 0); "
            "name the column of seeds with --columns seed=COLUMN (and 3 more lines)"
        ]

    def test_repeated_lane_names_both_lines(self, file: Path) -> None:
        assert faults(file, GOOD + "0.10000000000000001,0,0,7\n") == [
            "line 6: repeats line 2 (lr 0.1, weight_decay 0.0, seed 0); keep one row of each run"
        ]

    def test_missing_lane_is_named(self, file: Path) -> None:
        assert faults(file, GOOD + "0.1,0,1,1\n0.1,0.01,1,1\n0.2,0.01,1,1\n") == [
            "there is no row for lr 0.2, weight_decay 0.0, seed 1; a lattice needs every combination: "
            "for a run that did not finish, write a row with missing in a column status"
        ]

    def test_missing_lanes_are_told_in_one_line_whose_remedy_works(self, file: Path) -> None:
        rows = "".join(f"{lr},{decay},0,1\n" for lr in (0.1, 0.2, 0.3, 0.4) for decay in (0.01, 0.02))
        (line,) = faults(file, "lr,weight_decay,seed,value\n0.5,0.03,0,1\n" + rows)
        assert "there is no row for lr 0.1, weight_decay 0.03, seed 0 (and 5 more); a lattice" in line
        mended = GOOD.replace("\n", ",\n").replace("value,", "value,status", 1)
        found = sweep_of(file, mended.replace("1.25,", ",missing"))
        assert len(found.trials) == 3
        assert len(found.lattice) == 4

    def test_a_lattice_whose_runs_have_seeds_of_their_own_is_no_random_search(self, file: Path) -> None:
        cells = [(lr, decay) for lr in (0.1, 0.2, 0.4) for decay in (0.01, 0.02, 0.04) for _ in range(3)]
        rows = "".join(f"{lr},{decay},{k},1\n" for k, (lr, decay) in enumerate(cells))
        (line,) = faults(file, "lr,weight_decay,seed,value\n" + rows)
        assert line.endswith("the cells do not share their seeds: number them 0, 1, … in each cell")

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
            "there is no column 'value' or 'run', only 'lr', 'wd', 'val'; "
            "name them with --columns value=COLUMN,seed=COLUMN",
        ]

    def test_a_column_of_the_same_letters_is_proposed(self, file: Path) -> None:
        (line,) = faults(file, "LR,Weight Decay,seed,value\n1,1,1,1\n")
        assert line.endswith("name them with --columns 'lr=LR,weight_decay=Weight Decay'")

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


LATTICE = "lr,weight_decay,seed,value,state\n" + "".join(
    f"{lr},{weight_decay},0,{value},COMPLETE\n"
    for lr, weight_decay, value in (
        (0.1, 0.01, 0.5), (0.1, 0.02, 0.4), (0.2, 0.01, 0.3), (0.2, 0.02, 0.2)
    )
)  # fmt: skip


class TestStates:
    """A run that did not finish has no result, whatever the tool calls that."""

    @pytest.mark.parametrize(
        ("header", "complete", "pruned"),
        [
            ("state", "COMPLETE", "PRUNED"),
            ("state", "TrialState.COMPLETE", "TrialState.PRUNED"),
            ("State", "finished", "killed"),
            ("status", "TERMINATED", "RUNNING"),
            ("trial_status", "completed", "stopped"),
            ("State", "COMPLETED", "CANCELLED by 1000"),
            ("done", "True", "False"),
            ("done", "1", "0"),
            ("is_pruned", "False", "True"),
            ("outcome", "ok", "preempted"),
            ("ending", "Succeeded", "Waiting"),
            ("run.status", "FINISHED", "KILLED"),
        ],
    )
    def test_run_that_did_not_finish_is_a_missing_lane(
        self, file: Path, header: str, complete: str, pruned: str
    ) -> None:
        content = LATTICE.replace("0.5,COMPLETE", "0.001,COMPLETE", 1).replace("COMPLETE", pruned, 1)
        found = sweep_of(file, content.replace("COMPLETE", complete).replace("state", header))
        assert found.lattice == Lattice((0.1, 0.2), (0.01, 0.02))
        assert [trial.metrics for trial in found.trials] == [{"value": v} for v in (0.4, 0.3, 0.2)]
        assert found.notes == (
            f"column {header!r}: 1 {pruned} left out, without a result; --columns status= takes every value",
        )

    @pytest.mark.parametrize("word", ["FAIL", "crashed", "ERROR", "NODE_FAIL", "failed: CUDA out of memory"])
    def test_run_that_failed_is_a_failed_lane_with_the_word(self, file: Path, word: str) -> None:
        found = sweep_of(file, LATTICE.replace("COMPLETE", word, 1))
        assert found.trials[0] == Trial(Cell(0.1, 0.01), 0, Status.FAILED, detail=word)
        assert f"1 {word} counted as failed" in found.notes[0]

    def test_diverged_state_beats_the_value(self, file: Path) -> None:
        found = sweep_of(file, LATTICE.replace("COMPLETE", "Diverged", 1))
        assert found.trials[0] == Trial(Cell(0.1, 0.01), 0, Status.DIVERGED)
        assert not found.notes

    def test_where_columns_disagree_the_run_did_not_finish(self, file: Path) -> None:
        rows = [row + ",False" for row in LATTICE.splitlines()]
        rows[0], rows[1] = "lr,weight_decay,seed,value,state,pruned", rows[1].replace("False", "True")
        found = sweep_of(file, "\n".join(rows))
        assert len(found.trials) == 3
        assert found.notes[0].startswith("columns 'state', 'pruned': 1 True left out")

    def test_unknown_words_stop_the_import_in_one_line(self, file: Path) -> None:
        (line,) = faults(file, LATTICE.replace("COMPLETE", "gut", 1).replace("COMPLETE", "so lala", 2))
        assert line == (
            "column 'state' should say how each run ended, but holds unknown words: 'gut', 'so lala'; write "
            "complete, failed or missing for them, leave the column aside with --columns status=, "
            "or name another with --columns status=COLUMN"
        )

    def test_status_without_a_column_takes_every_value(self, file: Path) -> None:
        content = LATTICE.replace("COMPLETE", "PRUNED", 1).replace("COMPLETE", "whatever")
        assert len(read(file, content, {"status": ""})) == 4

    def test_status_column_can_be_named(self, file: Path) -> None:
        content = LATTICE.replace("COMPLETE", "whatever").replace("state", "state,good")
        content = content.replace("whatever", "whatever,yes").replace("yes", "no", 1)
        assert len(read(file, content, {"status": "good"})) == 3
        (line,) = faults(file, content, {"status": "bad"})
        assert line.startswith(
            "there is no column 'bad', only 'lr', 'weight_decay', 'seed', 'value', 'state'"
        )

    @pytest.mark.parametrize(
        ("header", "texts"),
        [
            ("random_state", ("0", "1")),
            ("completed", ("2340", "10")),
            ("nesterov", ("True", "False")),
            ("error", ("0", "1")),
            ("objective", ("error", "error")),
            ("finished", ("2024-01-01 10:00", "2024-01-02 10:00")),
            ("state_dim", ("17", "18")),
            ("phase", ("grid", "grid")),
            ("notes", ("failed at first", "good")),
        ],
    )
    def test_other_columns_are_no_states(self, file: Path, header: str, texts: tuple[str, str]) -> None:
        content = LATTICE.replace("state", header).replace("COMPLETE", texts[0], 1)
        found = sweep_of(file, content.replace("COMPLETE", texts[1]))
        assert [trial.status for trial in found.trials] == [Status.COMPLETE] * 4
        assert not found.notes

    def test_state_column_of_numbers_is_no_metric(self, file: Path) -> None:
        assert read(file, LATTICE.replace("state", "done").replace("COMPLETE", "1"))[0].metrics == {
            "value": 0.5
        }

    def test_run_that_did_not_finish_needs_no_rates_and_no_value(self, file: Path) -> None:
        found = sweep_of(file, LATTICE + ",,,,WAITING\n0.1,,x,,RUNNING\n")
        assert len(found.trials) == 4
        assert found.notes[0].startswith("column 'state': 1 WAITING, 1 RUNNING left out")

    def test_finished_run_replaces_one_that_crashed_or_was_killed(self, file: Path) -> None:
        found = sweep_of(file, LATTICE + "0.1,0.01,0,9,crashed\n0.1,0.01,0,9,killed\n")
        assert [trial.metrics["value"] for trial in found.trials] == [0.5, 0.4, 0.3, 0.2]

    def test_unfinished_runs_beside_the_lattice_are_left_out(self, file: Path) -> None:
        found = sweep_of(file, LATTICE + "0.4,0.01,0,9,RUNNING\n0.1,0.01,7,9,RUNNING\n5,5,0,9,FAIL\n")
        assert (found.lattice, found.seeds) == (Lattice((0.1, 0.2), (0.01, 0.02)), (0,))
        assert found.notes[0].startswith("column 'state': 2 RUNNING, 1 FAIL left out")

    def test_row_of_unfinished_runs_that_completes_the_lattice_belongs_to_it(self, file: Path) -> None:
        found = sweep_of(file, LATTICE + "0.4,0.01,0,9,PRUNED\n0.4,0.02,0,9,PRUNED\n")
        assert found.lattice == Lattice((0.1, 0.2, 0.4), (0.01, 0.02))
        assert len(found.trials) == 4

    def test_file_without_any_result_is_refused_in_one_line(self, file: Path) -> None:
        assert faults(file, LATTICE.replace("COMPLETE", "RUNNING")) == [
            "no run has a result, says column 'state' (4 'RUNNING'); --columns status= takes every value"
        ]


class TestRates:
    """Rates that are equal but for rounding are one rate."""

    def test_float32_rates_are_those_they_came_from(self, file: Path) -> None:
        rows = "".join(
            f"{lr},{weight_decay},{seed},{seed + lr}\n"
            for seed, third, tenth in (
                (0, 0.00031622776601683794, 0.1),
                (1, 0.0003162277571391314, 0.10000000149),
            )
            for lr in (third, 0.001)
            for weight_decay in (0.0, tenth)
        )
        found = sweep_of(file, "lr,weight_decay,seed,value\n" + rows)
        assert found.lattice == Lattice((0.00031622776601683794, 0.001), (0.0, 0.1))
        assert (found.seeds, len(found.trials)) == ((0, 1), 8)
        assert found.notes == (
            "lr equal but for rounding: 0.000316227757139 is read as 0.000316227766017",
            "weight_decay equal but for rounding: 0.10000000149 is read as 0.1",
        )

    def test_two_rows_that_become_one_lane_are_refused(self, file: Path) -> None:
        assert faults(file, GOOD + "0.10000000149,0,0,7\n") == [
            "line 6: repeats line 2 (lr 0.1, weight_decay 0.0, seed 0; the rates are equal but for "
            "rounding); keep one row of each run"
        ]

    def test_rates_nearby_that_were_meant_stay_apart(self, file: Path) -> None:
        found = sweep_of(file, GOOD.replace("0.2", "0.1001"))
        assert found.lattice.lr == (0.1, 0.1001)
        assert not found.notes

    def test_table_that_is_no_lattice_is_refused_with_its_near_rates(self, file: Path) -> None:
        half = {"0.1": "0.0999755859375", "0.2": "0.199951171875"}  # float16
        rows = "".join(
            f"{half[lr] if seed else lr},{weight_decay},{seed},1\n"
            for seed in (0, 1)
            for lr in ("0.1", "0.2")
            for weight_decay in ("0.01", "0.02")
        )
        (line,) = faults(file, "lr,weight_decay,seed,value\n" + rows)
        assert line == (
            "8 rows are not a lattice, 4 learning rates and 2 weight decays at 2 seeds make 16 runs; these "
            "are nearly the same: lr 0.0999755859375 and 0.1, 0.199951171875 and 0.2; where they mean one "
            "rate, write it in one way"
        )


class TestContext:
    """What a file says about the sweep as a whole."""

    def test_decay_rule_direction_and_cap_are_read(self, file: Path) -> None:
        found = sweep_of(
            file, "lr,weight_decay,value,decay_rule,direction,cap\n0.1,0,1.5,LR_Scaled,MAX,2.5\n"
        )
        context = found.context
        assert (context.decay_rule, context.direction, context.cap) == ("lr-scaled", "maximize", 2.5)
        assert found.trials[0].metrics == {"value": 1.5}

    @pytest.mark.parametrize(
        ("texts", "fault"),
        [
            (("lr-scaled", "coupled"), "column 'decay_rule' holds 'lr-scaled', 'coupled'; write one rule"),
            (("l2", ""), "column 'decay_rule' holds 'l2'; write one rule (coupled, independent, lr-scaled"),
        ],
    )
    def test_several_or_unknown_rules_are_refused_in_one_line(
        self, file: Path, texts: tuple[str, str], fault: str
    ) -> None:
        content = "lr,weight_decay,value,decay_rule\n0.1,0,1.5,{}\n0.2,0,1,{}\n".format(*texts)
        (line,) = faults(file, content)
        assert line.startswith(fault)
        assert "--columns decay_rule=" in line
        assert sweep_of(file, content, {"decay_rule": ""}).context.decay_rule is None

    def test_direction_and_cap_of_other_meaning_are_further_columns(self, file: Path) -> None:
        found = sweep_of(file, "lr,weight_decay,value,direction,cap\n0.1,0,1.5,north,1\n0.2,0,1.5,east,2\n")
        assert (found.context.direction, found.context.cap) == (None, None)
        assert [trial.metrics["cap"] for trial in found.trials] == [1.0, 2.0]

    @pytest.mark.parametrize(
        ("header", "metric", "higher"),
        [
            ("lr,weight_decay,value,note", "val_acc", "metric 'val_acc'"),
            ("lr,weight_decay,f1_macro,note", "value", "column 'f1_macro'"),
            ("lr,weight_decay,value,key", "value", "'best.f1_macro' in column 'key'"),
            ("lr,weight_decay,val_loss,key", "val_loss", ""),
        ],
    )
    def test_names_that_say_higher_are_noticed(
        self, file: Path, header: str, metric: str, higher: str
    ) -> None:
        key = "best.f1_macro" if "key" in header else "first"
        found = sweep_of(file, f"{header}\n0.1,0,0.5,{key}\n", {"value": header.split(",")[2]}, metric)
        assert found.context.higher == higher

    def test_values_of_the_file_are_cut_to_one_line(self, file: Path) -> None:
        (line,) = faults(file, GOOD + "x" * 500 + ",0,0,1\n")
        assert line == f"line 6: lr '{'x' * 60}…' is not a number"
