"""`--help`, `docs`, `preset` and `convert` explain what there is, without data or a store."""

from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import typer

from lrwd_sweep.cli.app import app
from lrwd_sweep.cli.docs import FOLDER
from lrwd_sweep.errors import DeviceError, arg
from lrwd_sweep.report.view import Format
from lrwd_sweep.science.optimizer import Convention, MomentumForm
from lrwd_sweep.science.schedule import Schedule
from lrwd_sweep.spec.catalog import AUGMENTATIONS, ENGINES, PRECISIONS
from lrwd_sweep.spec.field import HEADINGS
from lrwd_sweep.spec.preset import preset_names
from tests.cli.conftest import Patch, Run, assert_holds, ended, process, strict

ROOT: Any = typer.main.get_command(app)  # the types of its parts are private to Typer
COMMANDS: dict[tuple[str, ...], Any] = {}
for name, command in ROOT.commands.items():
    parts = getattr(command, "commands", None)
    COMMANDS |= {(name,): command} if parts is None else {(name, part): parts[part] for part in parts}


def test_root_shows_what_to_do_first_and_shells_complete_it(run: Run, monkeypatch: Patch) -> None:
    alone = run()
    assert (alone.code, alone.err, "lrwd-sweep compare adam adamw" in alone.out) == (0, "", True)
    assert alone.out == run("--help").out == run("-h").out
    assert run("--version").out == run("-V").out == f"lrwd-sweep {version('lrwd-sweep')}\n"
    no_detection = {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}  # of the shell that runs the tests
    shown = ended(process("--show-completion", "bash", **no_detection))
    assert "_LRWD_SWEEP_COMPLETE=complete_bash" in shown.out
    monkeypatch.setenv("_LRWD_SWEEP_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "lrwd-sweep grid --mom")
    monkeypatch.setenv("COMP_CWORD", "2")
    assert run().out.split() == ["--momentum", "--momentum-form"]


def test_every_command_has_a_help_with_its_options_that_fits_80_columns(run: Run, monkeypatch: Patch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert run("study").out == run("study --help").out
    helps = {}
    for path, command in COMMANDS.items():
        assert f"\n  {path[-1]} " in run(*path[:-1], "--help").out
        found = run(*path, "--help")
        assert (found.code, found.err) == (0, "")
        assert found.out.startswith(f"Usage: lrwd-sweep {' '.join(path)} ")
        helps[path[0]] = lines = found.out.splitlines()
        assert max(map(len, lines)) <= 80, path
        headings = [line.removesuffix(":") for line in lines if line.endswith(":") and line[0] != " "]
        if path[0] in ("grid", "compare", "tpe", "transfer"):
            assert [name for name in headings if name in HEADINGS] == list(HEADINGS), path
        options = [line for line in lines if line.startswith("  -")]
        named = [each for each in command.params if each.param_type_name == "option" and not each.hidden]
        assert len(options) == len(named) + 1, path
    assert_holds("\n".join(helps["report"]), *map(str, Format))
    assert_holds("\n".join(helps["grid"]), *Schedule, *PRECISIONS, *AUGMENTATIONS, *ENGINES, *MomentumForm)


def test_docs_lists_and_shows_the_pages(run: Run, monkeypatch: Patch) -> None:
    pages = {path.stem: path.read_text(encoding="utf-8") for path in sorted(FOLDER.glob("*.md"))}
    lines = run("docs").out.splitlines()
    for line, (name, text) in zip(lines, pages.items(), strict=False):
        assert line.split(maxsplit=1) == [name, text.splitlines()[0].removeprefix("# ")]
        assert run("docs", name).out == text, "off a terminal it is Markdown"
    assert run("docs ci.md").out == pages["ci"]
    monkeypatch.setenv("FORCE_COLOR", "1")
    out = run("docs separability").out
    assert ("\x1b[" in out, "```" in out) == (True, False)


def test_presets_and_files_are_shown_with_their_time_and_without_data(run: Run, monkeypatch: Patch) -> None:
    listed = strict(run("preset list --format json").out)["presets"]
    assert {*preset_names()} <= {*run("preset list").out.split()}
    assert [preset["name"] for preset in listed] == preset_names()
    for preset in listed:
        name = preset["name"]
        shown = strict(run(f"preset show {name} --format json").out)["preset"]
        assert {key: shown[key] for key in preset} == preset
        assert len({study["study_name"] for study in shown["studies"]}) == len(preset["optimizers"]), name
        found = run(f"preset show {name} --no-estimate")
        assert (found.code, found.err, "\x1b" in found.out) == (0, "", False), name
        command = "transfer" if name == "transfer-mini" else "compare"
        assert f"lrwd-sweep {command} --preset {name}" in found.out, name
    assert not list(Path().iterdir())
    Path("my own.toml").write_text('like = "digits"\nabout = "red \\u001b[31m\\nline"\n')
    found = run("preset show 'my own.toml' --no-estimate", code=0)
    assert found.out.startswith("my own: red \\x1b[31m\\nline\n")
    assert "compare --preset 'my own.toml'" in found.out
    without_room = Mock(side_effect=DeviceError(f"no room; choose {arg('device', 'cpu')}"))
    monkeypatch.setattr("lrwd_sweep.runner.execution.measure", without_room)
    assert "unknown: no room; choose --device cpu" in run("preset show digits").out


def test_conversion_shows_formula_and_arithmetic_or_a_row_per_convention(run: Run) -> None:
    def converted(arguments: str) -> str:
        found = run(f"convert {arguments}")
        assert (found.code, found.err) == (0, ""), arguments
        return found.out

    def document(arguments: str) -> Any:
        return strict(converted(f"{arguments} --format json"))

    assert converted("-o adamw --lr 1e-3 --wd 0.05 --from lr-scaled --to independent").splitlines() == [
        "lr-scaled w = 0.05 at α = 0.001 is independent λ = 5e-05",
        "  λ = α × w = 0.001 × 0.05 = 5e-05",
        "  θ ← θ − ηαwθ",
        "  θ ← θ − ηλθ",
        "  exact under any schedule",
        "  decay averages over 1/λ = 20000 steps where η = 1",
    ]
    rows = [line.split()[0] for line in converted("-o sgd --lr 2^-3 --wd 0.01 --steps 100").splitlines()]
    for convention in Convention:
        assert rows.count(convention) == (2 if convention is Convention.COUPLED else 1)
    arguments = "-o adamw --lr 1e-3 --wd 1e-4 --epochs 100 --batch-size 128 --train-size 50000"
    assert document(arguments)["steps"] == 39_100, "an epoch counts its incomplete batch"
    dropped = document(f"{arguments} --drop-last")
    assert (dropped["steps"], dropped["timescale_epochs"]) == (39_000, pytest.approx(1e4 / 390))
    projected = document("-o adamp --lr 2^-8 --wd 16")
    found = projected["timescale_steps"], projected["timescale_steps_projected"]
    assert found == pytest.approx((16, 160))
    for name, source in (("adamw:fixed", "fixed"), ("adamwr", "normalized"), ("amsgrad", "coupled")):
        given = document(f"-o {name} --lr 0.1 --wd 0.2 --steps 100")["from"]
        assert given == {"convention": source, "value": 0.2}
    arguments = "-o adamw:lr-scaled:normalized --lr 0.1 --wd 0.2 --steps 100"
    assert "\n  w = λ_norm / √N = 0.2 / √100 = 0.02\n" in converted(f"{arguments} --to independent")
    expected = {"convention": "lr-scaled", "value": pytest.approx(0.02), "lambda_norm": 0.2}
    assert document(arguments)["from"] == expected
