"""README and guide: their commands, Python, workflows and files for clusters run; they name everything."""

import glob
import json
import math
import os
import re
import shlex
import shutil
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
from lrwd_sweep.cli.report import report
from lrwd_sweep.lab.bench import Measurement
from lrwd_sweep.runner.sampler import propose_cells
from lrwd_sweep.runner.study_loop import StudyLoop
from lrwd_sweep.science.optimizer import optimizer_names
from lrwd_sweep.science.trial import Status, Trial, unfinished
from lrwd_sweep.spec.preset import preset_names
from tests.lab.bench import made_up

ROOT = Path(__file__).parent.parent
PATHS = {"README": ROOT / "README.md", **{path.stem: path for path in sorted(FOLDER.glob("*.md"))}}
PAGES = {name: path.read_text(encoding="utf-8") for name, path in PATHS.items()}
README = PAGES["README"]
Run = Callable[[Sequence[str]], int]
Capture = pytest.CaptureFixture[str]
Patch = pytest.MonkeyPatch


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


def commands(lines: Sequence[str]) -> Iterator[list[str]]:
    """Yield the words of each lrwd-sweep command, without comments and redirections."""
    for line in lines:
        if found := re.search(r"(?:^|/bin/)(lrwd-sweep .*)", line.strip()):
            yield shlex.split(found[1].partition(">>")[0], comments=True)


def shell_commands(text: str) -> list[list[str]]:
    return list(commands([line for block in blocks(text, "sh") for line in block.splitlines()]))


