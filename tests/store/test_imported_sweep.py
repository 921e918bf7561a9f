"""A sweep of another program is imported whole and specified, or refused with a line per kind of fault."""

import csv
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from lrwd_sweep.cli.options import option_text
from lrwd_sweep.errors import UnknownName, UsageError
from lrwd_sweep.science.lattice import Cell, Lattice
from lrwd_sweep.science.optimizer import DecayRule, Optimizer
from lrwd_sweep.science.trial import Direction, Status, Trial
from lrwd_sweep.spec.study import Kind
from lrwd_sweep.store.imports import ImportedSweep, to_study
from lrwd_sweep.store.imports.extent import merged_rates
from lrwd_sweep.store.imports.run_states import SweepContext
from tests.store.sample import read_sweep

HEADER = "lr,weight_decay,seed,value"
GOOD = f"{HEADER}\n0.1,0,0,1.5\n0.1,0.01,0,1.25\n0.2,0,0,nan\n0.2,0.01,0,2\n"
TRIALS = [
    Trial(Cell(0.1, 0.0), 0, Status.COMPLETE, {"value": 1.5}),
    Trial(Cell(0.1, 0.01), 0, Status.COMPLETE, {"value": 1.25}),
    Trial(Cell(0.2, 0.0), 0, Status.DIVERGED),
    Trial(Cell(0.2, 0.01), 0, Status.COMPLETE, {"value": 2.0}),
]
STATES = f"{HEADER},state\n" + "".join(
    f"{lr},{decay},0,{value},COMPLETE\n"
    for lr, decay, value in ((0.1, 0.01, 0.5), (0.1, 0.02, 0.4), (0.2, 0.01, 0.3), (0.2, 0.02, 0.2))
)
LATTICE = Lattice((0.1, 0.2), (0.01, 0.02))
UNUSED = "left out, without a result; --columns status= uses every value"

Read = Callable[..., ImportedSweep]
Faults = Callable[..., list[str]]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "sweep.csv"


@pytest.fixture
def read(file: Path) -> Read:
    def read(text: str, columns: dict[str, str] | None = None, metric: str = "value") -> ImportedSweep:
        file.write_bytes(text.encode())
        return read_sweep(file, columns=columns or {}, metric=metric)

    return read


@pytest.fixture
def faults(file: Path, read: Read) -> Faults:
    """Return the lines of a refusal without the file's name."""

    def faults(*arguments: object, **options: object) -> list[str]:
        with pytest.raises(UsageError) as error:
            read(*arguments, **options)
        lines = error.value.spelled(option_text).split("\n")
        assert all(line.startswith(f"{file}: ") for line in lines)
        return [line.removeprefix(f"{file}: ") for line in lines]

    return faults


def values(sweep: ImportedSweep) -> list[float]:
    return [trial.metrics["value"] for trial in sweep.trials]


def test_csv_dialects_give_the_same_trials_and_numeric_columns_are_metrics(read: Read) -> None:
    for text in (
        *(GOOD, "\ufeff" + GOOD, GOOD.replace("\n", "\r\n")),
        *(GOOD.replace(",", ";"), GOOD.replace(",", " , ")),
        GOOD.replace("0.1", '"0.1"').replace("lr", '"lr"'),
        GOOD.replace("\n0.2,0,", "\n\n,,,\n0.2,0,"),
        GOOD.replace("0.1", "1.0e-1").replace(",0,1.5", ",0.0,1.5"),
    ):
        assert [*read(text).trials] == TRIALS, text
    found = read(
        ",lr,weight_decay,value,name,val_error,test_loss,notes\n"
        "0,0.1,0,1.5,first,0.25,,\n1,0.1,0.01,1.25,2,0.125,nan,\n2,0.1,0.02,nan,3,0.9,7.0,\n"
    )
    expected = [{"value": 1.5, "val_error": 0.25}, {"value": 1.25, "val_error": 0.125}, {}]
    assert [trial.metrics for trial in found.trials] == expected


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


