"""The presets at the AdamW paper's own scale have the numbers of its experiments."""

from __future__ import annotations

from lrwd_sweep.science.lattice import canonical
from lrwd_sweep.science.schedule import Schedule
from lrwd_sweep.spec.preset import find_preset
from lrwd_sweep.spec.study import StudySpec
from tests.spec.test_preset import PAPERS, studies, task

Axis = tuple[int, float, float]  # values above 0, their ends
RAW, NORMALIZED = (5, 0.001 / 16, 0.001), (5, 1 / 80, 1 / 5)  # Figure S3
ONE, FIG1_LR, FIG1_WD, FIG2_WD = (
    (1, 0.001, 0.001),
    (11, 0.1 / 1024, 0.1),
    (7, 0.001 / 32, 0.002),
    (10, 0.001 / 32, 0.016),
)
FIVE = ["adam", "adamw:normalized", "sgdw:normalized", "adamwr", "sgdwr"]


def axis(values: tuple[float, ...]) -> Axis:
    positive = [value for value in values if value > 0]
    return len(positive), positive[0], positive[-1]


def lattice(spec: StudySpec) -> tuple[str, Axis, Axis]:
    """Return a study's name, α axis and λ axis."""
    return spec.title, axis(spec.lattice.lr), axis(spec.lattice.weight_decay)


def row(title: str, lr: Axis, wd: Axis) -> tuple[str, Axis, Axis]:
    ends = [(count, canonical(low), canonical(high)) for count, low, high in (lr, wd)]
    return title, ends[0], ends[1]


def test_every_figure_trains_shake_shake_in_batches_of_128() -> None:
    budgets = {"fig1": 100, "fig2": 100, "fig3": 1800, "fig4": 1800, "fig4-imagenet": 150, "figs4": 64}
    for name, epochs in budgets.items():
        assert {task(spec).epochs for spec in studies(name)} == {epochs}, name
    for name in PAPERS:
        imagenet = "imagenet" in name or name in ("figs4", "figs6")
        assert find_preset(name).metric == ("val_top5_error" if imagenet else "val_error"), name
        for t in map(task, studies(name)):
            assert (t.data, t.augment) == ("imagenet32" if imagenet else "cifar10", "crop-flip"), name
            assert (t.batch_size, t.momentum, t.decay_all) == (128, 0.9, True), name
            assert (t.beta1, t.beta2, t.eps) == (0.9, 0.999, 1e-8), name
            small = name in ("fig1", "fig2", "figs3", "figs3-imagenet") or (
                t.epochs == 100 and name == "figs2"
            )
            assert t.net == ("shake26-2x64d" if small else "shake26-2x96d"), name


def test_lattices_are_those_of_the_figures() -> None:
    held = [
        row("adam", ONE, (12, 0.001 / 2**12, 0.001 / 2)),
        row("adamw:normalized", ONE, (7, 0.00625, 0.4)),
    ]
    expected = {
        "fig1": [row(name, FIG1_LR, FIG1_WD) for name in ("adam", "adamw")] * 3,
        "fig2": [
            *(row(name, (11, 1 / 1024, 1), FIG2_WD) for name in ("sgd", "sgdw")),
            *(row(name, FIG1_LR, FIG2_WD) for name in ("adam", "adamw")),
        ],
        "fig3": held,
        "figs4": held,
        "figs2": [
            row("adam", (4, 1e-5, 1e-2), (4, 1e-6, 1e-3)),
            row("adamw", (6, 0.01 / 64, 0.01 / 2), RAW),
        ],
    }
    for name, rows in expected.items():
        assert [lattice(spec) for spec in studies(name)] == rows, name
    for name in ("fig1", "fig2"):
        assert all(spec.lattice.weight_decay[0] == 0 for spec in studies(name)), name


def test_schedules_are_those_of_the_figures() -> None:
    assert [task(spec).schedule for spec in studies("fig1")] == [
        s for s in ("fixed", "step", "cosine") for _ in range(2)
    ]
    adam, adamw = map(task, studies("figs2"))
    assert (adam.schedule, adam.epochs, adamw.schedule, adamw.epochs) == ("fixed", 1800, "cosine", 100)
    for name in ("fig4", "fig4-imagenet", "figs1", "figs5", "figs6"):
        restarted = [t for t in map(task, studies(name)) if t.schedule is Schedule.RESTARTS]
        t_0 = 10 if name in ("fig4-imagenet", "figs6") else 100
        assert restarted, name
        for t in restarted:
            assert (t.t_0, t.t_mult, t.eta_min) == (t_0, 2, 0), name
            assert t.timetable.snapshots == (t_0, 3 * t_0, 7 * t_0, 15 * t_0), name


def test_figure_4_has_five_optimizers_and_s5_and_s6_show_its_training_loss() -> None:
    for name, studied in (("figs5", "fig4"), ("figs6", "fig4-imagenet")):
        assert [spec.title for spec in studies(studied)] == FIVE
        assert studies(name) == studies(studied)
        assert "scatter" in find_preset(name).show


def test_figure_s3_has_raw_and_normalised_decay_at_three_budgets() -> None:
    for name, budgets in (("figs3", (25, 100, 400)), ("figs3-imagenet", (1, 16, 64))):
        expected = [
            (epochs, row(f"{family}{mark}", (6, scale / 64, scale / 2), wd))
            for family, scale in (("adamw", 0.01), ("sgdw", 1.0))
            for mark, wd in (("", RAW), (":normalized", NORMALIZED))
            for epochs in budgets
        ]
        assert [(task(spec).epochs, lattice(spec)) for spec in studies(name)] == expected, name
