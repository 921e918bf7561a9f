"""The presets at the AdamW paper's own scale have the numbers of its experiments."""

from __future__ import annotations

import pytest

from lrwd_sweep.science.lattice import canonical
from lrwd_sweep.science.schedule import Schedule
from lrwd_sweep.spec.preset import find_preset
from lrwd_sweep.spec.study import StudySpec
from tests.spec.test_preset import PAPERS, studies, task

Axis = tuple[int, float, float]  # values above 0, their ends
RAW, NORMALIZED = (5, 0.001 / 16, 0.001), (5, 1 / 80, 1 / 5)  # Figure S3
BUDGETS = {"figs3": (25, 100, 400), "figs3-imagenet": (1, 16, 64)}


def axis(values: tuple[float, ...]) -> Axis:
    positive = [value for value in values if value > 0]
    return len(positive), positive[0], positive[-1]


def lattice(spec: StudySpec) -> tuple[str, Axis, Axis]:
    """A study's name, α axis and λ axis."""
    return spec.title, axis(spec.lattice.lr), axis(spec.lattice.weight_decay)


def row(title: str, lr: Axis, wd: Axis) -> tuple[str, Axis, Axis]:
    ends = [(count, canonical(low), canonical(high)) for count, low, high in (lr, wd)]
    return title, ends[0], ends[1]


@pytest.mark.parametrize("name", PAPERS)
def test_every_figure_trains_shake_shake_in_batches_of_128_as_the_paper_does(name: str) -> None:
    preset = find_preset(name)
    imagenet = "imagenet" in name or name in ("figs4", "figs6")
    assert preset.metric == ("val_top5_error" if imagenet else "val_error")
    for spec in studies(name):
        t = task(spec)
        assert (t.data, t.augment) == ("imagenet32" if imagenet else "cifar10", "crop-flip")
        assert (t.batch_size, t.momentum, t.decay_all) == (128, 0.9, True)
        assert (t.beta1, t.beta2, t.eps) == (0.9, 0.999, 1e-8)
        small = name in ("fig1", "fig2", "figs3", "figs3-imagenet") or (name == "figs2" and t.epochs == 100)
        assert t.net == ("shake26-2x64d" if small else "shake26-2x96d")


@pytest.mark.parametrize(
    ("name", "epochs"),
    [("fig1", 100), ("fig2", 100), ("fig3", 1800), ("fig4", 1800), ("fig4-imagenet", 150), ("figs4", 64)],
)
def test_figures_of_one_budget_train_for_it(name: str, epochs: int) -> None:
    assert {task(spec).epochs for spec in studies(name)} == {epochs}


def test_figure_1_has_three_schedules() -> None:
    expected = [(o, s) for s in ("fixed", "step", "cosine") for o in ("adam", "adamw")]
    specs = studies("fig1")
    assert [(spec.title, task(spec).schedule) for spec in specs] == expected
    for spec in specs:
        assert lattice(spec)[1:] == row("", (11, 0.1 / 1024, 0.1), (7, 0.001 / 32, 0.002))[1:]
        assert spec.lattice.weight_decay[0] == 0


def test_figure_2_has_four_optimizers() -> None:
    specs, wd = studies("fig2"), (10, 0.001 / 32, 0.016)
    assert [lattice(spec) for spec in specs] == [
        *(row(name, (11, 1 / 1024, 1), wd) for name in ("sgd", "sgdw")),
        *(row(name, (11, 0.1 / 1024, 0.1), wd) for name in ("adam", "adamw")),
    ]
    assert all(spec.lattice.weight_decay[0] == 0 for spec in specs)


@pytest.mark.parametrize("name", ["fig3", "figs4"])
def test_figures_3_and_s4_hold_the_learning_rate(name: str) -> None:
    alpha = (1, 0.001, 0.001)
    assert [lattice(spec) for spec in studies(name)] == [
        row("adam", alpha, (12, 0.001 / 2**12, 0.001 / 2)),
        row("adamw:normalized", alpha, (7, 0.00625, 0.4)),
    ]


@pytest.mark.parametrize(
    ("name", "t_0", "ends"),
    [
        ("fig4", 100, (100, 300, 700, 1500)),
        ("fig4-imagenet", 10, (10, 30, 70, 150)),
        ("figs1", 100, (100, 300, 700, 1500)),
        ("figs5", 100, (100, 300, 700, 1500)),
        ("figs6", 10, (10, 30, 70, 150)),
    ],
)
def test_restarts_come_when_the_papers_do(name: str, t_0: int, ends: tuple[int, ...]) -> None:
    restarted = [t for t in map(task, studies(name)) if t.schedule is Schedule.RESTARTS]
    assert restarted
    for t in restarted:
        assert (t.t_0, t.t_mult, t.eta_min, t.timetable.snapshots) == (t_0, 2, 0, ends)


@pytest.mark.parametrize("name", ["fig4", "fig4-imagenet", "figs5", "figs6"])
def test_figure_4_has_five_optimizers(name: str) -> None:
    titles = [spec.title for spec in studies(name)]
    assert titles == ["adam", "adamw:normalized", "sgdw:normalized", "adamwr", "sgdwr"]


def test_figure_s2_is_standard_adam_against_a_short_run_of_adamw() -> None:
    adam, adamw = studies("figs2")
    assert (task(adam).schedule, task(adam).epochs) == (Schedule.FIXED, 1800)
    assert lattice(adam) == row("adam", (4, 1e-5, 1e-2), (4, 1e-6, 1e-3))
    assert (task(adamw).schedule, task(adamw).epochs) == (Schedule.COSINE, 100)
    assert lattice(adamw) == row("adamw", (6, 0.01 / 64, 0.01 / 2), RAW)


@pytest.mark.parametrize("name", BUDGETS)
def test_figure_s3_has_raw_and_normalised_decay_at_three_budgets(name: str) -> None:
    expected = [
        (epochs, row(f"{family}{mark}", (6, scale / 64, scale / 2), wd))
        for family, scale in (("adamw", 0.01), ("sgdw", 1.0))
        for mark, wd in (("", RAW), (":normalized", NORMALIZED))
        for epochs in BUDGETS[name]
    ]
    assert [(task(spec).epochs, lattice(spec)) for spec in studies(name)] == expected


@pytest.mark.parametrize(("figure", "studied"), [("figs5", "fig4"), ("figs6", "fig4-imagenet")])
def test_figures_s5_and_s6_are_figure_4_with_the_training_loss(figure: str, studied: str) -> None:
    assert studies(figure) == studies(studied)
    assert "scatter" in find_preset(figure).show