def test_each_kind_of_fault_is_named_once_with_value_and_remedy(faults: Faults) -> None:
    first = "lr 0.1, weight_decay 0.0, seed 0"
    for row, fault in (
        ("0,0.01,0,1", "lr '0' is not a learning rate; it must be positive and finite"),
        ("0.1,1e-400,0,1", "weight_decay '1e-400' is not a number"),
        ("1_0,0.01,0,1", "lr '1_0' is not a number"),
        (",0.01,0,1", "lr '' is empty; it needs a number"),
        (f"{'x' * 500},0,0,1", f"lr '{'x' * 78}… is not a number"),
        ("0.1,nan,0,1", "weight_decay 'nan' is not a weight decay; it must be finite and not negative"),
        ("0.1,0.01,1.5,1", "seed '1.5' is not a seed; it must be a whole number"),
        ("0.1,0.01,0,", "value is empty; write nan for a diverged run"),
        ("0.1,0.01,0,\x1b[31m", r"value '\x1b[31m' is not a number"),
        ('0.1,0.01,0,"0,4"', "value '0,4' is not a number; write it with a decimal point, in the whole file"),
        ("0.1,0.01,0,87.5%", "value '87.5%' is not a number; leave out the %"),
        (
            "0.1,0.01,0,None",
            "value 'None' is not a number; write nan for a diverged run, or missing in a column status",
        ),
        ("0.1,0.01,0", "there are 3 fields under a header of 4"),
        ("0.10000000000000001,0,0,7", f"repeats line 2 ({first}); keep one row of each run"),
    ):
        assert faults(f"{HEADER}\n0.1,0,0,1\n{row}\n") == [f"line 3: {fault}"], row
    assert faults(GOOD + "x,-1,0.5,y\n" + "0.1,0,0\n" * 20 + "0.1,0,0,z\n") == [
        "line 6: value 'y' is not a number (and 1 more line)",
        "line 6: lr 'x' is not a number",
        "line 6: weight_decay '-1' is not a weight decay; it must be finite and not negative",
        "line 6: seed '0.5' is not a seed; it must be a whole number",
        "line 7: there are 3 fields under a header of 4 (and 19 more lines)",
    ]
    (line,) = faults("lr,weight_decay,rng,value\n0.1,0.01,1,1\n0.1,0.01,2,1\n")
    assert line.endswith("seed 0); name the column of seeds with --columns seed=rng")


def test_table_that_is_not_a_lattice_is_refused_with_the_cause(read: Read, faults: Faults) -> None:
    (line,) = faults(GOOD + "0.1,0,1,1\n0.1,0.01,1,1\n0.2,0.01,1,1\n")
    assert line.startswith("there is no row for lr 0.2, weight_decay 0.0, seed 1; a lattice needs every")
    assert line.endswith("for a run that did not finish, write a row with missing in a column status")
    mended = GOOD.replace("\n", ",\n").replace("value,", "value,status", 1)
    found = read(mended.replace("1.25,", ",missing"))
    assert (len(found.trials), len(found.lattice)) == (3, 4)
    cells = [(lr, decay) for lr in (0.1, 0.2, 0.4) for decay in (0.01, 0.02, 0.04) for _ in range(3)]
    own_seeds = [(*cell, k) for k, cell in enumerate(cells)]
    half = {0.1: 0.0999755859375, 0.2: 0.199951171875}  # in float16
    near = [(half[a] if s else a, b, s) for s in (0, 1) for a in (0.1, 0.2) for b in (0.01, 0.02)]
    for runs, cause in (
        (own_seeds, "the cells do not share their seeds: number them 0, 1, … in each cell"),
        (near, "lr 0.0999755859375 and 0.1, 0.199951171875 and 0.2; write each rate in one way"),
    ):
        (line,) = faults(f"{HEADER}\n" + "".join(f"{lr},{decay},{seed},1\n" for lr, decay, seed in runs))
        assert line.endswith(cause), cause


