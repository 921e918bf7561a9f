"""Presets: complete, with the numbers of the papers' experiments, and refused in one line if faulty."""

import re
from fractions import Fraction
from pathlib import Path
from typing import Any

from lrwd_sweep.science.lattice import Lattice, parse_axis
from lrwd_sweep.science.optimizer import Optimizer, optimizer_names
from lrwd_sweep.science.schedule import Schedule
from lrwd_sweep.spec import preset as presets
from lrwd_sweep.spec.preset import DEFAULT, Preset, default_lattice, find_preset, preset_names
from lrwd_sweep.spec.request import Request
from lrwd_sweep.spec.task import Task
from tests.refusal import assert_raises

MINIS = [name for name in preset_names() if name.startswith("fig") and name.endswith("-mini")]
PAPERS = [name for name in preset_names() if name.startswith("fig") and name not in MINIS]
MINE = '[training]\nnet = "./nets/mine.py:Net"\ndata = "mine.data:load"\n'
MOST_LANE_STEPS = 900_000  # of a -mini: minutes


def studies(name: str) -> list[Any]:
    request = Request.of(name)
    return [request.spec(variant) for variant in request.variants(())]


def read(tmp_path: Path, text: str) -> Preset:
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return presets.read_preset(path)


def test_every_preset_is_complete_and_every_figure_is_there_at_its_scale_and_as_a_mini_in_minutes() -> None:
    for name in preset_names():
        preset, specs = find_preset(name), studies(name)
        assert (preset.name, preset.about > "") == (name, True)
        assert len({spec.default_name for spec in specs}) == len(specs) > 0, name
        assert set(preset.show) <= set(presets.PICTURES), name
        if name not in (DEFAULT, "lm-mini"):
            assert re.match(r".+ of (Loshchilov & Hutter|(Heo|Zhang) et al\.), ", preset.restates), name
            assert preset.claim.endswith("."), name
    figures = [f"fig{k}" for k in (1, 2, 3, 4, "s1", "s2", "s3", "s4", "s5", "s6")]
    assert sorted([*figures, "fig4-imagenet", "figs3-imagenet"]) == PAPERS
    assert sorted(f"{name}-mini" for name in figures) == MINIS
    for name in MINIS:
        specs, own = studies(name), studies(name.removesuffix("-mini"))
        assert {(spec.task.data, len(spec.seeds)) for spec in specs} == {("digits", 3)}, name
        assert sum(len(s.lattice) * 3 * s.task.steps for s in specs) <= MOST_LANE_STEPS, name
        assert [(s.title, s.task.schedule) for s in specs] == [(s.title, s.task.schedule) for s in own]
        if name in ("figs4-mini", "figs6-mini"):  # of ImageNet32: budgets of their own
            continue
        scale = Fraction(2, 5) if name in ("fig4-mini", "figs5-mini") else Fraction(3, 5)
        for few, many in ((a.task, b.task) for a, b in zip(specs, own, strict=True)):
            assert (few.epochs, few.timetable.t_mult) == (scale * many.epochs, many.timetable.t_mult), name
            assert few.t_0 == (None if many.t_0 is None else scale * many.t_0), name


def test_an_empty_preset_is_the_default_task_and_others_override_what_they_are_like(tmp_path: Path) -> None:
    preset = read(tmp_path, "")
    assert (preset.name, preset.task, preset.seeds, preset.metric) == ("mine", Task(), 3, "val_loss")
    adamw = Optimizer.parse("adamw")
    assert_raises("no axes for adamw; give lr and weight_decay$", preset.lattice, adamw)
    spelled = read(tmp_path, '\ufeff[axes."adamw:independent"]\r\nlr = "1e-3"\nwd = "0,0.2"\n')
    assert spelled.lattice(adamw).weight_decay == (0.0, 0.2)
    preset = read(tmp_path, '[[variants]]\nschedule = ["fixed", "cosine"]\noptimizer = ["adam", "adamw"]\n')
    found = [(str(variant.optimizer), variant.task["schedule"]) for variant in preset.variants]
    assert found == [("adam", "fixed"), ("adamw", "fixed"), ("adam", "cosine"), ("adamw", "cosine")]
    text = '[[variants]]\noptimizer = "adam"\nlr = "0.001"\nwd = ["0", "0.1"]\n'
    assert [(v.lr, v.wd) for v in read(tmp_path, text).variants] == [((0.001,), (0.0,)), ((0.001,), (0.1,))]
    own = read(tmp_path, MINE + '[net.options]\nwidth = 3\nact = "relu"\n').task
    assert (own.net_options, own.sizes) == ('{"act": "relu", "width": 3}', None)  # nothing is imported
    changes = '[training]\nbatch_size = 32\n[axes.sgd]\nlr = "1,2"\nwd = "1,2"\n'
    text = f'like = "fig1-mini"\nclaim = "none"\n{changes}'
    mine, base = read(tmp_path, text), find_preset("fig1-mini")
    assert (mine.name, mine.claim, mine.about) == ("mine", "none", base.about)
    assert mine.task == base.task.changed(batch_size=32)
    assert mine.axes["sgd"].lr == (1.0, 2.0)
    assert {**mine.axes, "sgd": None} == {**base.axes, "sgd": None}
    assert mine.variants == base.variants
    for text, owner in (
        ("", "mine"),
        ('like = "fig3-mini"\nabout = "the same"\nshow = ["scatter"]', "fig3-mini"),
        ('like = "figs4-mini"\n[study]\nseeds = 5', "fig3-mini"),
        ('like = "digits"\nshow = ["norm"]', "digits"),
        ('like = "fig3-mini"\n[training]\nepochs = 5', "mine"),
        ('like = "fig3-mini"\nvariants = ["adam", "adamw"]', "mine"),
    ):
        assert read(tmp_path, text).owner == owner, text


