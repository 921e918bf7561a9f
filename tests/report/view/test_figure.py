"""Figures draw every lattice with its marks, as svg, pdf or png, with the same bytes every time."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.collections import PathCollection, QuadMesh
from matplotlib.figure import Figure
from matplotlib.mathtext import MathTextParser

from lrwd_sweep.errors import HostError, NothingToReport, UsageError
from lrwd_sweep.report.result import Result, result
from lrwd_sweep.report.view.figure import draw, save_figure
from lrwd_sweep.report.view.figure_panel import LogAxis, mathematics
from lrwd_sweep.science.decay import DecayRule
from lrwd_sweep.science.lattice import Cell, Lattice
from lrwd_sweep.science.optimizer import Optimizer, optimizer_names
from lrwd_sweep.science.trial import Status, Trial
from lrwd_sweep.spec.study import Kind
from tests import studies
from tests.report.view.examples import HOSTILE, study
from tests.studies import without

ROOT = Path(__file__).parents[3]
MAGIC = {"svg": b"<?xml", "pdf": b"%PDF-", "png": b"\x89PNG"}


def saved(results: list[Result], path: Path) -> bytes:
    """The bytes of a figure."""
    save_figure(results, path)
    return path.read_bytes()


def with_baseline(found: Result) -> Result:
    """A study with a complete column at weight decay 0 added."""
    lattice = Lattice(found.spec.lattice.lr, (0.0, *found.spec.lattice.weight_decay))
    column = [
        Trial(Cell(lr, 0.0), seed, Status.COMPLETE, {"val_loss": 0.4})
        for lr in lattice.lr
        for seed in found.spec.seeds
    ]
    return result(found.name, replace(found.spec, lattice=lattice), "", [*found.trials, *column])


def marks(figure: Figure) -> tuple[list[int], list[int]]:
    """How many marks each scatter of the first panel has: of those with an empty face, and of the others."""
    drawn = [c for c in figure.axes[0].collections if isinstance(c, PathCollection)]
    counts = [(len(c.get_facecolor()) == 0, len(np.asarray(c.get_offsets()))) for c in drawn]
    return [n for hollow, n in counts if hollow], [n for hollow, n in counts if not hollow]


def limits(figure: Figure) -> list[tuple[float, float]]:
    """The ends of the colour scale of every panel that holds a lattice."""
    panels = [axes for axes in figure.axes if axes.get_xlabel()]
    return [m.get_clim() for axes in panels for m in axes.collections if isinstance(m, QuadMesh)]


def test_suffix_selects_the_format_and_the_bytes_repeat(tmp_path: Path) -> None:
    for form, magic in MAGIC.items():
        first = saved([study("a", "adam"), study("b")], tmp_path / f"one.{form}")
        assert first.startswith(magic)
        matplotlib.rcParams["lines.linewidth"] = 9  # a style of the user
        try:
            assert saved([study("a", "adam"), study("b")], tmp_path / f"two.{form.upper()}") == first, form
        finally:
            matplotlib.rcdefaults()


def test_fonts_are_embedded_as_truetype(tmp_path: Path) -> None:
    content = saved([study()], tmp_path / "figure.pdf")
    assert b"/FontFile2" in content
    assert b"/Type3" not in content


def test_no_file_says_when_it_was_made(tmp_path: Path) -> None:
    for form, date in (("svg", b"dc:date"), ("pdf", b"CreationDate"), ("png", b"tIME")):
        assert date not in saved([study()], tmp_path / f"figure.{form}")


def test_another_suffix_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    for name in ("figure.gif", "figure"):
        with pytest.raises(UsageError, match=r"known: \.svg, \.pdf, \.png"):
            save_figure([study()], tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_nothing_to_draw_and_two_metrics_are_refused(tmp_path: Path) -> None:
    found = study()
    both = {"val_loss": 0.1, "val_error": 0.1}
    other = result(
        "b", replace(found.spec, metric="val_error"), "", [replace(t, metrics=both) for t in found.trials]
    )
    with pytest.raises(NothingToReport, match="study list"):
        save_figure([], tmp_path / "figure.pdf")
    with pytest.raises(UsageError, match="choose one with metric"):
        save_figure([found, other], tmp_path / "figure.pdf")


def test_without_matplotlib_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(HostError, match=r"pip install 'lrwd-sweep\[figures\]'"):
        save_figure([study()], tmp_path / "figure.pdf")


def test_pyplot_is_never_loaded_and_no_setting_changes(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib, matplotlib\n"
        "from tests.report.view.examples import study\n"
        "from lrwd_sweep.report.view.figure import save_figure\n"
        "before = matplotlib.rcParams.copy()\n"
        f"save_figure([study()], pathlib.Path({str(tmp_path / 'figure.png')!r}))\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
        "assert matplotlib.rcParams.copy() == before\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_module_loads_without_matplotlib() -> None:
    code = "import sys, lrwd_sweep.report.view.figure; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_ten_best_are_circled_and_the_best_is_one_of_them() -> None:
    hollow, filled = marks(draw([study()]))
    assert hollow == [10]
    assert filled == [1, 1, 1, 1]  # best, diverged, failed, missing


def test_every_panel_shares_the_scale() -> None:
    found = limits(draw([study("a", "adam"), study("b"), study("c", "sgd")]))
    assert len(found) == 3
    assert len(set(found)) == 1


def test_a_figure_is_as_wide_as_one_column_or_two() -> None:
    for panels, inches in ((1, 3.4), (2, 7.0), (4, 7.0), (5, 7.0)):
        figure = draw([study(f"study {k}") for k in range(panels)])
        assert figure.get_size_inches()[0] == inches, panels


def test_the_baseline_stands_apart_from_the_log_axis() -> None:
    figure = draw([with_baseline(study())])
    meshes = [mesh for mesh in figure.axes[0].collections if isinstance(mesh, QuadMesh)]
    spans = sorted(
        (float(x.min()), float(x.max()))
        for x in (np.asarray(mesh.get_coordinates())[..., 0] for mesh in meshes)
    )
    assert len(spans) == 2
    assert spans[0][1] < spans[1][0]
    assert figure.axes[0].get_xticklabels()[0].get_text() == "0"


def test_cells_lie_where_their_logarithms_do() -> None:
    axis = LogAxis.of(np.array([1.0, 2.0, 8.0]))
    assert axis.places == pytest.approx([0, 1, 3])
    assert axis.edges == pytest.approx([-0.5, 0.5, 2, 4])


def test_ticks_are_powers_of_two_or_ten_or_the_values() -> None:
    cases: list[tuple[list[float], list[str]]] = [
        ([0.25, 0.5, 1.0], ["$2^{-2}$", "$2^{-1}$", "$2^{0}$"]),
        ([2**-2.5, 0.25], ["$2^{-2.5}$", "$2^{-2}$"]),
        ([0.001, 0.003, 0.01, 0.03, 0.1], ["$10^{-3}$", "$10^{-2}$", "$10^{-1}$"]),
        ([0.02, 0.05], ["0.02", "0.05"]),
        ([0.0, 0.02, 0.05], ["0", "0.02", "0.05"]),
        ([0.3], ["0.3"]),
    ]
    for values, labels in cases:
        assert LogAxis.of(np.array(values)).ticks()[1] == labels


def test_a_long_axis_keeps_few_labels() -> None:
    places, labels = LogAxis.of(np.array([2.0**k for k in range(40)])).ticks(8)
    assert len(labels) == 8
    assert places == pytest.approx(range(0, 40, 5))


def test_every_decay_names_its_axis() -> None:
    rules = ("", ":lr-scaled", ":fixed", ":corrected", ":normalized")
    for name in ("adam", *(f"adamw{rule}" for rule in rules)):
        figure = draw([study("one", name)])
        (panel,) = [axes for axes in figure.axes if axes.get_xlabel().startswith("weight decay")]
        letter = mathematics(Optimizer.parse(name).symbol)
        assert panel.get_xlabel() == f"weight decay {letter} ({Optimizer.parse(name).rule})", name


def test_every_formula_is_mathematics() -> None:
    for name in optimizer_names():
        for end in ("", ":normalized"):
            written = mathematics(Optimizer.parse(name + end).formula)
            assert written.isascii(), name + end
            MathTextParser("path").parse(written)


def test_cells_that_lack_seeds_are_pale(tmp_path: Path) -> None:
    stopped = without(studies.study(), *((i, 0, 1) for i in range(7)))
    assert b"opacity: 0.45" in saved([stopped, studies.study(name="whole")], tmp_path / "figure.svg")


def test_hostile_names_are_drawn_as_they_are(tmp_path: Path) -> None:
    name = f"{HOSTILE} $\\frac$ 学习率"
    optimizer = Optimizer(None, DecayRule.COUPLED, name)
    assert saved([study(name, optimizer, kind=Kind.IMPORT)], tmp_path / "figure.svg").startswith(b"<?xml")


def test_a_study_without_any_value_is_drawn_empty(tmp_path: Path) -> None:
    found = study()
    lost = [replace(trial, status=Status.DIVERGED, metrics={}) for trial in found.trials]
    save_figure([result("lost", found.spec, "", lost)], tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 1000
