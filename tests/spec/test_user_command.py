"""A command's template is checked and filled, and its identity is what decides a run's result."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lrwd_sweep.errors import UsageError
from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.science.trial import Direction
from lrwd_sweep.spec.request import Request
from lrwd_sweep.spec.study import Kind, StudySpec

RUN = "python train.py --lr={lr} --wd {weight_decay} --seed {seed}"
AXES: dict[str, Any] = {"lr": [0.001, 0.01], "weight_decay": [0.0, 0.1], "run": RUN}


def spec(optimizer: str = "adamw:lr-scaled", kind: Kind = Kind.GRID, **given: Any) -> StudySpec:
    request = Request.of(**(AXES | given))
    return request.spec(request.variant(optimizer), kind)


def filled(run: str, **given: Any) -> list[str]:
    command = spec(run=run, **{"seeds": 1, **given}).command
    assert command is not None
    return command.filled(Cell(1e-5, 0.0), 3, "/tmp/a folder")


def test_words_are_filled_without_a_shell() -> None:
    cases = {
        "a --lr={lr} {weight_decay} {seed}": ["a", "--lr=1e-05", "0.0", "3"],  # nanoGPT refuses --wd=0
        "a {lr*0.1} {lr:.3e} {lr*3:.1f} {weight_decay} {seed:03d}": "a 1e-06 1.000e-05 0.0 0.0 003".split(),  # noqa: SIM905
        "a '{{\"x\": {lr}}}' {weight_decay} {out}/b": ["a", '{"x": 1e-05}', "0.0", "/tmp/a folder/b"],
        "a 'b  c' {lr} {weight_decay} $HOME;": ["a", "b  c", "1e-05", "0.0", "$HOME;"],
        "a {optimizer} {lr} {weight_decay}": ["a", "adamw", "1e-05", "0.0"],
    }
    for run, words in cases.items():
        assert filled(run) == words, run
    assert filled("a {lr} {weight_decay} {epochs}", epochs=7)[-1] == "7"
    shell = filled("a {lr} $LRWD_WEIGHT_DECAY > {out}/x", shell=True)
    assert shell == ["/bin/sh", "-c", "a 1e-05 $LRWD_WEIGHT_DECAY > '/tmp/a folder'/x"]


def test_what_cannot_work_is_refused_with_the_remedy() -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"run": "a {lr}"}, "has no {weight_decay}"),
        ({"run": "a {lr} {weight_decay} {sed}"}, "unknown placeholder '{sed}'; known: {lr}"),
        ({"run": "a {lr*x} {weight_decay}"}, "'{lr*x}' has a factor or format"),
        ({"run": "a {lr:q} {weight_decay}"}, "'{lr:q}' has a factor or format"),
        ({"run": "a {lr} {weight_decay} {out*2}"}, "'{out*2}' has a factor or format"),
        ({"run": "a '{lr} {weight_decay}"}, "cannot be split into words"),
        ({"run": ""}, "is empty"),
        ({"run": "a {lr} {weight_decay}", "seeds": 2}, "the seeds of a cell are copies"),
        ({"run": "a {lr} {weight_decay} {epochs}"}, "add epochs=10"),
        ({"epochs": 3}, "has no {epochs}"),
        ({"net": "mlp"}, "net has no effect with run"),
        ({"preset": "verify"}, "preset has no effect"),
        ({"lr": None}, "lr is required with run"),
        ({"metric": "val_acc"}, "add maximize=True, or maximize=False"),
        ({"metric": "quality"}, "is a higher or a lower 'quality' better?"),
        ({"read": "yaml:a:b"}, "unknown source to read 'yaml'; known"),
        ({"read": "json:a"}, "lacks a path or a key"),
        ({"read": "stdout:loss (.*)", "metric": "loss"}, "no group named value"),
        ({"read": "stdout:(", "metric": "loss"}, "is not a regular expression"),
        ({"read": "stdout:(?P<value>.)"}, "metric is required"),
        ({"timeout": "soon"}, "write 90s, 30m or 2h"),
        ({"take": "first"}, "unknown take 'first'"),
        ({"jobs": 0}, "jobs=0 is not a whole number"),
        ({"run": None, "jobs": 2}, "jobs has no effect without run"),
        ({"run": None, "maximize": True}, "a lower val_loss is better"),
        ({"objective": len}, "exclude each other"),
        ({"run": None, "objective": len, "keep_out": True}, "keep_out has no effect with objective"),
        ({"run": None, "objective": lambda a: a}, "takes other arguments"),
    ]
    for given, text in cases:
        with pytest.raises(UsageError) as refused:
            spec(**given)
        assert text in str(refused.value), (given, str(refused.value))
    request = Request.of(**AXES)
    for name, text in ((None, "optimizer is required"), ("adamw", "adamw:lr-scaled), or not")):
        with pytest.raises(UsageError, match=text.replace(")", r"\)")):
            request.variant(name)


def test_a_commands_text_can_be_quoted_and_split_again() -> None:
    for run in (
        "a '{lr*0.1}' {weight_decay}",
        "a 'b  c' {lr} {weight_decay} \"d'e\" '$x' ''",
        "a \\\\ {lr} {weight_decay}",
    ):
        command = spec(run=run, seeds=1).command
        assert command is not None
        assert spec(run=command.text, seeds=1).command == command, run
    assert (
        spec(run="a '{lr*0.1}' {weight_decay}", seeds=1).identity()["command"]
        == 'a "{lr*0.1}" {weight_decay}'
    )


def test_compared_optimizers_have_commands_of_their_own() -> None:
    two = ("adam", "adamw:lr-scaled")
    runs: list[Any] = [
        "a {optimizer} {lr} {weight_decay}",
        ("a {lr} {weight_decay}", "b {lr} {weight_decay}"),
    ]
    for run in runs:
        found = Request.of(**(AXES | {"run": run})).compared(two)
        assert len({each.command.template for each in found.values() if each.command}) == 2, run
    for run, names in ((RUN, two), (("a {lr} {weight_decay}",) * 3, two), (RUN, ())):
        with pytest.raises(UsageError):
            Request.of(**(AXES | {"run": run})).compared(names)


def test_a_specification_survives_json() -> None:
    rest: dict[str, Any] = {
        "read": "csv:{out}/a.csv:loss",
        "take": "best",
        "jobs": 2,
        "timeout": "2h",
        "diverged_above": 9.0,
        "keep_out": True,
    }
    for one in (spec(), spec(**rest), spec(metric="acc", maximize=True), spec(shell=True), spec(seeds=1)):
        again = StudySpec.from_dict(json.loads(json.dumps(one.to_dict())))
        assert again == one
        assert again.identity() == one.identity()
        assert again.to_dict() == one.to_dict()
    assert spec(metric="acc", maximize=True).direction is Direction.MAXIMIZE
    assert spec().seeds == (0, 1, 2)
    assert spec(run="a {lr} {weight_decay}").seeds == (0,)


def test_identity_is_the_command_its_code_and_what_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("train.py").write_text("import helper\n")
    Path("helper.py").write_text("x = 1\n")
    Path("settings.yaml").write_text("width: 4\n")
    run = f"{RUN} --config settings.yaml"

    def again(given: dict[str, Any]) -> StudySpec:
        return spec(**({"run": run} | given))

    first = again({})
    assert first.default_name.startswith("train-adamw-lr-scaled-val_loss-")
    free = ({"jobs": 4}, {"timeout": "2h"}, {"diverged_above": 3.0}, {"keep_out": True})
    for same in (*free, {"seeds": 5}, {"lr": [0.1]}):
        assert not first.differences(again(same)), same
    for other in ({"read": "auto"}, {"take": "best"}, {"metric": "test_loss"}, {"run": f"{run} -x"}):
        changed = again(other)
        assert len(first.differences(changed)) == 1, other
        assert changed.default_name != first.default_name, other
    for file in ("train.py", "helper.py", "settings.yaml"):
        before = spec(run=run)
        Path(file).write_text(Path(file).read_text() + "# more\n")
        (found,) = before.differences(spec(run=run))
        assert found.startswith("code of train: "), file
    assert spec(run="python -m helper {lr} {weight_decay}").default_name.startswith("helper-")
    Path("other.txt").write_text("data")  # a file that is no code
    assert not first.differences(first)