WRONG = (  # one of a kind; test_field has the values that a field refuses
    ("variant = []", "unknown key 'variant'; did you mean variants?"),
    ("[training]\nbatchsize = 1", "unknown key of [training] 'batchsize'; did you mean batch_size?"),
    ("[[variants]]\noptimizer = 'adam'\nepoch = 3", "unknown key of a variant 'epoch'; did you mean epochs"),
    ("[axes.adamm]\nlr = '1,2'\nwd = '1,2'", "unknown optimizer 'adamm'; did you mean adam, adamw or adamp?"),
    ("show = ['curve']", "unknown picture 'curve'; did you mean curves?"),
    ("like = 'digist'", "unknown preset 'digist'; did you mean digits?"),
    ("[study]\nmetric = 'val_los'", "unknown metric 'val_los'; did you mean val_loss"),
    ("variants = 'adam'", """variants 'adam' is not a list; write ["adam", "adamw"] or [[variants]]"""),
    ("variants = [3]", "variant 3 names no optimizer; write optimizer ="),
    ("[[variants]]\noptimizer = 'adam'\nlr = '0'", "lr = '0' is not a positive number"),
    ("[[variants]]\noptimizer = 'adam'\nepochs = [60, 0]", "epochs = 0 is not a whole number"),
    ("[axes]\nadam = 3", "'adam' is not a table; write [axes.adam]"),
    ("[axes.adam]\nlr = 0.1\nwd = '1,2'", "[axes.adam] needs lr as text"),
    ("[axes.adamw]\nlr = '1'\nwd = '1'\n[axes.'adamw:independent']\nlr = '1'\nwd = '1'", "is adamw again"),
    ("[study]\nseeds = 1000000000000", "is not a whole number from 1 to"),
    *(("about = ", "is not TOML"), (f"about = {'[' * 5000}", "is not TOML")),
    *(("about = 3", "about 3 is not text"), ("training = 3", "'training' is not a table; write [training]")),
    ('[training]\nnet = "cnn"\n[net.options]\nwidth = 3', "[net.options] 'width=3' has no effect on cnn"),
    (f"{MINE}[net.options]\nsince = 2020-01-01", "give text, numbers, true or false, lists and tables"),
    (f'{MINE}engine = "vmap"', "unknown key of [training] 'engine'"),
)


def test_a_wrong_key_or_value_is_one_line_with_the_remedy(tmp_path: Path) -> None:
    for text, part in WRONG:
        assert_raises(f"^preset '.*mine.toml'.*{re.escape(part)}", read, tmp_path, text)


def axis(values: tuple[float, ...]) -> str:
    positive = [value for value in values if value > 0]
    return f"{len(positive)} {positive[0]:.4g} {positive[-1]:.4g}"


FIG1, FIG2, ONE = "11 9.766e-05 0.1", "10 3.125e-05 0.016", "1 0.001 0.001"
HELD = [("adam", ONE, "12 2.441e-07 0.0005"), ("adamw:normalized", ONE, "7 0.00625 0.4")]
RAW, NORMALIZED = "5 6.25e-05 0.001", "5 0.0125 0.2"  # Figure S3
LATTICES = {  # of the figures: optimizer, α and λ
    "fig1": [(name, FIG1, "7 3.125e-05 0.002") for name in ("adam", "adamw")] * 3,
    "fig2": [(name, "11 0.0009766 1", FIG2) for name in ("sgd", "sgdw")]
    + [(name, FIG1, FIG2) for name in ("adam", "adamw")],
    "fig3": HELD,
    "figs4": HELD,
    "figs2": [("adam", "4 1e-05 0.01", "4 1e-06 0.001"), ("adamw", "6 0.0001563 0.005", RAW)],
    "figs3": [
        (f"{family}{mark}", axis_, decay)
        for family, axis_ in (("adamw", "6 0.0001563 0.005"), ("sgdw", "6 0.01562 0.5"))
        for mark, decay in (("", RAW), (":normalized", NORMALIZED))
        for _ in range(3)
    ],
}
EPOCHS = {"fig1": {100}, "fig2": {100}, "fig3": {1800}, "fig4": {1800}, "figs4": {64}, "figs2": {1800, 100}}
EPOCHS |= {"figs3": {25, 100, 400}, "figs3-imagenet": {1, 16, 64}, "fig4-imagenet": {150}}


