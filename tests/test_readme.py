"""README and guide: their commands and Python run, they name everything, and they stay short."""

import glob
import json
import math
import re
import shlex
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

import lrwd_sweep
from lrwd_sweep.cli import app
from lrwd_sweep.cli.docs import FOLDER
from lrwd_sweep.lab.bench import Measurement
from lrwd_sweep.runner.sampler import propose_cells
from lrwd_sweep.runner.study_loop import StudyLoop
from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.science.optimizer import optimizer_names
from lrwd_sweep.science.trial import Status, Trial, unfinished
from lrwd_sweep.spec.preset import preset_names
from tests.lab.bench import made_up

ROOT = Path(__file__).parent.parent
PATHS = {"README": ROOT / "README.md", **{path.stem: path for path in sorted(FOLDER.glob("*.md"))}}
PAGES = {name: path.read_text(encoding="utf-8") for name, path in PATHS.items()}
README = PAGES["README"]


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


def commands(lines: Sequence[str]) -> Iterator[list[str]]:
    """Yield the words of each lrwd-sweep command, without comments and redirections."""
    for line in lines:
        if found := re.search(r"(?:^|/bin/)(lrwd-sweep .*)", line.strip()):
            yield shlex.split(found[1].partition(">>")[0], comments=True)


def shell_commands(text: str) -> list[list[str]]:
    return list(commands([line for block in blocks(text, "sh") for line in block.splitlines()]))


def _bowl(sweep: StudyLoop, cells: Sequence[Cell]) -> None:
    """Store made-up trials of a separable surface whose best cell is in the lattice's middle."""
    lattice, task = sweep.spec.lattice, sweep.spec.task
    middles = [axis[len(axis) // 2] for axis in (lattice.lr, lattice.weight_decay)]
    trials = []
    left = unfinished(cells, sweep.spec.seeds, sweep.store.finished(sweep.name))
    for seed, missing in sweep.shard.among(left).items():
        for cell in missing:
            pairs = zip((cell.lr, cell.weight_decay), middles, strict=True)
            far = sum(math.log2(x / middle) ** 2 if x else 40 for x, middle in pairs)
            values = dict.fromkeys((sweep.spec.metric, "test_loss"), 0.1 + 0.01 * far + 1e-3 * seed)
            snapshots = dict.fromkeys(task.timetable.snapshots if task else (), values)
            trials.append(Trial(cell, seed, Status.COMPLETE, values, snapshots=snapshots))
    sweep.store.add_trials(sweep.name, trials)


def _grid(sweep: StudyLoop) -> None:
    _bowl(sweep, list(sweep.spec.lattice.cells()))


def _tpe(sweep: StudyLoop, points: int) -> None:
    spec = sweep.spec
    _bowl(sweep, propose_cells(spec.lattice, [], points, seeds=spec.seeds, metric=spec.metric))


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[Sequence[str]], int]:
    """Run a command in an empty folder; training, race and demonstrations are made up."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LRWD_STORAGE", raising=False)
    monkeypatch.setattr(StudyLoop, "grid", _grid)
    monkeypatch.setattr(StudyLoop, "tpe", _tpe)
    monkeypatch.setattr(Measurement, "in_process", made_up.in_process)
    monkeypatch.setattr("lrwd_sweep.cli.verify.demonstrate", lambda device: iter(()))

    def run_here(words: Sequence[str]) -> int:
        monkeypatch.setattr(sys, "argv", list(words))
        return app.run()

    return run_here


SHELL = [
    pytest.param(page, marks=[pytest.mark.slow] if page == "papers" else [])
    for page, text in PAGES.items()
    if shell_commands(text)
]
PYTHON = [page for page, text in PAGES.items() if blocks(text, "python")]


@pytest.mark.parametrize("page", SHELL)
def test_every_shell_line_runs(
    run: Callable[[Sequence[str]], int], capsys: pytest.CaptureFixture[str], page: str
) -> None:
    for command in shell_commands(PAGES[page]):
        assert run(command) == 0, (command, capsys.readouterr().err)


def run_python(page: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Run a page's Python blocks in order; one that begins with a file's name becomes that file.

    Returns the variables at the end.
    """
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    found = list(blocks(PAGES[page], "python"))
    for block in found:  # another test may have imported a file of the same name
        if named := re.match(r"# (\w+)\.py\n", block):
            monkeypatch.delitem(sys.modules, named[1], raising=False)
    modules, variables = set(sys.modules), {"__name__": "readme"}
    for block in found:
        if named := re.match(r"# (\w+\.py)\n", block):
            Path(named[1]).write_text(block, encoding="utf-8")
        else:
            exec(compile(block, page, "exec"), variables)
    for path in folder.glob("*.py"):
        assert path.stem in set(sys.modules) - modules, f"nothing imports {path.name}"
        monkeypatch.delitem(sys.modules, path.stem)
    return variables


@pytest.mark.parametrize("page", PYTHON)
def test_every_python_block_runs_with_one_epoch_and_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, page: str
) -> None:
    sweep, short = lrwd_sweep.sweep, {"epochs": 1, "seeds": 1, "lr": "2^-7:2^-5", "weight_decay": "2^-7:2^-5"}
    monkeypatch.setattr("lrwd_sweep.engine.device.cores", lambda: 1)  # in a thread, without seconds of start

    def shortened(*names: str, **options: Any) -> lrwd_sweep.Study:
        given = options | short
        return sweep(*names, **{k: v for k, v in given.items() if "objective" not in given or k != "epochs"})

    monkeypatch.setattr(lrwd_sweep, "sweep", shortened)
    run_python(page, tmp_path, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("page", PYTHON)
def test_every_python_block_runs_as_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, page: str
) -> None:
    study = run_python(page, tmp_path, monkeypatch)["study"]
    for verdict in re.findall(r"\.verdict\)  # (\S+)", PAGES[page]):
        assert study.separability.verdict == verdict


