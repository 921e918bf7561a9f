"""`grid` trains what is missing, `--shard` a part of it, `transfer` a lattice for every value of a scale."""

import csv
import gc
import io
import os
import re
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

import lrwd_sweep
from lrwd_sweep.spec.over import Over
from lrwd_sweep.spec.request import Request
from lrwd_sweep.store import open_store
from tests.cli.conftest import ADAM, ADAMW, STORE, TINY, Patch, Run, assert_holds, process, strict, trials
from tests.report.view.schema import faults

GRID = ("grid", *TINY)


def test_only_missing_lanes_are_trained(run: Run, monkeypatch: Patch, request: pytest.FixtureRequest) -> None:
    request.addfinalizer(gc.unfreeze)
    request.addfinalizer(gc.enable)
    with monkeypatch.context() as patch:
        patch.setattr("lrwd_sweep.engine.pack.PackTrainer.run", Mock(side_effect=MemoryError))
        failed = run(*GRID, code=3)
    assert_holds(failed.err, "9 lanes failed", "the same command tries them again")
    gc.disable()  # as the command line loads its libraries; a sweep may take hours
    first, stored = run(*GRID, code=0), trials()
    assert {trial.status.value for trial in stored.values()} == {"complete"}
    assert (gc.isenabled(), gc.get_freeze_count() > 0) == (True, True)
    assert ("best cell" in first.out, "trained 9 runs" in first.err, "training" in first.out) == (1, 1, 0)
    second = run(*GRID)
    assert second.err.endswith(f"\n{ADAMW}: 9 of 9 lanes are in the store; nothing to train\n")
    assert (second.code, second.out, trials()) == (0, first.out, stored)


def test_one_value_on_an_axis_sweeps_the_other_and_quiet_writes_only_errors(run: Run) -> None:
    text = " ".join(run(*GRID, "--lr", "2^-8:2^-5", "--wd", "0", "--full", code=0).out.split())
    why = "not applicable to 4 learning rates × 0 weight decays above 0: at least two of each"
    assert_holds(text, why, "verdict undetermined", "best cell", "torch.optim.Adam", "sweep wd too")
    run("tpe", *TINY, "--lr", "0.01", "--trials", "2", code=0)
    for command in ("grid", "grid", "tpe --trials 2", "compare adam adamw"):
        found = run(*command.split(), *TINY, "-q")
        assert (found.code, found.err, bool(found.out)) == (0, "", True), command
    refused = run("grid --epochs 0 --quiet")
    assert refused.err == "lrwd-sweep: --epochs 0 is too small; choose at least 1\n"


def test_refined_lattice_trains_in_rounds_and_is_completed_by_the_same_command_without_it(run: Run) -> None:
    grid = (*GRID, "--lr=2^-11:2^-5", "--wd=2^-9:2^-3", "--seeds=2")
    first = run(*grid, "--refine", "--max-runs", "34", code=0)
    assert "refined, at most 34 runs" in first.err
    text = " ".join(first.out.replace("\\", "").split())
    more = re.search(r"--refine --max-runs (\d+).* \+(\d+) runs: --max-runs 34 holds no further round", text)
    assert more is not None
    assert int(more[1]) == 32 + int(more[2])
    found = run(*grid, "--refine")
    assert f"{ADAMW}: 32 runs of a refined lattice in the store; training the next " in found.err
    assert "· never trained" in found.out
    document = strict(run("report --format json").out)
    assert faults(document, "report") == []
    (study,) = document["studies"]
    refined, lanes = study["refined"], len(trials())
    assert 32 < lanes == refined["runs"] < 98 == refined["of"]
    assert {(cell["lr"], cell["weight_decay"]) for cell in refined["never_trained"]} == {
        (cell["lr"], cell["weight_decay"])
        for cell in study["cells"]
        if all(seed["status"] == "missing" for seed in cell["seeds"])
    }
    again = run(*grid, "--refine")
    assert ("nothing to train" in again.err, again.out) == (True, found.out)
    assert f"refined, {lanes} runs" in " ".join(run("study list").out.split())
    whole = run(*grid)
    assert f"{lanes} of 98 lanes are in the store" in whole.err
    assert (len(trials()), "never trained" in whole.out) == (98, False)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_lanes_that_are_done() -> None:
    def peak(seeds: int) -> int:
        axes = ("--lr", "1e-4:1e-1:50", "--wd", "1e-4:1e-1:40", "--seeds", str(seeds), "--epochs", "1")
        with process("grid", *axes, "-q", "--storage", f"{seeds}.db", "--study-name", "s") as started:
            assert started.stdout is not None
            assert started.stdout.read()
            _, status, usage = os.wait4(started.pid, 0)
            started.returncode = os.waitstatus_to_exitcode(status)
        assert started.returncode == 0
        assert len(trials(f"{seeds}.db", "s")) == 2_000 * seeds
        return usage.ru_maxrss

    assert peak(5) < 1.05 * peak(1)