def test_figures_train_the_papers_networks_on_its_lattices_and_schedules() -> None:
    for name in PAPERS:
        imagenet = "imagenet" in name or name in ("figs4", "figs6")
        assert find_preset(name).metric == ("val_top5_error" if imagenet else "val_error"), name
        for t in (spec.task for spec in studies(name)):
            assert (t.data, t.augment) == ("imagenet32" if imagenet else "cifar10", "crop-flip"), name
            assert (t.batch_size, t.momentum, t.decay_all) == (128, 0.9, True), name
            assert (t.beta1, t.beta2, t.eps) == (0.9, 0.999, 1e-8), name
            small = name in ("fig1", "fig2", "figs3", "figs3-imagenet") or (name, t.epochs) == ("figs2", 100)
            assert t.net == ("shake26-2x64d" if small else "shake26-2x96d"), name
            if t.schedule is Schedule.RESTARTS:
                t_0 = 10 if name in ("fig4-imagenet", "figs6") else 100
                assert (t.t_0, t.t_mult, t.eta_min) == (t_0, 2, 0), name
    for name, rows in LATTICES.items():
        found = [(s.title, axis(s.lattice.lr), axis(s.lattice.weight_decay)) for s in studies(name)]
        assert found == rows, name
    for name, epochs in EPOCHS.items():
        assert {spec.task.epochs for spec in studies(name)} == epochs, name
    schedules = [spec.task.schedule for spec in studies("fig1")]
    assert schedules == ["fixed", "fixed", "step", "step", "cosine", "cosine"]
    assert " ".join(s.title for s in studies("fig4")) == "adam adamw:normalized sgdw:normalized adamwr sgdwr"
    assert (studies("figs5"), studies("figs6")) == (studies("fig4"), studies("fig4-imagenet"))


def test_an_optimizer_takes_its_own_axes_or_those_of_its_kin_by_whole_octaves() -> None:
    lr, wd = parse_axis("2^-11:2^-1", "lr"), parse_axis("0,2^-9:2^1", "wd")  # the middle of α is 2^-6
    steps = 360  # √360 = 19: 2^4 is the nearest power of two
    axes = {"adamw": Lattice(lr, wd), "amsgradw": Lattice((0.5, 1.0), (0.25, 0.5))}
    assert default_lattice(axes, Optimizer.parse("amsgradw"), steps) == axes["amsgradw"]
    kin: list[tuple[str, str, int | None]] = [
        *(("adamw:fixed", "adamw", 0), ("adamw:corrected", "adamw:lr-scaled", 0), ("amsgrad", "adam", 0)),
        *(("rmspropw", "adamw", 0), ("adamp", "adamw:lr-scaled", 0), ("sgdp", "sgdw:lr-scaled", 0)),
        *(("adamw:lr-scaled", "adamw", 6), ("adamw", "adamw:lr-scaled", -6)),  # w = λ/α
        *(("adamp", "adamw", 6), ("adamwr", "adamw", 4)),
        *(("adamw:normalized", "adamw", 4), ("sgd:normalized", "sgd", 4)),  # λ_norm = λ√N
        *(("adamw:corrected:normalized", "adamw", 10), ("adagradw", "adamw", None), ("adam", "adamw", None)),
        *(("sgd", "sgdw", None), ("adamw", "adam", None)),
    ]
    for optimizer, own, octaves in kin:
        given = {str(Optimizer.parse(own)): Lattice(lr, wd)}
        moved = None if octaves is None else Lattice(lr, tuple(value * 2.0**octaves for value in wd))
        assert default_lattice(given, Optimizer.parse(optimizer), steps) == moved, optimizer
    foreign = Optimizer(None, Optimizer.parse("adamw").rule, "lion")
    assert default_lattice(axes, foreign, steps) is None
    preset, names = find_preset(DEFAULT), optimizer_names()
    for name in (*names, *(f"{name}:normalized" for name in names), "sgdwr", "adamwr"):
        lattice = preset.lattice(Optimizer.parse(name))
        sizes = ((6, 11),) if name.startswith("kfac") else ((11, 10), (11, 11))
        assert (len(lattice.lr), len(lattice.weight_decay)) in sizes, name
        assert lattice.lr[0] * 2**10 == lattice.lr[-1], name
