"""What the commands make of a store that is damaged, a stranger's, or in use by the same command."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.cli.conftest import ADAM, ADAMW, TINY, Run, ended, process
from tests.store.damage import execute, rewrite_spec

GRID = ("grid", "--optimizer", "adamw", *TINY)
LANES_LOST = "UPDATE trials SET metrics = '{\"val_loss\": 0.5}' WHERE id IN (11, 12)"


def test_damaged_lane_is_refused_by_every_command_that_reads_it(run: Run, compared: Path) -> None:
    execute(compared, LANES_LOST)
    for command in (
        ("report",),
        ("report", ADAMW),
        ("study", "show", ADAMW),
        ("study", "export", ADAMW),
        GRID,
    ):
        found = run(*command)
        assert (found.code, found.out) == (3, "")
        assert re.search(r"lane lr \S+, weight_decay \S+, seed 0, and 1 more, are not what", found.err)
        assert "--retrain-damaged" in found.err
        assert f"lrwd-sweep study delete '{ADAMW}'" in found.err
        assert found.err.count("\n") == 1
    assert run("report", ADAM).code == 0


@pytest.mark.parametrize("command", [GRID, ("compare", "adam", "adamw", *TINY)])
def test_damaged_lanes_alone_are_trained_again(run: Run, compared: Path, command: tuple[str, ...]) -> None:
    before = run("study", "export", ADAMW).out
    execute(compared, LANES_LOST)
    found = run(*command, "--retrain-damaged")
    assert found.code == 0
    assert f"{ADAMW}: dropped 2 damaged lanes\n" in found.err
    assert "7 of 9 lanes are in the store; training the 2 that are missing" in found.err
    assert run("study", "export", ADAMW).out == before
    assert "damaged" not in run(*command, "--retrain-damaged").err


def test_list_shows_a_damaged_study_beside_the_others(run: Run, compared: Path) -> None:
    execute(compared, LANES_LOST)
    found = run("study", "list", "--format", "json")
    first, second = json.loads(found.out)["studies"]
    assert found.code == 3
    assert first["counts"]["complete"] == 9
    assert "unreadable" not in first
    assert (second["study_name"], second["counts"]["cells"]) == (ADAMW, 0)
    assert second["unreadable"] in found.err
    assert ADAM in run("study", "list").out
    assert run("study", "delete", ADAMW, "--yes").err == f"deleted {ADAMW} with 9 lanes\n"
    assert run("study", "list").code == 0


def test_a_study_that_makes_no_sense_is_listed_and_hides_no_other(run: Run, compared: Path) -> None:
    rewrite_spec(compared, ADAMW, lambda found: found["training"].update(data="folder:/no/where"))
    found = run("study", "list", "--format", "json")
    first, second = json.loads(found.out)["studies"]
    assert (found.code, found.err) == (0, "")
    assert first["counts"]["complete"] == 9
    assert "the sizes of folder:/no/where are not stored" in second["unreadable"]
    table = run("study", "list")
    assert ADAM in table.out
    assert "unreadable" in table.out
    assert second["unreadable"] in table.err
    assert run("report", ADAM).code == 0
    latest = run("report")
    assert (latest.code, latest.out, latest.err.count("\n")) == (3, "", 1)
    assert f"study '{ADAMW}' has a specification that this version cannot read" in latest.err
    assert "name another study" in latest.err
    assert run("study", "delete", ADAMW, "--yes").code == 0


@pytest.mark.parametrize(
    "url", ["postgresql://jane:hunter2@host/db", "jane:hunter2@host", "sqlite:///a?pwd=hunter2"]
)
@pytest.mark.parametrize(
    "command", [GRID, ("report", "--format", "json"), ("report", "--format", "html"), ("study", "list")]
)
def test_no_command_shows_the_password_of_a_storage(
    run: Run, command: tuple[str, ...], url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_option = run(*command, "--storage", url)
    monkeypatch.setenv("LRWD_STORAGE", url)
    for found in (by_option, run(*command)):
        assert (found.code, found.err.count("\n")) == (3, 1)
        assert not re.search("jane|hunter2", found.out + found.err)


def test_the_same_command_twice_at_once_ends_twice_with_a_whole_study(run: Run) -> None:
    command = (*GRID, "--max-lanes", "2")
    run(*command, "--storage", "alone.db")
    alone = run("study", "export", ADAMW, "--storage", "alone.db").out
    both = [process(*command) for _ in range(2)]
    assert [found.code for found in map(ended, both)] == [0, 0]
    assert run("study", "export", ADAMW).out == alone
    (study,) = json.loads(run("study", "list", "--format", "json").out)["studies"]
    assert study["counts"]["complete"] == 9