def test_every_command_optimizer_and_preset_is_named_and_every_link_leads_to_a_file() -> None:
    guide = "".join(PAGES.values())
    for name in [*optimizer_names(), *preset_names()]:
        assert name in guide, name
    for name, text in PAGES.items():
        for target in re.findall(r"\]\(([^)]+)\)", text):
            assert (PATHS[name].parent / target).is_file(), (name, target)
    assert all(f"](lrwd_sweep/docs/{page}.md)" in README for page in PAGES if page != "README")
    root = typer.main.get_command(app.app)
    for name in root.commands:  # type: ignore[attr-defined]
        assert f"lrwd-sweep {name}" in README, name


def test_ci_runs_the_readmes_test_command() -> None:
    assert "<!-- test command -->" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    (command,) = re.findall(r"<!-- test command -->\n```sh\n(.*)\n```", README)
    assert command.endswith("-m pytest -n 2 --dist worksteal")


def steps() -> list[dict[str, Any]]:
    """Return the steps of the first workflow on the page ci."""
    (job,) = yaml.safe_load(blocks(PAGES["ci"], "yaml")[0])["jobs"].values()
    found: list[dict[str, Any]] = job["steps"]
    return found


def test_the_workflow_trains_judges_and_writes_what_it_uploads(
    run: Callable[[Sequence[str]], int], capsys: pytest.CaptureFixture[str]
) -> None:
    Path(".github").mkdir()
    (gates,) = [step["env"]["GATES"] for step in steps() if "env" in step]
    lines = [line.removesuffix(" || true") for step in steps() for line in step.get("run", "").splitlines()]
    train, *report = commands([line.replace("$GATES", gates) for line in lines])
    (baseline,) = re.findall(r"`(lrwd-sweep report [^`]*--output \.github[^`]*)`", PAGES["ci"])
    assert run(train) == 0
    assert run(shlex.split(baseline)) == 0
    capsys.readouterr()
    for command in report:
        assert run(command) == 0, capsys.readouterr().err
    assert "\n\n## Gates\n" in capsys.readouterr().out
    (upload,) = [step for step in steps() if "upload-artifact" in step.get("uses", "")]
    assert all(Path(path).exists() for path in upload["with"]["path"].split())
    assert steps()[-2]["run"].rstrip().endswith('>> "$GITHUB_STEP_SUMMARY"')
    assert run([word.replace("separable", "coupled") for word in report[-1]]) == 1  # a gate fails


def test_the_workflow_in_parts_trains_every_shard_and_judges_them(
    run: Callable[[Sequence[str]], int], capsys: pytest.CaptureFixture[str]
) -> None:
    train, judge = yaml.safe_load(blocks(PAGES["ci"], "yaml")[1])["jobs"].values()
    parts = train["strategy"]["matrix"]["k"]
    for job, values in ((train, parts), (judge, [0])):
        for k in values:
            lines = [step.get("run", "").replace("${{ matrix.k }}", str(k)) for step in job["steps"]]
            for command in commands(lines):
                paths = [glob.glob(word) if "*" in word else [word] for word in command]
                assert run([path for found in paths for path in found]) == 0, capsys.readouterr().err
    assert sorted(glob.glob(train["steps"][-1]["with"]["path"])) == [
        f"lrwd-sweep-{k}of{len(parts)}.db" for k in parts
    ]
    assert "missing" not in capsys.readouterr().err


def test_every_gate_of_the_command_line_is_explained() -> None:
    from lrwd_sweep.cli.report import report

    options = {f"--{name.replace('_', '-')}" for name in report.__annotations__}
    gates = [option for option in options if re.match("--(max-|min-|no|require|baseline|octaves)", option)]
    assert len(gates) == 13
    assert [option for option in gates if option not in PAGES["ci"]] == []


@pytest.mark.slow
def test_the_wheel_is_complete_and_compares(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pip", "wheel", str(ROOT), "--no-deps", "--wheel-dir", str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    installed = tmp_path / "installed"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)
    names = {path.relative_to(installed).as_posix() for path in installed.rglob("*")}
    assert {f"lrwd_sweep/presets/{name}.toml" for name in preset_names()} <= names
    assert {f"lrwd_sweep/docs/{page}.md" for page in PAGES if page != "README"} <= names
    assert any(re.fullmatch(r".*\.dist-info/licenses/.*LICENSE", name) for name in names)
    code = f"import sys; sys.path.insert(0, {str(installed)!r}); from lrwd_sweep.cli import main; main()"
    tiny = ["--lr", "2^-8:2^-6", "--wd", "2^-8:2^-6", "--epochs", "2", "--seeds", "1"]
    for words in (["compare", "adam", "adamw", *tiny], ["report", "--format", "json"]):
        done = subprocess.run(
            [sys.executable, "-c", code, *words], cwd=tmp_path, capture_output=True, text=True, check=True
        )
    assert len(json.loads(done.stdout)["studies"]) == 2