def test_merged_shards_report_what_one_command_reports(run: Run, compared: Path) -> None:
    whole = strict(run("report --format json").out)["studies"]
    lanes = {name: trials(name=name) for name in (ADAM, ADAMW)}
    compared.rename("whole.db")
    counts = []
    for part in (1, 2):
        command = ("compare", "adam", "adamw", *TINY, "--shard", f"{part}/2")
        found = run(*command, code=0)
        (line,) = found.out.splitlines()
        counts.append(int(line.split()[4]))
        assert line == (
            f"shard {part} of 2: {counts[-1]} of 18 runs in lrwd-sweep-{part}of2.db; join with lrwd-sweep "
            "study merge lrwd-sweep.db lrwd-sweep-*of2.db"
        )
        again = run(*command)
        assert again.out == found.out
        assert again.err.count(f"lanes of shard {part} of 2 are in the store; nothing to train") == 2
    assert (sum(counts), min(counts) > 0) == (18, True)
    run(f"study merge {STORE} lrwd-sweep-2of2.db lrwd-sweep-1of2.db", code=0)
    assert {name: trials(name=name) for name in lanes} == lanes
    joined = strict(run("report --format json").out)["studies"]
    assert [study | {"created": ""} for study in joined] == [study | {"created": ""} for study in whole]


def test_a_shard_of_a_command_or_function_is_its_runs(run: Run, monkeypatch: Patch) -> None:
    Path("train.sh").write_text('echo "val_loss: $1" >&1\necho run >> "$2"\n')
    words = ("grid", "--run", "sh train.sh {lr} log-{seed}{weight_decay}", "--read", "auto", "-o", "adam")
    axes = ("--lr", "1e-3,1e-2", "--wd", "0.1,0.2")
    told = run(*words, *axes, "--shard", "1/2", "--dry-run").out
    begins = "adam: 2×2 lattice × 3 seeds, shard 1 of 2: 6 of 12 runs of train\n"
    where = "lrwd-sweep-1of2.db, which would be created"
    assert_holds(told, begins, where, "0 of 6 runs are stored, 6 are new")
    both = (*axes, "--storage", "a b.db")
    parts = [run(*words, *both, "--shard", f"{part}/2", code=0) for part in (1, 2)]
    assert "study merge ALL.db 'a b.db' …" in parts[0].out
    assert "12 runs" in parts[1].out, "both parts are in the same file"
    logs = [len(path.read_text().split()) for path in Path().glob("log-*")]
    assert (len(logs), sum(logs)) == (6, 12), "each run once"
    given: dict[str, Any] = {"lr": [0.1, 0.2, 0.3], "weight_decay": [0.1, 0.2], "progress": False}
    for shard, file in (("1/2", "lrwd-sweep-1of2.db"), ((2, 2), "mine-2of2.db")):
        study = lrwd_sweep.sweep("adam", objective=lambda lr, weight_decay, seed: lr, shard=shard, **given)
        assert study.store == Path(file).resolve()
        monkeypatch.setenv("LRWD_STORAGE", "mine.db")
    one = "compare adam adamw --lr 2^-8 --wd 2^-8 --epochs 1 --seeds 1"
    empty = run(f"{one} --shard 1/9 --storage lrwd-sweep.db", code=0)
    assert empty.out.startswith("shard 1 of 9: 0 of 2 runs in lrwd-sweep.db")
    with open_store(STORE, write=False) as store:
        assert len(store.latest()) == 2, "a store to merge"


def test_transfer_reports_exponents_rules_and_cost_and_trains_once(run: Run) -> None:
    transfer = "transfer --over epochs=2,3,4 --lr 2^-8:2^-5 --wd 2^-9:2^-6 --seeds 3"
    first = run(transfer, code=0)
    assert_holds(first.out, "epochs 2", "best α", "τ in epochs", "val_loss", "λ ∝ 1/√N", "keep α and λ")
    assert first.out.splitlines()[-1].startswith("the best cell of epochs 2 at epochs 4 costs ")
    with open_store(STORE, write=False) as store:
        names = store.latest()
        assert [store.count_lanes(name) for name in names] == [48, 48, 48]
    again = run(f"{transfer} --format json")
    assert "nothing to train" in again.err
    found = strict(again.out)
    scales = [(scale["value"], scale["study_name"]) for scale in found["scales"]]
    assert scales == list(zip((2, 3, 4), names, strict=True))
    rows = list(csv.DictReader(io.StringIO(run(f"{transfer} --format csv").out)))
    assert [row["epochs"] for row in rows] == ["2.0", "3.0", "4.0"]
    assert float(rows[0]["val_loss"]) == found["scales"][0]["best"]
    assert run(f"{transfer} --format html --output a.html --figure a.pdf", code=0).out == ""
    assert Path("a.pdf").read_bytes().startswith(b"%PDF-")
    assert "How the best values move" in Path("a.html").read_text()
    cost = found["carry_regret"]["value"]
    run(f"{transfer} --max-carry-regret {cost + 1}", code=0)
    assert cost <= 0 or run(f"{transfer} --max-carry-regret {cost / 2}").code == 1
    for scale, name, low, high in (
        ("width=8,16", "net_options", '{"width": 8}', '{"width": 16}'),
        ("batch-size=32,64", "batch_size", 32, 64),
        ("train-fraction=0.5,1", "train_fraction", 0.5, None),
    ):
        specs = Over.parse(scale).specs(Request.of(epochs=2), None, lambda spec: spec)
        assert [getattr(spec.task, name) for spec in specs.values()] == [low, high], scale
