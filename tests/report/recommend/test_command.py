"""A printed command trains the study that it was printed for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from lrwd_sweep.report.recommend.command import axis_text, command, compare_command, report_command
from lrwd_sweep.science.lattice import Lattice, parse_axis
from lrwd_sweep.science.optimizer import MomentumForm, Optimizer, optimizer_names
from lrwd_sweep.science.schedule import Schedule
from lrwd_sweep.spec.catalog import AUGMENTATIONS, DATA_SETS, NETWORKS, PRECISIONS, DataSet
from lrwd_sweep.spec.preset import DEFAULT, Variant, find_preset
from lrwd_sweep.spec.request import Request
from lrwd_sweep.spec.study import Kind, StudySpec
from lrwd_sweep.spec.task import Task
from tests.command_line import understood

axes = st.lists(st.floats(1e-9, 1e3), min_size=2, max_size=6, unique_by=lambda v: f"{v:.12g}").map(tuple)
ranges = st.sampled_from(["2^-9:2^1", "1e-4:1e-1:9", "2^-3:2^-2:5", "0.1,0.3,0.5"]).map(
    lambda text: parse_axis(text, "lr")
)
decays = st.builds(lambda zero, axis: (0.0,) * zero + axis, st.booleans(), axes | ranges)
shares = st.none() | st.floats(0, 0.999)


def task(*, epochs: int, warmup: int, **others: Any) -> Task:
    """Return a task whose warm-up is shorter than the run."""
    return Task(epochs=epochs, warmup=warmup % epochs, **others)


tasks = st.builds(
    task,
    net=st.sampled_from([name.replace("NAME", "resnet18") for name in sorted(NETWORKS)]),
    data=st.sampled_from(sorted(DATA_SETS)),
    augment=st.sampled_from(sorted(AUGMENTATIONS)),
    epochs=st.integers(1, 2000),
    batch_size=st.integers(2, 400),
    schedule=st.sampled_from(Schedule),
    warmup=st.integers(0, 5),
    t_0=st.none() | st.integers(1, 50),
    t_mult=st.integers(1, 3),
    eta_min=st.floats(0, 0.999),
    momentum=shares,
    nesterov=st.booleans(),
    momentum_form=st.sampled_from(MomentumForm),
    beta1=shares.filter(lambda beta: beta != 0),  # schedule-free has none of 0
    beta2=shares,
    eps=st.none() | st.floats(0, 1),
    decay_all=st.booleans(),
    precision=st.sampled_from(sorted(PRECISIONS)),
)
names = st.builds("{}{}".format, st.sampled_from(optimizer_names()), st.sampled_from(["", ":normalized"]))
specs = st.builds(
    StudySpec,
    st.sampled_from([Kind.GRID, Kind.TPE]),
    names.map(Optimizer.parse),
    st.builds(Lattice, axes | ranges, decays),
    st.integers(1, 9).map(lambda count: tuple(range(count))),
    st.sampled_from(sorted(Task().metrics)),
    tasks,
    given_cap=st.none() | st.floats(allow_nan=False, allow_infinity=False),
)
printable = st.text(min_size=1).filter(lambda text: text.isprintable() and bool(text.strip()))


def default(optimizer: str = "adamw") -> StudySpec:
    """Return the study of `grid --optimizer` without other options."""
    preset, variant = find_preset(DEFAULT), Variant.named(optimizer)
    seeds, task = tuple(range(preset.seeds)), preset.task.changed(**variant.task)
    chosen = variant.optimizer
    return StudySpec(Kind.GRID, chosen, preset.lattice(chosen), seeds, preset.metric, task)


@settings(max_examples=30)
@given(specs, st.none() | printable, st.none() | printable)
def test_command_is_read_as_the_same_study(spec: StudySpec, name: str | None, storage: str | None) -> None:
    words = command(spec, name or spec.default_name, storage, points=12)
    assert words is not None
    found = understood(" ".join(words))
    assert (found.spec, found.name, found.storage) == (spec, name or spec.default_name, storage)
    assert found.points == (12 if spec.kind is Kind.TPE else 0)


def test_command_has_only_what_differs_from_the_preset_and_the_optimizer() -> None:
    for name in optimizer_names():
        assert command(default(name), default(name).default_name) == (
            "lrwd-sweep grid",
            f"--optimizer {name}",
        )
    for name, own, words in (
        ("sgd", Task(momentum=0.9, nesterov=True), ("--nesterov",)),
        ("rmsprop", Task(momentum=0.5, eps=1e-8), ("--momentum 0.5",)),
        ("rmsprop", Task(beta2=0.9), ("--betas 0.9,0.9",)),
        ("adam", Task(beta1=0.8, eps=1e-6), ("--betas 0.8,0.999", "--eps 1e-06")),
        ("adamp", Task(momentum=0.5, decay_all=False), ("--no-decay-norm-bias",)),
        ("adam", Task(no_decay="cls_token|pos", undecayed=("x",)), ("--no-decay 'cls_token|pos'",)),
        ("adam", Task(precision="bfloat16"), ("--precision bfloat16",)),
    ):
        spec = replace(default(name), task=own)
        assert command(spec, spec.default_name) == ("lrwd-sweep grid", f"--optimizer {name}", *words)
    for name in ("adamwr", "sgdwr", "rmspropwr"):  # schedule and normalized decay
        plain = default(f"{name.removesuffix('r')}:normalized")
        assert plain.task is not None
        spec = replace(plain, task=plain.task.changed(schedule=Schedule.RESTARTS))
        assert command(spec, spec.default_name) == ("lrwd-sweep grid", f"--optimizer {name}")


def test_name_means_nothing_to_the_shell_and_an_untypeable_one_has_no_command() -> None:
    for name in ("$(reboot)", "a; b", "it's", "-x", "--lr", "~", "*"):
        words = command(default(), name, name)
        assert words is not None
        found = understood(" ".join(words))
        assert (found.name, found.storage) == (name, name)
        spec = replace(default(), task=Task(data="cifar10"))
        words = command(spec, spec.default_name, data_dir=name)
        assert words is not None
        assert understood(" ".join(words)).data_dir == name
    for spec, name in (
        (replace(default(), task=None, kind=Kind.IMPORT), "mine"),
        (replace(default(), task=Task(sizes=DataSet(300, 9, 9, 10, (1, 8, 8)))), "mine"),
        (default(), "a\x1b[31m"),
        (default(), "a\nlrwd-sweep study delete x"),
    ):
        assert command(spec, name) is None
        assert spec.task is None or name == "mine" or report_command(name, "val_error", None) == ()
    words = ("lrwd-sweep report 'a b'", "--metric val_error", "--storage s.db")
    assert report_command("a b", "val_error", "s.db") == words


@given(decays)
def test_axis_is_read_back(axis: tuple[float, ...]) -> None:
    lattice = Lattice((1.0,), axis)
    assert parse_axis(axis_text(lattice.weight_decay), "wd") == lattice.weight_decay
    text = "0,0.001,0.01:0.9:9,2.5,6"  # a range stays a range with values beside it
    assert axis_text(parse_axis(text, "wd")) == text


def test_studies_that_differ_only_in_their_optimizer_are_compared_by_one_command() -> None:
    lattice = Lattice((0.1, 0.2), (0.25, 0.5))
    specs = [replace(default(name), lattice=lattice, given_cap=2.5) for name in ("sgd", "sgdw")]
    found = compare_command({spec.default_name: spec for spec in specs}, "my store.db", "data")
    assert found is not None
    assert " ".join(found) == (
        "lrwd-sweep compare sgd sgdw --lr 0.1,0.2 --wd 2^-2,2^-1 --cap 2.5 --data-dir data "
        "--storage 'my store.db'"
    )
    adam, adamw = default("adam"), default("adamw")
    both = {spec.default_name: spec for spec in (adam, adamw)}
    assert compare_command(both) == ("lrwd-sweep compare adam adamw",)
    preset = Request.of("fig2-mini").compared(())
    assert compare_command(preset) == ("lrwd-sweep compare --preset fig2-mini",)
    assert compare_command({adam.default_name: adam}) is None
    longer, search = replace(adamw, seeds=tuple(range(9))), replace(adamw, kind=Kind.TPE)
    for other, name in ((longer, longer.default_name), (adamw, "mine"), (search, search.default_name)):
        assert compare_command({adam.default_name: adam, name: other}) is None
