"""Presets: the package's are complete, and a faulty file is refused in one line."""

from __future__ import annotations

import math
import re
import tomllib
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrwd_sweep.errors import UsageError
from lrwd_sweep.science.lattice import Lattice, parse_axis
from lrwd_sweep.science.optimizer import Optimizer, optimizer_names
from lrwd_sweep.spec.preset import (
    DEFAULT,
    FOLDER,
    PICTURES,
    Preset,
    default_lattice,
    find_preset,
    preset_names,
    read_preset,
)
from lrwd_sweep.spec.request import Request
from lrwd_sweep.spec.study import StudySpec
from lrwd_sweep.spec.task import Task

PROJECT = Path(__file__).parents[2]
MINIS = [name for name in preset_names() if name.endswith("-mini")]
PAPERS = [name for name in preset_names() if name.startswith("fig") and name not in MINIS]
MOST_LANE_STEPS = 900_000  # of a -mini: minutes


def task(spec: StudySpec) -> Task:
    """Return a study's task."""
    assert spec.task is not None
    return spec.task


def studies(name: str) -> list[StudySpec]:
    """Return what `compare --preset NAME` trains."""
    request = Request.of(name)
    return [request.spec(variant) for variant in request.variants(())]


def read(tmp_path: Path, text: str) -> Preset:
    """Read a preset from a file of this text."""
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return read_preset(path)


def refusal(tmp_path: Path, text: str) -> str:
    """Return the line that refuses a preset file of this text."""
    with pytest.raises(UsageError) as caught:
        read(tmp_path, text)
    line = str(caught.value)
    assert line.startswith(f"preset '{tmp_path / 'mine.toml'}'")
    assert "\n" not in line
    return line


def test_every_preset_is_complete() -> None:
    for name in preset_names():
        preset, specs = find_preset(name), studies(name)
        assert preset.name == name
        assert preset.about, name
        assert len({spec.default_name for spec in specs}) == len(specs) > 0, name
        assert set(preset.show) <= set(PICTURES), name
        if name != DEFAULT:
            assert re.match(r".+ of (Loshchilov & Hutter|Heo et al\.), ", preset.restates), name
            assert preset.claim.endswith("."), name


def test_every_figure_of_the_paper_is_there_at_its_own_scale_and_as_a_mini() -> None:
    figures = [f"fig{k}" for k in (1, 2, 3, 4, "s1", "s2", "s3", "s4", "s5", "s6")]
    assert sorted([*figures, "fig4-imagenet", "figs3-imagenet"]) == PAPERS
    assert sorted(f"{name}-mini" for name in figures) == MINIS


def test_a_mini_is_the_same_question_on_the_digits_in_minutes_with_the_ratios_of_its_budgets() -> None:
    for name in MINIS:
        specs, own = studies(name), studies(name.removesuffix("-mini"))
        assert {task(spec).data for spec in specs} == {"digits"}
        assert sum(len(s.lattice) * len(s.seeds) * task(s).steps for s in specs) <= MOST_LANE_STEPS, name
        assert [(s.title, task(s).schedule) for s in specs] == [(s.title, task(s).schedule) for s in own]
        assert {len(spec.seeds) for spec in specs} == {3}
        if name in ("figs4-mini", "figs6-mini"):  # of ImageNet32: budgets of their own
            continue
        scales = {Fraction(task(few).epochs, task(many).epochs) for few, many in zip(specs, own, strict=True)}
        scale = Fraction(2, 5) if name in ("fig4-mini", "figs5-mini") else Fraction(3, 5)
        assert scales == {scale}, name
        for few, many in zip(map(task, specs), map(task, own), strict=True):
            assert few.timetable.t_mult == many.timetable.t_mult, name
            assert few.t_0 == (None if many.t_0 is None else scale * many.t_0), name


def test_the_default_preset_has_axes_for_every_optimizer() -> None:
    preset, names = find_preset(DEFAULT), optimizer_names()
    for name in (*names, *(f"{name}:normalized" for name in names), "sgdwr", "adamwr"):
        lattice = preset.lattice(Optimizer.parse(name))
        assert (len(lattice.lr), len(lattice.weight_decay)) == (11, 11), name
        assert lattice.lr[0] * 2**10 == lattice.lr[-1], name


def test_an_empty_preset_is_the_default_task(tmp_path: Path) -> None:
    preset = read(tmp_path, "")
    assert (preset.name, preset.task, preset.seeds, preset.metric) == ("mine", Task(), 3, "val_loss")
    with pytest.raises(UsageError, match=r"no axes for adamw; give lr and weight_decay$"):
        preset.lattice(Optimizer.parse("adamw"))


def test_axes_are_found_by_any_spelling_of_their_optimizer(tmp_path: Path) -> None:
    text = '[axes."adamw:independent"]\nlr = "1e-3,1e-2"\nwd = "0,0.1,0.2"\n'
    lattice = read(tmp_path, text).lattice(Optimizer.parse("adamw"))
    assert (lattice.lr, lattice.weight_decay) == ((0.001, 0.01), (0.0, 0.1, 0.2))


