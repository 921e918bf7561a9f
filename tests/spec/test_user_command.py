"""A command's template is checked and filled, and its identity is what decides a run's result."""

import json
import re
from pathlib import Path
from typing import Any

from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.science.trial import Direction
from lrwd_sweep.spec.request import Request
from lrwd_sweep.spec.study import StudySpec
from tests.refusal import assert_raises

PLACES = "{lr} {weight_decay}"
RUN = "python train.py --lr={lr} --wd {weight_decay} --seed {seed}"
AXES: Any = {"lr": [0.001, 0.01], "weight_decay": [0.0, 0.1], "run": RUN}


def spec(**given: Any) -> StudySpec:
    request = Request.of(**(AXES | given))
    return request.spec(request.variant("adamw:lr-scaled"))


def test_words_are_filled_without_a_shell_and_their_text_can_be_split_again() -> None:
    def filled(run: str, **given: Any) -> Any:
        command: Any = spec(run=run, **{"seeds": 1, **given}).command
        return command.filled(Cell(1e-5, 0.0), 3, "/tmp/a folder")

    for run, words in {
        "a --lr={lr} {weight_decay} {seed}": ["a", "--lr=1e-05", "0.0", "3"],  # nanoGPT refuses --wd=0
        "a {lr*0.1} {lr:.3e} {lr*3:.1f} {weight_decay} {seed:03d}": "a 1e-06 1.000e-05 0.0 0.0 003".split(),  # noqa: SIM905
        "a '{{\"x\": {lr}}}' {weight_decay} {out}/b": ["a", '{"x": 1e-05}', "0.0", "/tmp/a folder/b"],
        "a 'b  c' {lr} {weight_decay} $HOME;": ["a", "b  c", "1e-05", "0.0", "$HOME;"],
        "a {optimizer} {lr} {weight_decay}": ["a", "adamw", "1e-05", "0.0"],
    }.items():
        assert filled(run) == words, run
    assert filled("a {lr} {weight_decay} {epochs}", epochs=7)[-1] == "7"
    shell = filled("a {lr} $LRWD_WEIGHT_DECAY > {out}/x", shell=True)
    assert shell == ["/bin/sh", "-c", "a 1e-05 $LRWD_WEIGHT_DECAY > '/tmp/a folder'/x"]
    first = "a '{lr*0.1}' {weight_decay}"
    for run in (first, "a 'b  c' {lr} {weight_decay} \"d'e\" '$x' ''", "a \\\\ {lr} {weight_decay}"):
        command: Any = spec(run=run, seeds=1).command
        assert spec(run=command.text, seeds=1).command == command, run
    assert spec(run=first, seeds=1).identity()["command"] == 'a "{lr*0.1}" {weight_decay}'


