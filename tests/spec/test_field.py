"""One declaration of a field is its option, its keyword, its preset key, its check and its words."""

import dataclasses
import json
import re
from inspect import signature
from pathlib import Path
from typing import Any, get_type_hints

from hypothesis import given
from hypothesis import strategies as st

import lrwd_sweep
from lrwd_sweep.api import TaskOptions
from lrwd_sweep.cli.options import ALL_FIELDS, option_text
from lrwd_sweep.cli.training import grid
from lrwd_sweep.errors import SpecMismatch, UsageError, arg
from lrwd_sweep.science.optimizer import Family, Optimizer
from lrwd_sweep.science.schedule import Schedule
from lrwd_sweep.spec.field import HEADINGS
from lrwd_sweep.spec.net_options import complete_options, options_text, parse_options, said_options
from lrwd_sweep.spec.preset import DEFAULT, find_preset, read_preset, refuse_unused
from lrwd_sweep.spec.request import REQUEST_FIELDS, Request
from lrwd_sweep.spec.run_options import RUN_FIELDS
from lrwd_sweep.spec.task import FIELDS, Task
from tests.refusal import assert_raises


def test_options_keywords_preset_keys_and_defaults_follow_from_the_declarations(tmp_path: Path) -> None:
    assert {field.name for field in dataclasses.fields(Task)} == {*FIELDS, "sizes"}
    for name, field in FIELDS.items():
        assert field.panel in ("", *HEADINGS), name
        assert bool(field.mark) == bool(field.words), name  # an unusual field is named everywhere or nowhere
    keywords = {name for name, field in FIELDS.items() if field.panel}
    assert set(get_type_hints(TaskOptions)) == {*keywords, *RUN_FIELDS, "objective"}
    for call in (lrwd_sweep.sweep, lrwd_sweep.tpe, lrwd_sweep.compare):
        assert signature(call).parameters.keys() >= {*REQUEST_FIELDS, "preset"}
    options = {"beta1" if name == "betas" else name for name in signature(grid).parameters}
    assert options >= {*REQUEST_FIELDS, *keywords, *RUN_FIELDS} - {"beta2"}
    path = tmp_path / "all.toml"
    values = {name: FIELDS[name].default for name in keywords if FIELDS[name].in_presets}
    text = {name: repr(str(v)) if isinstance(v, str) else str(v).lower() for name, v in values.items()}
    path.write_text("[training]\n" + "".join(f"{n} = {v}\n" for n, v in text.items() if v != "none"))
    assert read_preset(path).task == Task()
    preset = find_preset(DEFAULT)
    assert (preset.task, preset.seeds, preset.metric) == (Task(), 5, "val_loss")
    assert all({*family.hyperparameters} <= {*FIELDS} for family in Family)


def test_an_argument_in_a_message_is_an_option_or_a_keyword() -> None:
    for asked, option, keyword in (
        (arg("batch_size", 1), "--batch-size 1", "batch_size=1"),
        *((arg("weight_decay"), "--wd", "weight_decay"), (arg("beta2"), "--betas", "beta2")),
        (arg("decay_all", False), "--no-decay-norm-bias", "decay_all=False"),
        (arg("download", True), "--download", "download=True"),
        (arg("study_name", " "), "--study-name ' '", "study_name=' '"),
        (arg("net", "./my.py:Net"), "--net ./my.py:Net", "net='./my.py:Net'"),
    ):
        error = SpecMismatch(f"a -- {asked}; {asked}")
        assert error.spelled(option_text) == f"a -- {option}; {option}"
        assert str(error) == f"a -- {keyword}; {keyword}"
        assert str(UsageError(f"file: {error.text}")) == f"file: {error}"
    assert all(option_text(name).startswith("--") for name in ALL_FIELDS)


IMPOSSIBLE: Any = [  # one of a kind: number, range, truth, name, text
    ({"epochs": True}, "epochs=True is not a whole number"),
    ({"batch_size": 401}, "batch_size=401 is larger than the training set of digits (400); choose at most"),
    ({"warmup": 60}, "warmup=60 leaves nothing of epochs=60; choose less than 60"),
    ({"eta_min": 1.0}, "eta_min=1.0 is out of range; choose at least 0 and below 1"),
    ({"eta_min": None}, "eta_min=None is out of range"),
    ({"nesterov": "yes"}, "nesterov='yes' is neither true nor false"),
    ({"precision": "bfloat"}, "unknown precision 'bfloat'; did you mean bfloat16 or float32?"),
    ({"net": "resnet18"}, "unknown network 'resnet18'; did you mean torchvision:resnet18?"),
    *(({"net": 3}, "net=3 is not text"), ({"momentum": float("nan")}, "momentum=nan is out of range")),
    ({"no_decay": "("}, "no_decay='(' is not a regular expression"),
    ({"sam_adaptive": True}, "sam_adaptive=True has no effect without SAM; add sam=0.5"),
    ({"swa": 60}, "swa=60 leaves 1 of 60 epochs to average; choose at most 59"),
    ({"swa": 9.5}, "swa=9.5 is neither a share of the run below 1 nor a whole epoch"),
    ({"swa": 29, "schedule": "restarts"}, "swa=29 leaves 1 of 4 snapshots of restarts to average; choose at"),
    ({"ema": 0.0}, "ema=0 keeps nothing but the last weights; choose more than 0 epochs"),
    ({"ensemble": 5, "schedule": "restarts"}, "ensemble=5: the run has 4 snapshots of restarts; choose"),
]


