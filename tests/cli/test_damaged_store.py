"""Commands on a store that is damaged, foreign, of an earlier version, or used by two of them at once."""

import json
import re
from itertools import product
from pathlib import Path

from tests.cli.conftest import ADAM, ADAMW, STORE, TINY, Run, assert_refused
from tests.store.sample import execute, rewrite_spec
from tests.store.test_migrations import DUMPS, restored

GRID = ("grid", "--optimizer", "adamw", *TINY)
LANES_LOST = "UPDATE trials SET metrics = '{\"val_loss\": 0.5}' WHERE id IN (11, 12)"
LOSSES = {(0.01, 0.0): 0.2, (0.01, 0.001): 0.1, (0.1, 0.0): 2.2, (0.1, 0.001): 2.4}  # ln 10 = 2.303


def test_damaged_lanes_are_refused_until_they_are_trained_again(run: Run, compared: Path) -> None:
    before = run("study", "export", ADAMW).out
    execute(compared, LANES_LOST)
    show, export = ("study", "show", ADAMW), ("study", "export", ADAMW)
    for command in (("report",), ("report", ADAMW), show, export, GRID):
        found = run(*command)
        lines = 1 + (command is GRID)  # which says first what it trains
        assert (found.code, found.out, found.err.count("\n")) == (3, "", lines)
        assert re.search(r"lane lr \S+, weight_decay \S+, seed 0, and 1 more, are not what", found.err)
        assert "--retrain-damaged" in found.err
        assert f"lrwd-sweep study delete '{ADAMW}'" in found.err
    assert run("report", ADAM).code == 0
    found = run("compare", "adam", "adamw", *TINY, "--retrain-damaged")
    assert found.code == 0
    assert f"{ADAMW}: dropped 2 damaged lanes\n" in found.err
    assert "7 of 9 lanes are in the store; training the 2 that are missing" in found.err
    assert run("study", "export", ADAMW).out == before
    assert "damaged" not in run(*GRID, "--retrain-damaged").err


def test_list_names_damaged_and_unreadable_studies_and_hides_no_other(run: Run, compared: Path) -> None:
    whole = compared.read_bytes()
    rewrite_spec(compared, ADAMW, lambda found: found["training"].update(data="folder:/no/where"))
    unreadable, reason = compared.read_bytes(), "the sizes of folder:/no/where are not stored"
    assert_refused(run("report"), 3, f"study '{ADAMW}' has a specification", "name another study")
    for content, damage, code, word, text in (
        (whole, LANES_LOST, 3, "damaged", "not what was stored"),
        (unreadable, "SELECT 1", 0, "unreadable", reason),
    ):
        compared.write_bytes(content)
        execute(compared, damage)
        found, table = run("study", "list", "--format", "json"), run("study", "list")
        first, second = json.loads(found.out)["studies"]
        assert (found.code, first["counts"]["complete"], "unreadable" in first) == (code, 9, False)
        assert (second["study_name"], second["counts"]["cells"]) == (ADAMW, 0)
        assert text in second["unreadable"]
        assert (ADAM in table.out, word in table.out, second["unreadable"] in table.err) == (True,) * 3
        assert run("report", ADAM).code == 0
        assert run("study", "delete", ADAMW, "--yes").err == f"deleted {ADAMW} with 9 lanes\n"


def test_report_of_older_studies_says_once_why_numbers_differ(run: Run, compared: Path) -> None:
    assert "earlier" not in run("report", ADAM).err
    path = restored(next(dump for dump in DUMPS if dump.name == "schema_v2.sql"), compared.with_name(STORE))
    insert = "INSERT INTO trials (study_id, lr, weight_decay, seed, status, metrics, detail) VALUES "
    rows = [
        f"""({study}, {lr}, {wd}, {seed}, 'complete', '{{"val_loss": {loss + seed / 100}}}', '')"""
        for study, ((lr, wd), loss), seed in product((1, 2), LOSSES.items(), (0, 1))
    ]
    execute(path, "DELETE FROM trials", insert + ", ".join(rows))
    found = run("report", "digits-adam", "digits-adamw")
    assert (found.code, found.err.count("begun by an earlier lrwd-sweep")) == (0, 1)
    said = " ".join(found.err.replace("lrwd-sweep: ", "").split())
    assert "digits-adam, digits-adamw: begun by" in said
    assert "2 cells with a loss above chance count" in said
    execute(path, """UPDATE trials SET metrics = '{"val_error": 0.2}'""")
    found = run("report", "digits-adam", "--metric", "val_error")
    assert "begun by an earlier lrwd-sweep" in found.err
    assert "above chance" not in found.err