MINE = '[training]\nnet = "./nets/mine.py:Net"\ndata = "mine.data:load"\n'


WRONG = (
    ("variant = []", "unknown key 'variant'; did you mean variants?"),
    ("[training]\nlearning_rate = 1", "unknown key of [training] 'learning_rate'; known: "),
    ("[training]\nbatchsize = 1", "unknown key of [training] 'batchsize'; did you mean batch_size?"),
    ("[study]\nseed = 1", "unknown key of [study] 'seed'; did you mean seeds?"),
    (
        "[axes.adam]\nlr = '1,2'\nwd = '1,2'\nweight_decay = '1,2'",
        "unknown key of [axes.adam] 'weight_dec",
    ),
    (
        "[axes.adamm]\nlr = '1,2'\nwd = '1,2'",
        "unknown optimizer 'adamm'; did you mean adam, adamw or adamp?",
    ),
    ("variants = ['adamm']", "unknown optimizer 'adamm'; did you mean adam, adamw or adamp?"),
    ("show = ['curve']", "unknown picture 'curve'; did you mean curves?"),
    ("like = 'digist'", "unknown preset 'digist'; did you mean digits?"),
    (
        "[[variants]]\noptimizer = 'adam'\nepoch = 3",
        "unknown key of a variant 'epoch'; did you mean epochs",
    ),
    ("[training]\nnet = 'mpl'", "unknown network 'mpl'; did you mean mlp"),
    ("[study]\nmetric = 'val_los'", "unknown metric 'val_los'; did you mean val_loss"),
    ("about = 3", "about 3 is not text"),
    (
        "variants = 'adam'",
        """variants 'adam' is not a list; write ["adam", "adamw"] or [[variants]]""",
    ),
    ("variants = [3]", "variant 3 names no optimizer; write optimizer ="),
    ("[[variants]]\nlr = '1,2'", "variant {'lr': '1,2'} names no optimizer"),
    ("[[variants]]\noptimizer = 'adam'\nlr = 0.1", "lr 0.1 is not text"),
    ("[[variants]]\noptimizer = 'adam'\nlr = '0'", "lr = '0' is not a positive number"),
    ("[[variants]]\noptimizer = 'adam'\nepochs = [60, 0]", "epochs = 0 is not a whole number"),
    ("show = 'curves'", """show 'curves' is not a list of pictures; write show = ["heatmap"]"""),
    ("show = [3]", "unknown picture '3'"),
    ("like = 3", "like 3 is not text"),
    ("like = 'digits'\naxes = 3", "'axes' is not a table"),
    ("training = 3", "'training' is not a table; write [training]"),
    ("[axes]\nadam = 3", "'adam' is not a table; write [axes.adam]"),
    ("[axes.adam]\nlr = '1,2'", "[axes.adam] needs wd as text"),
    ("[axes.adam]\nlr = 0.1\nwd = '1,2'", "[axes.adam] needs lr as text"),
    (
        "[axes.adamw]\nlr = '1,2'\nwd = '1,2'\n[axes.'adamw:independent']\nlr = '1,2'\nwd = '1,2'",
        "[axes.adamw:independent] is adamw again",
    ),
    ("[training]\nschedule = {}", "schedule = {} is not text"),
    ("[training]\nmomentum = 1.0", "momentum = 1.0 is out of range"),
    ("[study]\nseeds = 0", "seeds 0 is not a whole number"),
    ("[study]\nseeds = 1000000000000", "is not a whole number from 1 to"),
    ("[study]\nmetric = []", "metric [] is not text"),
    ("about = ", "is not TOML"),
    (f"about = {'[' * 5000}", "is not TOML"),
    ('[training]\nnet = "mlp"\n[net.options]\nwidth = 3', "[net.options] has no effect on mlp"),
    (f"{MINE}[net]\noptions = 3", "'net.options' is not a table; write [net.options]"),
    (f"{MINE}[net]\noption = {{}}", "unknown key of [net] 'option'; did you mean options?"),
    (f"{MINE}[net.options]\nsince = 2020-01-01", "give text, numbers, true or false, lists and tables"),
    (f"{MINE}net_options = {{}}", "unknown key of [training] 'net_options'"),
    (f'{MINE}engine = "vmap"', "unknown key of [training] 'engine'"),
    ('[training]\nnet = "./mine.py"', "write package.module:NAME or ./file.py:NAME"),
)


def test_a_wrong_key_or_value_is_one_line_with_the_remedy(tmp_path: Path) -> None:
    for text, part in WRONG:
        assert part in refusal(tmp_path, text), text