def _bowl(sweep: StudyLoop, points: int = 0) -> None:
    """Store made-up trials of a separable surface whose best cell is in the lattice's middle."""
    spec, trials = sweep.spec, []
    middles = [axis[len(axis) // 2] for axis in (spec.lattice.lr, spec.lattice.weight_decay)]
    proposed = propose_cells(spec.lattice, [], points, seeds=spec.seeds, metric=spec.metric)
    left = unfinished(proposed or spec.lattice.cells(), spec.seeds, sweep.store.finished(sweep.name))
    for seed, missing in sweep.shard.among(left).items():
        for cell in missing:
            pairs = zip((cell.lr, cell.weight_decay), middles, strict=True)
            far = sum(math.log2(x / middle) ** 2 if x else 40 for x, middle in pairs)
            values = dict.fromkeys((spec.metric, "test_loss"), 0.1 + 0.01 * far + 1e-3 * seed)
            snapshots = dict.fromkeys(spec.task.timetable.snapshots if spec.task else (), values)
            trials.append(Trial(cell, seed, Status.COMPLETE, values, snapshots=snapshots))
    sweep.store.add_trials(sweep.name, trials)


@pytest.fixture
def run(monkeypatch: Patch, folder: Path) -> Run:
    """Run a command in an empty folder; training, race and demonstrations are made up."""
    monkeypatch.setattr(StudyLoop, "grid", _bowl)
    monkeypatch.setattr(StudyLoop, "tpe", _bowl)
    monkeypatch.setattr(Measurement, "in_process", made_up.in_process)
    monkeypatch.setattr("lrwd_sweep.cli.verify.demonstrate", lambda device: iter(()))

    def run_here(words: Sequence[str]) -> int:
        monkeypatch.setattr(sys, "argv", list(words))
        return app.run()

    return run_here


SHELL = [page for page, text in PAGES.items() if page != "papers" and shell_commands(text)]
PYTHON = [page for page, text in PAGES.items() if blocks(text, "python")]


@pytest.mark.parametrize("page", [*SHELL, pytest.param("papers", marks=pytest.mark.slow)])
def test_every_shell_line_runs(run: Run, capsys: Capture, page: str) -> None:
    for command in shell_commands(PAGES[page]):
        assert run(command) == 0, (command, capsys.readouterr().err)


SHORT = {"epochs": 1, "seeds": 1, "lr": "2^-7:2^-5", "weight_decay": "2^-7:2^-5"}


@pytest.mark.parametrize("short", [SHORT, pytest.param({}, marks=pytest.mark.slow)], ids=["short", "whole"])
@pytest.mark.parametrize("page", PYTHON)
def test_every_python_block_runs(folder: Path, monkeypatch: Patch, page: str, short: Any) -> None:
    sweep, variables = lrwd_sweep.sweep, dict[str, Any]({"__name__": "readme"})

    def shortened(*names: str, **options: Any) -> lrwd_sweep.Study:
        given = options | short
        return sweep(*names, **{k: v for k, v in given.items() if "objective" not in given or k != "epochs"})

    if short:
        monkeypatch.setattr("lrwd_sweep.engine.device.cores", lambda: 1)  # in a thread: without a start
        monkeypatch.setattr(lrwd_sweep, "sweep", shortened)
    monkeypatch.syspath_prepend(folder)
    for block in blocks(PAGES[page], "python"):
        if named := re.match(r"# (\w+)\.py\n", block):  # which becomes that file
            monkeypatch.delitem(sys.modules, named[1], raising=False)  # another test may have imported one
            Path(f"{named[1]}.py").write_text(block, encoding="utf-8")
        else:
            exec(compile(block, page, "exec"), variables)
    for path in folder.glob("*.py"):
        assert path.stem in sys.modules, f"nothing imports {path.name}"
        monkeypatch.delitem(sys.modules, path.stem)
    for verdict in re.findall(r"\.verdict\)  # (\S+)", PAGES[page]):
        assert short or variables["study"].separability.verdict == verdict


def test_every_command_optimizer_preset_and_gate_is_named_and_every_link_leads_to_a_file() -> None:
    guide = "".join(PAGES.values())
    root: Any = typer.main.get_command(app.app)
    assert [name for name in (*optimizer_names(), *preset_names()) if name not in guide] == []
    assert [name for name in root.commands if f"lrwd-sweep {name}" not in README] == []
    assert [page for page in PAGES if f"](lrwd_sweep/docs/{page}.md)" not in README] == ["README"]
    for name, text in PAGES.items():
        for target in re.findall(r"\]\(([^)]+)\)", text):
            assert (PATHS[name].parent / target).is_file(), (name, target)
    options = {f"--{name.replace('_', '-')}" for name in report.__annotations__}
    gates = [option for option in options if re.match("--(max-|min-|no|require|baseline|octaves)", option)]
    assert len(gates) == 13
    assert [option for option in gates if option not in PAGES["ci"]] == []
    assert "<!-- test command -->" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    (command,) = re.findall(r"<!-- test command -->\n```sh\n(.*)\n```", README)
    assert command.endswith("-m pytest -n 2 --dist worksteal")


def test_the_workflow_trains_judges_and_writes_what_it_uploads(run: Run, capsys: Capture) -> None:
    Path(".github").mkdir()
    (job,) = yaml.safe_load(blocks(PAGES["ci"], "yaml")[0])["jobs"].values()
    steps = job["steps"]
    (gates,) = [step["env"]["GATES"] for step in steps if "env" in step]
    lines = [line.removesuffix(" || true") for step in steps for line in step.get("run", "").splitlines()]
    train, *judge = commands([line.replace("$GATES", gates) for line in lines])
    (baseline,) = re.findall(r"`(lrwd-sweep report [^`]*--output \.github[^`]*)`", PAGES["ci"])
    assert run(train) == run(shlex.split(baseline)) == 0
    capsys.readouterr()
    for command in judge:
        assert run(command) == 0, capsys.readouterr().err
    assert "\n\n## Gates\n" in capsys.readouterr().out
    (upload,) = [step for step in steps if "upload-artifact" in step.get("uses", "")]
    assert all(Path(path).exists() for path in upload["with"]["path"].split())
    assert steps[-2]["run"].rstrip().endswith('>> "$GITHUB_STEP_SUMMARY"')
    assert run([word.replace("separable", "coupled") for word in judge[-1]]) == 1  # a gate fails


def test_the_workflow_in_parts_trains_every_shard_and_judges_them(run: Run, capsys: Capture) -> None:
    train, judge = yaml.safe_load(blocks(PAGES["ci"], "yaml")[1])["jobs"].values()
    parts = train["strategy"]["matrix"]["k"]
    for job, values in ((train, parts), (judge, [0])):
        for k in values:
            lines = [step.get("run", "").replace("${{ matrix.k }}", str(k)) for step in job["steps"]]
            for command in commands(lines):
                paths = [glob.glob(word) if "*" in word else [word] for word in command]
                assert run([path for found in paths for path in found]) == 0, capsys.readouterr().err
    stores = [f"lrwd-sweep-{k}of{len(parts)}.db" for k in parts]
    assert sorted(glob.glob(train["steps"][-1]["with"]["path"])) == stores
    assert "missing" not in capsys.readouterr().err


@pytest.mark.slow
def test_the_wheel_is_complete_and_compares(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pip", "wheel", str(ROOT), "--no-deps", "--wheel-dir", str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    installed = tmp_path / "installed"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)
        names = set(archive.namelist())
    assert {f"lrwd_sweep/presets/{name}.toml" for name in preset_names()} <= names
    assert {f"lrwd_sweep/docs/{page}.md" for page in PAGES if page != "README"} <= names
    assert any(re.fullmatch(r".*\.dist-info/licenses/.*LICENSE", name) for name in names)
    code = f"import sys; sys.path.insert(0, {str(installed)!r}); from lrwd_sweep.cli import main; main()"
    tiny = ["--lr", "2^-8:2^-6", "--wd", "2^-8:2^-6", "--epochs", "2", "--seeds", "1"]
    for words in (["compare", "adam", "adamw", *tiny], ["report", "--format", "json"]):
        printed = subprocess.check_output([sys.executable, "-c", code, *words], cwd=tmp_path, text=True)
    assert len(json.loads(printed)["studies"]) == 2


ARRAY, SUBMIT, SSH, PARALLEL, _, NODES, _ = blocks(PAGES["clusters"], "bash")
SMALL = ["--lr", "2^-8:2^-6", "--wd", "2^-8:2^-6", "--seeds", "2"]
Shell = Callable[..., tuple[int, list[list[str]]]]
_NOTE = 'printf "%s\\n" "${0##*/} $*" >> noted\n'
PROGRAMS = {  # lrwd-sweep, Slurm, ssh and parallel: they note their words, and do not train
    "lrwd-sweep": f"{_NOTE}exit ${{ENDS:-0}}\n",
    "scontrol": _NOTE,
    "sbatch": f'{_NOTE}echo 17\n[ "$3" = --wrap ] && exec bash -c "$4"\n[ -f "$2" ]\n',
    "ssh": 'exec bash -c "$2"\n',
    "parallel": 'while [ $1 != lrwd-sweep ]; do shift; done\nset -- "$*"\n'
    'for k in ${1##*:::}; do c="${1%:::*}"; ${c//\\{\\}/$k}; done\n',
}


@pytest.fixture
def shell(folder: Path) -> Shell:
    """Run a script by bash; return its exit status and the words of its commands."""
    Path("bin").mkdir()
    for name, text in PROGRAMS.items():
        Path("bin", name).write_text(f"#!/bin/bash\n{text}")
        Path("bin", name).chmod(0o755)

    def run_script(script: str, **environment: str) -> tuple[int, list[list[str]]]:
        Path("noted").unlink(missing_ok=True)
        environment["PATH"] = f"{folder}/bin:{os.environ['PATH']}"
        ended = subprocess.run(["bash", "-c", script], env=os.environ | environment, check=False)
        lines = Path("noted").read_text().splitlines() if Path("noted").exists() else []
        return ended.returncode, [line.split() for line in lines]

    return run_script


def test_files_for_clusters_name_all_shards_and_join_them(run: Run, shell: Shell, capsys: Capture) -> None:
    Path("sweep.sh").write_text(ARRAY)
    first, last = map(int, re.findall(r"--array=(\d+)-(\d+)", ARRAY)[0])
    for k in range(first, last + 1):
        code, ((*command, shard),) = shell(ARRAY, SLURM_ARRAY_TASK_ID=str(k), SLURM_ARRAY_JOB_ID="9")
        assert (code, shard) == (0, f"{k}/{last}")
        if k > 1:  # as if it had trained
            shutil.copy("lrwd-sweep-1of8.db", f"lrwd-sweep-{k}of8.db")
        else:
            assert run([*command, shard, *SMALL]) == 0, capsys.readouterr().err
    for ends, code, noted in ((3, 3, 1), (124, 124, 2)):  # an error; out of time
        found, commands = shell(ARRAY, SLURM_ARRAY_TASK_ID="1", SLURM_ARRAY_JOB_ID="9", ENDS=str(ends))
        assert (found, len(commands)) == (code, noted), ends
    assert commands[1] == ["scontrol", "requeue", "9_1"]
    code, (first_job, second_job, merge, report) = shell(SUBMIT)
    assert (code, first_job) == (0, ["sbatch", "--parsable", "sweep.sh"])
    assert second_job[:2] == ["sbatch", "--dependency=afterany:17"]
    assert merge[4:] == [f"lrwd-sweep-{k}of{last}.db" for k in range(first, last + 1)]
    assert run(merge) == run(report) == 0
    job = yaml.safe_load(*blocks(PAGES["clusters"], "yaml"))["spec"]
    (container,) = job["template"]["spec"]["containers"]
    pod = shlex.join(container["command"])
    pods = [shell(pod, JOB_COMPLETION_INDEX=str(k))[1][0] for k in range(job["completions"])]
    loop = shell(SSH + "wait\nwhile [ $(wc -l < noted) -lt 4 ]; do sleep 0.02; done")[1]
    ((*node, cpus),) = shell(NODES, SLURM_CPUS_PER_TASK="4")[1]
    assert (node[:3], cpus) == (["lrwd-sweep", "worker", "--head"], "4")
    for commands in (pods, loop, shell(PARALLEL)[1]):
        shards = sorted(tuple(map(int, command[-1].split("/"))) for command in commands)
        assert shards == [(k, len(commands)) for k in range(1, len(commands) + 1)]
        assert {" ".join(command[:-1]) for command in commands} == {"lrwd-sweep compare adam adamw --shard"}
