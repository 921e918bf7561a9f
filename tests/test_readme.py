"""The README's shell lines run, its test command is what CI runs, and it names all there is."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import typer

from lrwd_sweep.cli import app
from lrwd_sweep.lab import verify
from lrwd_sweep.lab.bench import race
from lrwd_sweep.lab.bench.race import Race
from lrwd_sweep.runner.sampler import propose_cells
from lrwd_sweep.runner.study_loop import StudyLoop
from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.science.optimizer import optimizer_names
from lrwd_sweep.science.trial import Status, Trial, unfinished
from lrwd_sweep.spec.preset import preset_names
from tests.lab.bench import made_up

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
SHELL = re.findall(r"```sh\n(.*?)```", README, flags=re.DOTALL)


def _commands() -> list[list[str]]:
    lines = [line for block in SHELL for line in block.splitlines() if line.startswith("lrwd-sweep")]
    words = [shlex.split(line, comments=True) for line in lines]
    return [line[: line.index(">")] if ">" in line else line for line in words]


def _pretend(sweep: StudyLoop, cells: Sequence[Cell]) -> None:
    todo = unfinished(cells, sweep.spec.seeds, sweep.store.finished(sweep.name))
    value = {sweep.spec.metric: 0.5, "test_loss": 0.5}
    assert sweep.spec.task is not None
    restarts = sweep.spec.task.timetable.snapshots
    lanes = []
    for seed, missing in todo.items():
        for cell in missing:
            found = {name: v + cell.lr + cell.weight_decay for name, v in value.items()}
            snapshots = dict.fromkeys(restarts, found)
            lanes.append(Trial(cell, seed, Status.COMPLETE, found, snapshots=snapshots))
    sweep.store.add_trials(sweep.name, lanes)


def _pretend_grid(sweep: StudyLoop) -> None:
    _pretend(sweep, list(sweep.spec.lattice.cells()))


def _pretend_tpe(sweep: StudyLoop, points: int) -> None:
    spec = sweep.spec
    _pretend(sweep, propose_cells(spec.lattice, [], points, seeds=spec.seeds, metric=spec.metric))


def _pretend_race(*_: object, **__: object) -> Race:
    return made_up.race()


def test_every_shell_line_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LRWD_STORAGE", raising=False)
    monkeypatch.setattr(StudyLoop, "grid", _pretend_grid)
    monkeypatch.setattr(StudyLoop, "tpe", _pretend_tpe)
    monkeypatch.setattr(race, "race", _pretend_race)
    monkeypatch.setattr(verify, "demonstrate", lambda device: iter(()))
    assert len(_commands()) > 10
    for command in _commands():
        monkeypatch.setattr(sys, "argv", command)
        assert app.run() == 0, (command, capsys.readouterr().err)


def test_every_command_optimizer_and_preset_is_named() -> None:
    root = typer.main.get_command(app.app)
    names = list(root.commands)  # type: ignore[attr-defined]
    for name in [*names, *optimizer_names(), *preset_names()]:
        assert name in README, name


def test_ci_runs_the_readmes_test_command() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "<!-- test command -->" in script
    assert README.count("<!-- test command -->") == 1
    command = README.split("<!-- test command -->\n```sh\n")[1].split("\n```")[0]
    assert command.endswith("-m pytest -n 2 --dist worksteal")
    assert "\n" not in command
