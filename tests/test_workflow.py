"""The README's workflow is one that GitHub can read, and its commands do what it says."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from lrwd_sweep.cli import app
from lrwd_sweep.runner.study_loop import StudyLoop
from lrwd_sweep.science.trial import Status, Trial

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
SECTION = README.split("\n## In CI\n")[1].split("\n## ")[0]
(WORKFLOW,) = re.findall(r"```yaml\n(.*?)```", SECTION, flags=re.DOTALL)
(WRITE_BASELINE,) = re.findall(r"`(lrwd-sweep report [^`]*--output [^`]*)`", SECTION)


def steps() -> list[dict[str, Any]]:
    (job,) = yaml.safe_load(WORKFLOW)["jobs"].values()
    found: list[dict[str, Any]] = job["steps"]
    return found


def commands() -> list[str]:
    lines = [line.strip() for step in steps() for line in step.get("run", "").splitlines()]
    return [line for line in lines if line.startswith("lrwd-sweep ")]


def _pretend(sweep: StudyLoop) -> None:
    """A separable study, its best cell in the middle."""
    columns = len(sweep.spec.lattice.weight_decay)
    trials = [
        Trial(
            cell,
            seed,
            Status.COMPLETE,
            {"val_loss": 0.1 + 0.01 * ((i - 5) ** 2 + (j - 5) ** 2) + 1e-3 * seed},
        )
        for k, cell in enumerate(sweep.spec.lattice.cells())
        for i, j in [divmod(k, columns)]
        for seed in sweep.spec.seeds
    ]
    sweep.store.add_trials(sweep.name, trials)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LRWD_STORAGE", raising=False)
    monkeypatch.setattr(StudyLoop, "grid", _pretend)
    (tmp_path / ".github").mkdir()

    def run_here(line: str) -> int:
        monkeypatch.setattr(sys, "argv", shlex.split(line.partition(">>")[0]))
        return app.run()

    return run_here


def test_every_step_either_uses_an_action_or_runs_a_command() -> None:
    assert all(("uses" in step) is not ("run" in step) for step in steps())
    assert all(re.fullmatch(r"actions/[a-z/-]+@v\d+", step["uses"]) for step in steps() if "uses" in step)


def test_its_commands_train_judge_and_write_what_it_uploads(
    run: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    train, *report = commands()
    assert run(train) == 0
    assert run(WRITE_BASELINE) == 0
    capsys.readouterr()
    for line in report:
        assert run(line) == 0, capsys.readouterr().err
    assert capsys.readouterr().out.startswith("## Gates\n")
    (upload,) = [step for step in steps() if "upload-artifact" in step.get("uses", "")]
    assert all(Path(path).exists() for path in upload["with"]["path"].split())


def test_the_step_that_judges_fails_when_a_gate_does(run: Any) -> None:
    """The verdict goes to the step's summary, and its command is the step's last."""
    train, *_, judge = commands()
    assert judge.endswith('>> "$GITHUB_STEP_SUMMARY"')
    run(train)
    run(WRITE_BASELINE)
    assert run(judge.replace("--require separable", "--require coupled")) == 1


def test_every_gate_of_the_command_line_is_explained() -> None:
    from lrwd_sweep.cli.report import report

    options = {f"--{name.replace('_', '-')}" for name in report.__annotations__}
    gates = [option for option in options if re.match("--(max-|min-|no|require|baseline|octaves)", option)]
    assert len(gates) == 11
    assert [option for option in gates if option not in SECTION] == []