def test_faults_of_the_file_and_its_columns(file: Path, read: Read, faults: Faults) -> None:
    twice = "lr,weight_decay,value,val_loss\n0.1,0,1.5,1.5\n0.2,0,1.5,2.5\n"
    for text, columns, metric, fault in (
        ("\n,,,\n", {}, "", "the file is empty; write lr,weight_decay,seed,value and a row per run"),
        ("lr,weight_decay,value\n", {}, "", "there are no rows below the header; write lr,weight_decay,seed"),
        (
            STATES.replace("COMPLETE", "RUNNING"),
            {},
            "",
            "no run has a result by column 'state' (4 'RUNNING')",
        ),
        ('lr,weight_decay,value\n0.1,0,"1\n', {}, "", "line 2: unexpected end of data; check the quotes"),
        ("lr,lr,weight_decay,value\n1,1,1,1\n", {}, "", "two columns are named 'lr'"),
        (
            *("lr,wd,val\n1,1,1\n", {"weight_decay": "wd", "seed": "run"}, ""),
            "there is no column 'value' or 'run', only 'lr', 'wd', 'val'; "
            "name them with --columns value=COLUMN,seed=COLUMN",
        ),
        (
            *("LR,Weight Decay,seed,value\n1,1,1,1\n", {}, ""),
            "there is no column 'lr' or 'weight_decay', only 'LR', 'Weight Decay', 'seed', 'value'; name "
            "them with --columns 'lr=LR,weight_decay=Weight Decay'",
        ),
        (STATES, {"value": "lr"}, "", "column 'lr' is used for two things; see --columns"),
        (
            STATES,
            {"status": "bad"},
            "",
            "there is no column 'bad', only 'lr', 'weight_decay', 'seed', 'value'",
        ),
        (
            *(twice, {}, "val_loss"),
            "line 3: value is 1.5 but column 'val_loss' holds '2.5'; use another --metric",
        ),
    ):
        (line,) = faults(text, columns, metric or "value")
        assert line.startswith(fault), text
    for path, fault in ((file.with_name("no"), "No such file"), (file.parent, "is a directory")):
        with pytest.raises(UsageError, match=fault):
            read_sweep(path)
    with pytest.raises(UnknownName, match=r"unknown column 'weight-decay'; did you mean weight_decay\?"):
        read(GOOD, {"weight-decay": "wd"})
    with pytest.raises(UsageError, match="value= names no column"):
        read(GOOD, {"value": ""})
    file.write_bytes(GOOD.encode("utf-16"))
    with pytest.raises(UsageError, match="byte 0 is not UTF-8; save the file as UTF-8 CSV"):
        read_sweep(file)


def test_value_and_status_give_the_outcome(read: Read) -> None:
    for value, status, expected in (
        *(("1.5", "", Status.COMPLETE), ("inf", "", Status.DIVERGED)),
        *(("nan", "finished", Status.DIVERGED), ("1.5", "diverged", Status.DIVERGED)),
        *(("", "failed", Status.FAILED), ("1.5", "failed: CUDA out of memory", Status.FAILED)),
    ):
        metrics = {"value": 1.5} if expected is Status.COMPLETE else {}
        found = read(f"lr,weight_decay,value,status,detail\n0.1,0,{value},{status},why\n")
        assert [*found.trials] == [Trial(Cell(0.1, 0), 0, expected, metrics, detail="why")], status
    for header, complete, pruned in (  # unfinished runs are missing lanes
        *(("state", "TrialState.COMPLETE", "TrialState.PRUNED"), ("done", "1", "0")),
        *(("State", "COMPLETED", "CANCELLED by 1000"), ("is_pruned", "False", "True")),
        ("run.status", "FINISHED", "KILLED"),
    ):
        text = STATES.replace("0.5,COMPLETE", f"0.001,{pruned}", 1)
        found = read(text.replace("COMPLETE", complete, 3).replace("state", header))
        assert (found.lattice, values(found)) == (LATTICE, [0.4, 0.3, 0.2]), (header, complete)
        assert found.notes == (f"column {header!r}: 1 {pruned} {UNUSED}",)


def test_unknown_states_are_refused_and_other_columns_no_states(read: Read, faults: Faults) -> None:
    for header, texts in (
        *(("random_state", ("0", "1")), ("completed", ("2340", "10")), ("nesterov", ("True", "False"))),
        *(("finished", ("2024-01-01 10:00", "2024-01-02 10:00")), ("phase", ("grid", "grid"))),
        ("notes", ("failed at first", "good")),
    ):
        text = STATES.replace("state", header).replace("COMPLETE", texts[0], 1)
        found = read(text.replace("COMPLETE", texts[1]))
        assert (values(found), found.notes) == ([0.5, 0.4, 0.3, 0.2], ()), header
    done = read(STATES.replace("state", "done").replace("COMPLETE", "1"))
    assert next(iter(done.trials)).metrics == {"value": 0.5}  # states are not metrics
    text = STATES.replace("COMPLETE", "gut", 1).replace("COMPLETE", "so lala", 2)
    assert faults(text) == [
        "column 'state' seems to hold run states, but these words are unknown: 'gut', 'so lala'; write "
        "complete, failed or missing instead, ignore the column with --columns status=, "
        "or name another with --columns status=COLUMN"
    ]
    assert len(read(text, {"status": ""}).trials) == 4


