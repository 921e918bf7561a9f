"""`--shard K/N`: parts of a command, each into a store of its own, and the whole that they make."""

from pathlib import Path
from typing import Any

import pytest

import lrwd_sweep
from lrwd_sweep.errors import UsageError
from lrwd_sweep.store import open_store
from tests.cli.conftest import ADAM, ADAMW, STORE, TINY, Run, assert_refused, trials

COMPARE = ("compare", "adam", "adamw", *TINY)
REPORTS = [("--format", name) for name in ("json", "csv", "table", "junit")]


def test_merged_shards_report_what_one_command_reports(run: Run, compared: Path) -> None:
    whole = [run("report", *form).out for form in REPORTS]
    lanes = {name: trials(name=name) for name in (ADAM, ADAMW)}
    compared.rename("whole.db")
    counts = []
    for part in (1, 2):
        shard = ("--shard", f"{part}/2")
        found = run(*COMPARE, *shard)
        assert found.code == 0, found.err
        (line,) = found.out.splitlines()
        counts.append(int(line.split()[4]))
        assert line == (
            f"shard {part} of 2: {counts[-1]} of 18 runs in lrwd-sweep-{part}of2.db; join with lrwd-sweep "
            "study merge lrwd-sweep.db lrwd-sweep-*of2.db"
        )
        again = run(*COMPARE, *shard)
        assert again.out == found.out
        assert again.err.count(f"lanes of shard {part} of 2 are in the store; nothing to train") == 2
    assert (sum(counts), min(counts) > 0) == (18, True)
    assert run("study", "merge", STORE, *(f"lrwd-sweep-{part}of2.db" for part in (2, 1))).code == 0
    for name, mine in lanes.items():
        assert trials(name=name) == mine
    for form, expected in zip(REPORTS, whole, strict=True):
        assert timeless(run("report", *form).out) == timeless(expected), form


def timeless(report: str) -> list[str]:
    """Return the lines without those on when and how long it trained."""
    return [line for line in report.splitlines() if not any(word in line for word in ("created", "time="))]


def test_a_shard_of_a_command_or_function_is_its_runs(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("train.sh").write_text('echo "val_loss: $1" >&1\necho run >> "$2"\n')
    words = ("grid", "--run", "sh train.sh {lr} log-{seed}{weight_decay}", "--read", "auto", "-o", "adam")
    axes = ("--lr", "1e-3,1e-2", "--wd", "0.1,0.2")
    told = run(*words, *axes, "--shard", "1/2", "--dry-run").out
    assert "adam: 2×2 lattice × 3 seeds, shard 1 of 2: 6 of 12 runs of train\n" in told
    assert "0 of 6 runs are stored, 6 are new" in told
    assert "lrwd-sweep-1of2.db, which would be created" in told
    both = (*axes, "--storage", "a b.db")
    parts = [run(*words, *both, "--shard", f"{part}/2") for part in (1, 2)]
    assert [found.code for found in parts] == [0, 0], parts
    assert "study merge ALL.db 'a b.db' …" in parts[0].out
    assert "12 runs" in parts[1].out, "both parts are in the same file"
    logs = [len(path.read_text().split()) for path in Path().glob("log-*")]
    assert (len(logs), sum(logs)) == (6, 12), "each run once"
    given: dict[str, Any] = {"lr": [0.1, 0.2, 0.3], "weight_decay": [0.1, 0.2], "progress": False}
    for shard, file in (("1/2", "lrwd-sweep-1of2.db"), ((2, 2), "mine-2of2.db")):
        study = lrwd_sweep.sweep("adam", objective=lambda lr, weight_decay, seed: lr, shard=shard, **given)
        assert study.store == Path(file).resolve()
        monkeypatch.setenv("LRWD_STORAGE", "mine.db")


def test_bad_and_empty_shards(run: Run) -> None:
    for bad in ("0/3", "4/3", "a/b", "1/0"):
        assert_refused(run("grid", "--shard", bad), 2, f"--shard {bad} is not the K-th of N parts")
    assert_refused(run("tpe", "--shard", "1/3"), 2, "--shard 1/3 divides a lattice, not a search", "TPE")
    with pytest.raises(UsageError, match="shard='1/3' divides a lattice"):
        lrwd_sweep.tpe("adamw", shard="1/3")
    assert not list(Path().glob("*.db"))
    one = ("--lr", "2^-8", "--wd", "2^-8", "--epochs", "1", "--seeds", "1")
    found = run("compare", "adam", "adamw", *one, "--shard", "1/9")
    assert (found.code, found.out.split(";")[0]) == (0, "shard 1 of 9: 0 of 2 runs in lrwd-sweep-1of9.db")
    with open_store("lrwd-sweep-1of9.db", write=False) as store:
        assert len(store.latest()) == 2, "a store to merge"