def test_lists_in_a_variant_are_multiplied_and_other_values_are_kept(tmp_path: Path) -> None:
    preset = read(tmp_path, '[[variants]]\nschedule = ["fixed", "cosine"]\noptimizer = ["adam", "adamw"]\n')
    found = [(str(variant.optimizer), variant.task["schedule"]) for variant in preset.variants]
    assert found == [("adam", "fixed"), ("adamw", "fixed"), ("adam", "cosine"), ("adamw", "cosine")]
    text = '[[variants]]\noptimizer = "adam"\nlr = "0.001"\nwd = ["0", "0.1"]\n'
    assert [(v.lr, v.wd) for v in read(tmp_path, text).variants] == [((0.001,), (0.0,)), ((0.001,), (0.1,))]
    assert read(tmp_path, 'show = ["effective-lr", "norm"]').show == ("effective_lr", "norm")
    own = read(tmp_path, MINE + '[net.options]\nwidth = 3\nact = "relu"\n').task
    assert own.net_options == '{"act": "relu", "width": 3}'
    assert own.sizes is None  # nothing is imported to read a preset


def test_a_preset_overrides_what_it_is_like(tmp_path: Path) -> None:
    changes = '[training]\nbatch_size = 32\n[axes.sgd]\nlr = "1,2"\nwd = "1,2"\n'
    text = f'like = "fig1-mini"\nclaim = "none"\n{changes}'
    mine, base = read(tmp_path, text), find_preset("fig1-mini")
    assert (mine.name, mine.claim, mine.about) == ("mine", "none", base.about)
    assert mine.task == base.task.changed(batch_size=32)
    assert mine.axes["sgd"].lr == (1.0, 2.0)
    assert {**mine.axes, "sgd": None} == {**base.axes, "sgd": None}
    assert mine.variants == base.variants


def test_a_preset_that_trains_what_another_does_shares_its_studies(tmp_path: Path) -> None:
    for text, owner in (
        ("", "mine"),
        ('like = "fig3-mini"\nabout = "the same"\nshow = ["scatter"]', "fig3-mini"),
        ('like = "figs4-mini"\n[study]\nseeds = 5', "fig3-mini"),
        ('like = "digits"\nshow = ["norm"]', "digits"),
        ('like = "fig3-mini"\n[training]\nepochs = 5', "mine"),
        ('like = "fig3-mini"\nvariants = ["adam", "adamw"]', "mine"),
    ):
        assert read(tmp_path, text).owner == owner, text


def test_the_build_includes_the_presets() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))
    included = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    assert included == {"presets": "lrwd_sweep/presets"}
    assert (PROJECT / "presets").resolve() == FOLDER.resolve()


LR, WD = parse_axis("2^-11:2^-1", "lr"), parse_axis("0,2^-9:2^1", "wd")  # the middle of LR is 2^-6
STEPS = 360  # √360 = 19: 2^4 is the nearest power of two


def kin_axes(optimizer: str, own: str = "adamw", steps: int = STEPS) -> Lattice | None:
    """Return the lattice of `optimizer` if only `own` has axes."""
    axes = {str(Optimizer.parse(own)): Lattice(LR, WD)}
    return default_lattice(axes, Optimizer.parse(optimizer), steps)


def test_an_optimizer_takes_its_own_axes_or_those_of_its_kin_by_whole_octaves() -> None:
    axes = {"adamw": Lattice(LR, WD), "amsgradw": Lattice((0.5, 1.0), (0.25, 0.5))}
    assert default_lattice(axes, Optimizer.parse("amsgradw"), STEPS) == axes["amsgradw"]
    for optimizer, own, octaves in (
        *(("adamw:fixed", "adamw", 0), ("adamw:corrected", "adamw:lr-scaled", 0), ("amsgrad", "adam", 0)),
        *(("amsgradw:fixed", "adamw", 0), ("rmspropw", "adamw", 0), ("adamp", "adamw:lr-scaled", 0)),
        *(("sgdp", "sgdw:lr-scaled", 0), ("sgdpw", "sgdw", 0)),
        *(("adamw:lr-scaled", "adamw", 6), ("adamw", "adamw:lr-scaled", -6)),  # w = λ/α
        *(("adamp", "adamw", 6), ("adamwr", "adamw", 4)),
        *(("adamw:normalized", "adamw", 4), ("sgd:normalized", "sgd", 4)),  # λ_norm = λ√N
        ("adamw:corrected:normalized", "adamw", 10),
    ):
        assert kin_axes(optimizer, own) == Lattice(LR, tuple(value * 2.0**octaves for value in WD)), optimizer


def test_unrelated_and_foreign_optimizers_have_no_axes() -> None:
    for optimizer, own in (("adagradw", "adamw"), ("adam", "adamw"), ("sgd", "sgdw"), ("adamw", "adam")):
        assert kin_axes(optimizer, own) is None, optimizer
    foreign = Optimizer(None, Optimizer.parse("adamw").rule, "lion")
    assert default_lattice({"adamw": Lattice(LR, WD)}, foreign, STEPS) is None


@given(st.integers(1, 10**7))
def test_normalised_axes_are_those_of_the_steps_to_half_an_octave(steps: int) -> None:
    lattice = kin_axes("adamw:normalized", steps=steps)
    assert lattice is not None
    assert abs(math.log2(lattice.weight_decay[-1] / WD[-1] / math.sqrt(steps))) <= 0.5 + 1e-9