def test_runs_without_a_result_may_lack_rates_repeat_or_lie_outside(read: Read) -> None:
    for rows, note in (
        (",,,,WAITING\n0.1,0.01,0,9,crashed\n", "1 WAITING, 1 crashed left out"),
        ("0.4,0.01,0,9,RUNNING\n0.1,0.01,7,9,RUNNING\n5,5,0,9,FAIL\n", "2 RUNNING, 1 FAIL left out"),
        ("0.4,0.01,0,9,PRUNED\n0.4,0.02,0,9,PRUNED\n", ""),  # they complete a larger lattice
    ):
        found = read(STATES + rows)
        assert values(found) == [0.5, 0.4, 0.3, 0.2], note
        assert found.lattice == (LATTICE if note else Lattice((0.1, 0.2, 0.4), (0.01, 0.02)))
        assert found.seeds == (0,)
        assert found.notes[0].startswith(f"column 'state': {note}")


def test_rates_that_differ_by_rounding_are_merged(read: Read) -> None:
    exact, rounded = (0.00031622776601683794, 0.1), (0.0003162277571391314, 0.10000000149)
    rows = [
        f"{lr},{decay},{seed},{seed + lr}\n"
        for seed, (third, tenth) in enumerate((exact, rounded))
        for lr in (third, 0.001)
        for decay in (0.0, tenth)
    ]
    found = read(f"{HEADER}\n" + "".join(rows))
    assert found.lattice == Lattice((0.00031622776601683794, 0.001), (0.0, 0.1))
    assert (found.seeds, len(found.trials)) == ((0, 1), 8)
    assert found.notes == (
        "lr equal but for rounding: 0.000316227757139 is read as 0.000316227766017",
        "weight_decay equal but for rounding: 0.10000000149 is read as 0.1",
    )


def test_columns_tell_rule_direction_and_cap_of_the_whole_sweep(read: Read, faults: Faults) -> None:
    found = read("lr,weight_decay,value,decay_rule,direction,cap\n0.1,0,1.5,LR_Scaled,MAX,2.5\n")
    context = found.context
    assert (context.decay_rule, context.direction, context.cap) == ("lr-scaled", "maximize", 2.5)
    assert next(iter(found.trials)).metrics == {"value": 1.5}
    for rules, fault in (
        (("lr-scaled", "coupled"), "column 'decay_rule' holds 'lr-scaled', 'coupled'; write one rule"),
        (("l2", ""), "column 'decay_rule' holds 'l2'; write one rule (coupled, independent, lr-scaled"),
    ):
        text = "lr,weight_decay,value,decay_rule\n0.1,0,1.5,{}\n0.2,0,1,{}\n".format(*rules)
        (line,) = faults(text)
        assert line.startswith(fault)
        assert "--columns decay_rule=" in line
        assert read(text, {"decay_rule": ""}).context.decay_rule is None
    for header, metric, key, higher in (  # names that suggest that higher is better
        ("value,note", "val_acc", "first", "metric 'val_acc'"),
        ("value,key", "value", "best.f1_macro", "'best.f1_macro' in column 'key'"),
        ("val_loss,key", "val_loss", "best.f1_macro", ""),
    ):
        columns = {"value": header.split(",")[0]}
        found = read(f"lr,weight_decay,{header}\n0.1,0,0.5,{key}\n", columns, metric)
        assert found.context.higher == higher


SCALED, PAPER = DecayRule.LR_SCALED, DecayRule.INDEPENDENT


@pytest.fixture
def swept(read: Read) -> Callable[..., ImportedSweep]:
    """Return a function that makes a sweep with a context."""
    return lambda **context: replace(read(GOOD), context=SweepContext(**context))


