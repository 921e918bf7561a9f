"""Figures of studies and of scales hold their marks, lines and intervals, with the same bytes every time."""

import sys
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import html5lib
import matplotlib
import numpy as np
import pytest
from matplotlib.collections import PathCollection, QuadMesh
from matplotlib.container import ErrorbarContainer
from matplotlib.mathtext import MathTextParser

from lrwd_sweep.errors import HostError, NothingToReport
from lrwd_sweep.report.result import Result, result
from lrwd_sweep.report.scaled import Scaled
from lrwd_sweep.report.view.html_page import scaled_html
from lrwd_sweep.report.view.notation import mathematics
from lrwd_sweep.report.view.paper_figure import LogAxis, draw, save_figure
from lrwd_sweep.report.view.scaled_report import ScaledReport, draw_scaled, law_panels, save_scaled_figure
from lrwd_sweep.science.lattice import Lattice
from lrwd_sweep.science.optimizer import Optimizer, optimizer_names
from lrwd_sweep.science.scaling import DECAY, LR, TAU_EPOCHS, TAU_SHARE
from lrwd_sweep.science.trial import Status, Trial
from lrwd_sweep.spec.over import Over
from tests import studies
from tests.refusal import assert_raises
from tests.report.view.examples import HOSTILE, drawn, labelled, lost, study
from tests.report.view.test_tables import based
from tests.specs import spec


def saved(results: list[Result], path: Path) -> bytes:
    save_figure(results, path)
    return path.read_bytes()


def test_suffix_selects_the_format_and_the_bytes_repeat(tmp_path: Path) -> None:
    results = [study("a", "adam")]
    formats = ("svg", b"<?xml", b"dc:date"), ("pdf", b"%PDF-", b"CreationDate"), ("png", b"\x89PNG", b"tIME")
    for form, magic, date in formats:
        before = matplotlib.rcParams.copy()
        first = saved(results, tmp_path / f"one.{form}")
        assert matplotlib.rcParams.copy() == before, form
        assert (first.startswith(magic), date in first) == (True, False), form
        with matplotlib.rc_context({"lines.linewidth": 9}):  # a style of the user
            assert saved(results, tmp_path / f"two.{form.upper()}") == first, form
    content = (tmp_path / "one.pdf").read_bytes()
    assert (b"/FontFile2" in content, b"/Type3" in content) == (True, False)  # fonts are embedded as TrueType


def test_panels_share_scale_and_width_and_mark_their_cells() -> None:
    axes = draw([based()]).axes[0]
    meshes = [np.asarray(m.get_coordinates())[..., 0] for m in axes.collections if isinstance(m, QuadMesh)]
    first, second = sorted((float(x.min()), float(x.max())) for x in meshes)
    assert first[1] < second[0], "the column without decay is apart"
    assert axes.get_xticklabels()[0].get_text() == "0"
    scatters = [c for c in draw([study()]).axes[0].collections if isinstance(c, PathCollection)]
    counts = [(len(c.get_facecolor()) == 0, len(np.asarray(c.get_offsets()))) for c in scatters]
    assert sorted(counts) == [*[(False, 1)] * 4, (True, 10)]  # best, diverged, failed, missing; ten best
    figure = draw([study("one", name) for name in ("adam", "adamw", "adamw:normalized")])
    panels = [axes for axes in figure.axes if axes.get_xlabel()]
    limits = [m.get_clim() for axes in panels for m in axes.collections if isinstance(m, QuadMesh)]
    assert (figure.get_size_inches()[0], len(limits), len(set(limits))) == (7.0, 3, 1)
    names = [rf"weight decay $\lambda{sub}$ (independent)" for sub in (" ", "_{norm}")]
    assert [axes.get_xlabel() for axes in panels[1:]] == names


def test_formulas_are_mathematics_and_ticks_powers_of_two_or_ten_or_the_values() -> None:
    for values, labels in (
        ([0.25, 0.5, 1.0], ["$2^{-2}$", "$2^{-1}$", "$2^{0}$"]),
        ([0.001, 0.003, 0.01, 0.03, 0.1], ["$10^{-3}$", "$10^{-2}$", "$10^{-1}$"]),
        ([0.0, 0.02, 0.05], ["0", "0.02", "0.05"]),
    ):
        assert LogAxis.of(np.array(values)).ticks()[1] == labels
    axis = LogAxis.of(np.array([1.0, 2.0, 8.0]))
    assert (*axis.places, *axis.edges) == pytest.approx((0, 1, 3, -0.5, 0.5, 2, 4))
    assert LogAxis.of(np.array([2.0**k for k in range(40)])).ticks(8)[0] == pytest.approx(range(0, 40, 5))
    for name in optimizer_names():
        written = mathematics(Optimizer.parse(name).formula)
        assert written.isascii(), name
        MathTextParser("path").parse(written)