def test_what_cannot_work_is_refused_and_compared_optimizers_have_commands_of_their_own() -> None:
    for given, text in (
        *(({"run": "a {lr}"}, "has no {weight_decay}"), ({"run": ""}, "is empty")),
        *(({"epochs": 3}, "has no {epochs}"), ({"objective": len}, "exclude each other")),
        ({"run": f"a {PLACES} {{sed}}"}, "unknown placeholder '{sed}'; known: {lr}"),
        ({"run": f"a '{PLACES}"}, "cannot be split into words"),
        ({"run": f"a {PLACES} {{epochs}}"}, "add epochs=10"),
        *(({"net": "mlp"}, "net has no effect with run"), ({"preset": "verify"}, "preset has no effect")),
        *(({"lr": None}, "lr is required with run"), ({"jobs": 0}, "jobs=0 is not a whole number")),
        ({"metric": "val_acc"}, "add maximize=True, or maximize=False"),
        ({"metric": "quality"}, "is a higher or a lower 'quality' better?"),
        ({"read": "yaml:a:b"}, "unknown source to read 'yaml'; known"),
        *(({"read": "json:a"}, "lacks a path or a key"), ({"timeout": "soon"}, "write 90s, 30m or 2h")),
        ({"read": "stdout:(?P<value>)"}, "metric is required"),
        ({"take": "first"}, "unknown take 'first'"),
        ({"read": "stdout:loss (.*)", "metric": "loss"}, "no group named value"),
        ({"read": "stdout:(", "metric": "loss"}, "is not a regular expression"),
        ({"run": None, "jobs": 2}, "jobs has no effect without run"),
        ({"run": None, "maximize": True}, "a lower val_loss is better"),
        ({"run": None, "objective": len, "keep_out": True}, "keep_out has no effect with objective"),
        ({"run": None, "objective": lambda a: a}, "takes other arguments"),
    ):
        assert_raises(re.escape(text), spec, **given)
    for place in ("{lr*x}", "{lr:q}", "{out*2}"):
        assert_raises(re.escape(f"'{place}' has a factor or format"), spec, run=f"a {PLACES} {place}")
    two, plain, other = ("adam", "adamw:lr-scaled"), "a {lr} {weight_decay}", "b {lr} {weight_decay}"
    for run in ("a {optimizer} {lr} {weight_decay}", (plain, other)):
        found = Request.of(**AXES | {"run": run}).compared(two)
        assert len({each.command.template for each in found.values() if each.command}) == 2, run
    pair, three = (Request.of(**AXES | {"run": each}) for each in ((plain, other), (plain, other, RUN)))
    assert_raises("given 3 times for 2 optimizers", three.compared, two)
    assert_raises("given 2 times for 3 optimizers", pair.compared, (*two, "sgd"))


def test_a_specification_is_the_command_its_code_and_what_is_read_and_survives_json(folder: Path) -> None:
    rest = {"read": "csv:{out}/a.csv:loss", "take": "best", "jobs": 2, "timeout": "2h", "diverged_above": 9.0}
    higher = {"metric": "acc", "maximize": True}
    for one in (spec(), spec(**rest, keep_out=True), spec(**higher), spec(shell=True)):
        again = StudySpec.from_dict(json.loads(json.dumps(one.to_dict())))
        assert (again, again.identity(), again.to_dict()) == (one, one.identity(), one.to_dict())
    assert spec(**higher).direction is Direction.MAXIMIZE
    assert (spec().seeds, spec(run="a {lr} {weight_decay}").seeds) == ((0, 1, 2), (0,))
    for file, text in (("train.py", "import helper\n"), ("helper.py", "x = 1\n"), ("settings.yaml", "")):
        Path(file).write_text(text)
    run = f"{RUN} --config settings.yaml"
    first = spec(run=run)
    assert first.default_name.startswith("train-adamw-lr-scaled-val_loss-")
    for same in ({"jobs": 4}, {"timeout": "2h"}, {"diverged_above": 3.0}, {"keep_out": True}, {"seeds": 5}):
        assert not first.differences(spec(**{"run": run} | same)), same
    for other in ({"read": "auto"}, {"take": "best"}, {"metric": "test_loss"}, {"run": f"{run} -x"}):
        changed = spec(**{"run": run} | other)
        assert len(first.differences(changed)) == 1, other
        assert changed.default_name != first.default_name, other
    for file in ("train.py", "helper.py", "settings.yaml"):
        before = spec(run=run)
        Path(file).write_text(Path(file).read_text() + "# more\n")
        (found,) = before.differences(spec(run=run))
        assert found.startswith("code of train: "), file
    assert spec(run="python -m helper {lr} {weight_decay}").default_name.startswith("helper-")
    for words, changes in ((f"{run} --also ./other", 0), ("./other {lr} {weight_decay}", 1)):
        Path("other").write_text("#!/bin/sh\n")  # code without a suffix, which only a program is
        noted = spec(run=words, seeds=1)
        Path("other").write_text("#!/bin/bash\n")
        assert len(noted.differences(spec(run=words, seeds=1))) == changes, words
    assert noted.default_name.startswith("other-")