def refusal(sweep: ImportedSweep, optimizer: str, **options: object) -> str:
    with pytest.raises(UsageError) as error:
        to_study(sweep, optimizer, **options)  # type: ignore[arg-type]
    return error.value.spelled(option_text)


def test_file_decides_what_no_option_says(swept: Callable[..., ImportedSweep]) -> None:
    plain = swept()
    spec, trials, _ = to_study(plain, "adamw:lr-scaled")
    assert [*trials] == TRIALS
    assert (spec.kind, spec.lattice, spec.seeds) == (Kind.IMPORT, plain.lattice, (0,))
    assert (spec.metric, spec.task, str(spec.optimizer)) == ("value", None, "adamw:lr-scaled")
    assert (spec.direction, spec.given_cap) == (Direction.MINIMIZE, None)
    assert to_study(swept(cap=2.0), "adam").spec.given_cap == 2.0
    assert to_study(swept(cap=2.0), "adam", cap=3.0).spec.given_cap == 3.0
    assert refusal(swept(higher="metric 'f1'"), "adam") == (
        "is a higher or a lower value better (metric 'f1' suggests higher)? "
        "add --maximize, or --minimize if lower is better"
    )
    for direction in Direction:
        assert to_study(swept(higher="f1"), "adam", direction=direction).spec.direction is direction
        assert to_study(swept(higher="x", direction=direction), "adam").spec.direction is direction
    assert refusal(swept(higher="f1"), "adamw").count("\n") == 1  # both questions at once


def test_name_of_a_decoupled_optimizer_leaves_the_decay_rule_open(
    swept: Callable[..., ImportedSweep],
) -> None:
    plain = swept()
    for name in ("adam", "adamp", "adamw:fixed"):
        assert to_study(plain, name).spec.optimizer == Optimizer.parse(name)
    for name, scaled, paper in (
        ("AdamW", "adamw:lr-scaled", "adamw:independent"),
        ("adamwr", "adamw:lr-scaled:normalized", "adamw:independent:normalized"),
    ):
        text = refusal(plain, name)
        assert text.startswith(f"{name}: did you train ")
        rules = "--decay-rule lr-scaled or --decay-rule independent"
        assert text.endswith(f"({scaled}) or the paper's rule ({paper})? add {rules}")
        for rule, full in ((SCALED, scaled), (PAPER, paper)):
            expected = Optimizer.parse(full)
            assert to_study(plain, name, decay_rule=rule).spec.optimizer == expected
            assert to_study(swept(decay_rule=rule), name).spec.optimizer == expected
            assert to_study(plain, full).spec.optimizer == expected
    assert "add --decay-rule: one of coupled, independent, lr-scaled" in refusal(plain, "Lion v2")
    for sweep, told in ((plain, "lr-scaled"), (swept(decay_rule=SCALED), None)):
        optimizer = to_study(sweep, "Lion v2", decay_rule=told).spec.optimizer
        assert (str(optimizer), optimizer.rule, optimizer.family) == ("Lion v2", SCALED, None)
    assert "did you mean adam, adamw or adamp?" in refusal(plain, "adamv")


def test_contradictions_are_refused_with_a_remedy(swept: Callable[..., ImportedSweep]) -> None:
    plain, both = swept(), swept(decay_rule=SCALED, direction=Direction.MAXIMIZE)
    for sweep, optimizer, options, text in (
        (
            *(plain, "adam", {"decay_rule": "lr-scaled"}),
            "--decay-rule lr-scaled contradicts --optimizer adam, which is coupled; "
            "write --optimizer adamw:lr-scaled",
        ),
        (plain, "adampw", {"decay_rule": "coupled"}, "which is decoupled; adamp has no L2"),
        (plain, "lion", {"decay_rule": "lr-scald"}, "unknown decay rule 'lr-scald'; did you mean lr-scaled"),
        (both, "adamw", {"decay_rule": "independent"}, "--columns decay_rule="),
        (both, "adam", {}, "column decay_rule lr-scaled contradicts --optimizer adam,"),
        (both, "adamw", {"direction": Direction.MINIMIZE}, "--columns direction="),
    ):
        assert text in refusal(sweep, optimizer, **options)
