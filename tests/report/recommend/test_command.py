"""A printed command trains the study that it was printed for."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from lrwd_sweep.report.recommend.command import axis_text, command, compare_command, report_command
from lrwd_sweep.science.lattice import Lattice, parse_axis
from lrwd_sweep.science.optimizer import optimizer_names
from lrwd_sweep.science.schedule import Schedule
from lrwd_sweep.spec.catalog import DataSet
from lrwd_sweep.spec.preset import DEFAULT, Variant, find_preset
from lrwd_sweep.spec.request import Request
from lrwd_sweep.spec.study import Kind, StudySpec
from lrwd_sweep.spec.task import Task
from tests.command_line import understood
from tests.report.view.examples import known
from tests.specs import ours, trainings

axes = st.lists(st.floats(1e-9, 1e3), min_size=2, max_size=6, unique_by=lambda v: f"{v:.12g}").map(tuple)
texts = st.sampled_from(["2^-9:2^1", "1e-4:1e-1:9", "2^-3:2^-2:5", "0.1,0.3,0.5"])
ranges = texts.map(lambda text: parse_axis(text, "lr"))
decays = st.builds(lambda zero, axis: (0.0,) * zero + axis, st.booleans(), axes | ranges)
lattices = st.builds(Lattice, axes | ranges, decays)
counts = st.integers(1, 9).map(lambda count: tuple(range(count)))
specs = st.builds(replace, ours, lattice=lattices, seeds=counts, task=trainings)
printable = st.text(min_size=1).filter(lambda text: text.isprintable() and bool(text.strip()))


def default(optimizer: str = "adamw") -> StudySpec:
    """Return the study of `grid --optimizer` without other options."""
    preset, variant = find_preset(DEFAULT), Variant.named(optimizer)
    lattice, task = preset.lattice(variant.optimizer), preset.task.changed(**variant.task)
    return StudySpec(Kind.GRID, variant.optimizer, lattice, tuple(range(preset.seeds)), preset.metric, task)


@given(specs, st.none() | printable, st.none() | printable)
def test_command_is_read_as_the_same_study(spec: StudySpec, name: str | None, storage: str | None) -> None:
    found = understood(" ".join(known(command(spec, name or spec.default_name, storage, points=12))))
    assert (found.spec, found.name, found.storage) == (spec, name or spec.default_name, storage)
    assert found.points == (12 if spec.kind is Kind.TPE else 0)
    assert parse_axis(axis_text(spec.lattice.weight_decay), "wd") == spec.lattice.weight_decay


def test_command_has_only_what_differs_from_the_preset_and_the_optimizer() -> None:
    for name in optimizer_names():
        words = ("lrwd-sweep grid", f"--optimizer {name}")
        assert command(default(name), default(name).default_name) == words
    for name, own, more in (
        ("sgd", Task(momentum=0.9, nesterov=True), "--nesterov"),
        ("rmsprop", Task(momentum=0.5, eps=1e-8), "--momentum 0.5"),
        ("rmsprop", Task(beta2=0.9), "--betas 0.9,0.9"),
        ("adam", Task(beta1=0.8, eps=1e-6), "--betas 0.8,0.999 --eps 1e-06"),
        ("adamp", Task(momentum=0.5, decay_all=False), "--no-decay-norm-bias"),
        ("adam", Task(no_decay="cls_token|pos", undecayed=("x",)), "--no-decay 'cls_token|pos'"),
        ("adam", Task(precision="bfloat16", warmup=5), "--warmup 5 --precision bfloat16"),
        ("adamw", Task(schedule=Schedule.RESTARTS, t_mult=3), "--schedule restarts --tmult 3"),
        ("adam", Task(data="cifar10", augment="crop-flip"), "--data cifar10 --augment crop-flip"),
    ):
        spec = replace(default(name), task=own)
        found = " ".join(known(command(spec, spec.default_name)))
        assert found == f"lrwd-sweep grid --optimizer {name} {more}"
    for name in ("adamwr", "sgdwr", "rmspropwr"):  # schedule and normalized decay
        plain = default(f"{name.removesuffix('r')}:normalized")
        spec = replace(plain, task=known(plain.task).changed(schedule=Schedule.RESTARTS))
        assert command(spec, spec.default_name) == ("lrwd-sweep grid", f"--optimizer {name}")
    text = "0,0.001,0.01:0.9:9,2.5,6"  # a range stays a range with values beside it
    assert axis_text(parse_axis(text, "wd")) == text


def test_name_means_nothing_to_the_shell_and_an_untypeable_one_has_no_command() -> None:
    for name in ("$(reboot)", "a; b", "it's", "-x", "--lr", "~", "*"):
        words = command(replace(default(), task=Task(data="cifar10")), name, name, data_dir=name)
        found = understood(" ".join(known(words)))
        assert (found.name, found.storage, found.data_dir) == (name, name, name)
    for spec, name in (
        (replace(default(), task=None, kind=Kind.IMPORT), "mine"),
        (replace(default(), task=Task(sizes=DataSet(300, 9, 9, 10, (1, 8, 8)))), "mine"),
        (default(), "a\x1b[31m"),
        (default(), "a\nlrwd-sweep study delete x"),
    ):
        assert command(spec, name) is None
        assert name == "mine" or report_command(name, "val_error", None) == ()
    report = report_command("a b", "val_error", "s.db")
    assert report == ("lrwd-sweep report 'a b'", "--metric val_error", "--storage s.db")


def test_studies_that_differ_only_in_their_optimizer_are_compared_by_one_command() -> None:
    lattice = Lattice((0.1, 0.2), (0.25, 0.5))
    specs = [replace(default(name), lattice=lattice, given_cap=2.5) for name in ("sgd", "sgdw")]
    found = compare_command({spec.default_name: spec for spec in specs}, "my store.db", "data")
    words = "lrwd-sweep compare sgd sgdw --lr 0.1,0.2 --wd 2^-2,2^-1 --cap 2.5 --data-dir data"
    assert " ".join(known(found)) == f"{words} --storage 'my store.db'"
    adam, adamw = default("adam"), default("adamw")
    both = {spec.default_name: spec for spec in (adam, adamw)}
    assert compare_command(both) == ("lrwd-sweep compare adam adamw",)
    preset = Request.of("fig2-mini").compared(())
    assert compare_command(preset) == ("lrwd-sweep compare --preset fig2-mini",)
    assert compare_command({adam.default_name: adam}) is None
    longer, search = replace(adamw, seeds=tuple(range(9))), replace(adamw, kind=Kind.TPE)
    for other, name in ((longer, longer.default_name), (adamw, "mine"), (search, search.default_name)):
        assert compare_command({adam.default_name: adam, name: other}) is None