def test_impossible_values_and_fields_that_no_optimizer_or_schedule_uses_are_refused() -> None:
    for values, complaint in IMPOSSIBLE:
        assert_raises(re.escape(complaint), Task, **values)

    def use(names: str, *schedules: str, **asked: Any) -> None:
        refuse_unused(asked, [Optimizer.parse(name) for name in names.split()], schedules or ["cosine"])

    assert_raises("^nesterov has no effect on adam; it is for sgd, sgdp, adamp", use, "adam", nesterov=True)
    assert_raises("^momentum has no effect on adam; it is for sgd, rmsprop", use, "adam adamw", momentum=0.5)
    assert_raises("^beta1 has no effect on sgd; it is for adam, amsgrad, adamp", use, "sgdw", beta1=0.5)
    assert_raises("^t_0 has no effect on schedule cosine; add schedule='restarts'", use, "sgdw", t_0=5)
    use("sgd adam", nesterov=True, eps=1e-6, epochs=5)  # one user is enough
    use("rmsprop", beta1=0.5, beta2=0.5)
    use("sgd", "cosine", "restarts", t_0=5)


def test_a_task_has_its_familys_hyperparameters_and_counts_the_steps_of_the_last_whole_cycle() -> None:
    for name, task, found in (
        ("sgdw", Task(), (0.9, 0.9, 0.999, 1e-8)),
        ("rmsprop", Task(), (0.0, 0.9, 0.99, 1e-8)),
        ("adagradw", Task(), (0.9, 0.9, 0.999, 1e-10)),
        ("adamp", Task(beta2=0.95, momentum=0.5), (0.9, 0.9, 0.95, 1e-8)),
    ):
        t = task.of(Optimizer.parse(name))
        assert (t.momentum, t.beta1, t.beta2, t.eps) == found, name
    restarts = Task(schedule=Schedule.RESTARTS)
    assert (Task().decay_steps, restarts.decay_steps) == (360, 32 * 6)
    assert restarts.timetable.snapshots == (4, 12, 28, 60)
    assert restarts.changed(epochs=50, t_0=4).decay_steps == 16 * 6
    assert restarts.changed(epochs=50, t_0=60).decay_steps == 60 * 6  # no whole cycle: the one it is in


NAMES = st.from_regex(r"\A[a-z_][a-z0-9_]{0,8}\Z")
PLAIN = st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()


@given(st.dictionaries(NAMES, PLAIN | st.lists(PLAIN, max_size=3), min_size=1, max_size=3))
def test_options_are_read_back_as_they_are_said(options: dict[str, Any]) -> None:
    stored = options_text(options)
    assert parse_options(said_options(stored)) == json.loads(stored) == options


def test_options_outweigh_those_of_a_preset_one_by_one_and_bad_ones_are_refused() -> None:
    task = Task(net="./my.py:Net", net_options=options_text({"width": 3, "act": "relu"}))
    (name, text), *_ = Request.of(net_options="width=8").overrides
    assert json.loads(task.changed(**{name: text}).net_options) == {"width": 8, "act": "relu"}
    assert task.changed(net="./my.py:Other", net_options=text).net_options == text == '{"width": 8}'
    for text in ("width", "width=", "=3", ""):
        assert_raises("is not options; write layers=2,width=32, or JSON", parse_options, text)
    assert_raises("is not JSON", parse_options, "{width: 3}")
    for net, options, complaint in (
        ("cnn", "width=3", "'width=3' has no effect on cnn; it is for mlp-norm, mlp, embed-norm, gpt"),
        ("embed-norm", "scale=0.5", "net_options='scale=0.5' is not a whole number from 1 to"),
        ("mlp", "width=0", "net_options='width=0' is not a whole number from 1 to"),
        ("gpt", "widht=3", "unknown option of gpt 'widht'; did you mean width?"),
        ("gpt", "layers=true", "net_options='layers=true' is not a whole number"),
        ("gpt", "tie=1", "net_options='tie=1' is neither true nor false"),
        ("gpt", "width=30,heads=4", "makes 4 heads of width 30, which does not divide"),
    ):
        assert_raises(re.escape(complaint), complete_options, net, options_text(parse_options(options)))