def test_odd_studies_are_drawn_and_others_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped = studies.without(studies.study(), *((i, 0, 1) for i in range(7)))
    for results, part in (
        ([stopped, studies.study(name="whole")], b"opacity: 0.45"),
        ([labelled(f"{HOSTILE} $\\frac$ 学习率")], b"<?xml"),
        ([lost()], b"<?xml"),
    ):
        assert part in saved(results, tmp_path / "figure.svg"), part
    found = study()
    trials = [replace(t, metrics={"val_loss": 0.1, "val_error": 0.1}) for t in found.trials]
    other, path = result("b", replace(found.spec, metric="val_error"), "", trials), tmp_path / "a.pdf"
    assert_raises(r"known: \.svg, \.pdf, \.png", save_figure, [found], path.with_suffix(".gif"))
    assert_raises("study list", save_figure, [], path, error=NothingToReport)
    assert_raises("choose one with metric", save_figure, [found, other], path)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert_raises(r"pip install 'lrwd-sweep\[figures\]'", save_figure, [found], path, error=HostError)
    assert {path.name for path in tmp_path.iterdir()} == {"figure.svg"}


LATTICE = Lattice(tuple(2.0 ** np.arange(-9, -3)), tuple(2.0 ** np.arange(-12, -3)))


def bowls(over: str = "epochs=15,60,240", name: str = "adamw", seeds: int = 3, at: float = -7) -> Scaled:
    """Return bowls whose best λ is 2^at at the smallest scale, and falls with its root."""
    scale, results = Over.parse(over), []
    for value in scale.values:
        fields = {"seeds": tuple(range(seeds)), scale.axis.replace("-", "_"): int(value)}
        best, trials = at - 0.5 * np.log2(value / scale.values[0]), []
        for cell, seed in product(LATTICE.cells(), range(seeds)):
            a, lam = np.log2([cell.lr, cell.weight_decay])
            loss = 0.3 + 0.02 * (a + 6) ** 2 + 0.02 * (lam - best + 0.1 * seed) ** 2
            trials.append(Trial(cell, seed, Status.COMPLETE, {"val_loss": float(loss)}))
        trained = spec(optimizer=name, lattice=LATTICE, **fields)
        results.append(result(f"study {value:g}", trained, "", trials))
    return Scaled.of(scale, results)


def test_panels_hold_points_the_fitted_line_and_those_of_rules() -> None:
    panels = {panel.name: panel for panel in law_panels(bowls())}
    assert list(panels) == [LR, DECAY, TAU_EPOCHS, TAU_SHARE]
    for name, power in ((LR, 0.0), (DECAY, -0.5), (TAU_EPOCHS, 0.5), (TAU_SHARE, -0.5)):
        panel, rules = panels[name], dict(panels[name].rules)
        values = [y.value for y in panel.y]
        assert panel.fitted == pytest.approx(values), name
        assert panel.fitted[2] / panel.fitted[0] == pytest.approx(16**power), name
        assert [moved[0] for moved in rules.values()] == pytest.approx([values[0]] * len(rules)), name
        assert name == LR or rules["λ ∝ 1/√N"] == pytest.approx(values), name
        assert all(0 <= high <= low <= 1 for _, low, high in panel.bars()), name
    share = panels[TAU_SHARE]
    assert dict(share.rules)["τ constant as a share of the run"] == pytest.approx([share.y[0].value] * 3)
    assert [panel.name for panel in law_panels(bowls("batch-size=16,32", "adam"))] == [LR, DECAY]


def test_html_figure_and_terminal_draw_every_case(tmp_path: Path) -> None:
    cases: list[tuple[dict[str, Any], int, int, int]] = [
        ({"seeds": 1, "over": "batch-size=56,60,64"}, 9, 0, 3),
        ({"name": "adam"}, 6, 0, 2),
        ({"at": -3.0}, 6, 6, 1),  # on the edge: only of α there is an exponent
    ]
    for case, values, edges, fitted in cases:
        scaled = bowls(**case)
        tree = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse(scaled_html(scaled))
        nodes = [node for panel in tree.iterfind(".//div[@class='law']") for node in panel.iter()]
        classes = [node.get("class") for node in nodes]
        intervals = 0 if "seeds" in case else values + edges
        found = [classes.count(name) for name in ("value", "edge", "fitted", "interval")]
        assert found == [values, edges, fitted, intervals], case
        shown = drawn(ScaledReport(scaled), 60)
        assert ("on the edge of its axis at 15" in shown) == bool(edges), case
    laws = [axes for axes in draw_scaled(scaled).axes if axes.get_xscale() == "log"]
    bars = [c for axes in laws for c in axes.containers if isinstance(c, ErrorbarContainer)]
    assert sum(len(np.asarray(bar[0].get_xdata())) for bar in bars) == values + edges
    save_scaled_figure(scaled, path := tmp_path / "a.svg")
    assert path.read_text().startswith("<?xml")
