"""Lines of best values along a scale: fitted, with intervals, beside rules; in HTML, figure and terminal."""

from pathlib import Path
from typing import Any

import html5lib
import numpy as np
import pytest
from matplotlib.container import ErrorbarContainer
from rich.cells import cell_len

from lrwd_sweep.report.result import result
from lrwd_sweep.report.scaled import Scaled
from lrwd_sweep.report.view.html_page import scaled_html
from lrwd_sweep.report.view.scaled_report import ScaledReport, draw_scaled, law_panels, save_scaled_figure
from lrwd_sweep.science.lattice import Lattice
from lrwd_sweep.science.optimizer import Optimizer
from lrwd_sweep.science.scaling import DECAY, LR, TAU_EPOCHS, TAU_SHARE
from lrwd_sweep.science.trial import Status, Trial
from lrwd_sweep.spec.over import Over
from lrwd_sweep.spec.study import Kind, StudySpec
from lrwd_sweep.spec.task import Task
from tests.report.view.examples import drawn

LATTICE = Lattice(tuple(2.0 ** np.arange(-9, -3)), tuple(2.0 ** np.arange(-12, -3)))


def bowls(over: str = "epochs=15,60,240", name: str = "adamw", seeds: int = 3, at: float = -7) -> Scaled:
    """Return bowls whose best λ is 2^at at the smallest scale, and falls with its root."""
    scale, results = Over.parse(over), []
    for value in scale.values:
        field: dict[str, Any] = {scale.axis.replace("-", "_"): int(value)}
        task = Task() if scale.axis == "width" else Task(**field)
        best, trials = at - 0.5 * np.log2(value / scale.values[0]), []
        for cell in LATTICE.cells():
            a, lam = np.log2([cell.lr, cell.weight_decay])
            for seed in range(seeds):
                loss = 0.3 + 0.02 * (a + 6) ** 2 + 0.02 * (lam - best + 0.1 * seed) ** 2
                trials.append(Trial(cell, seed, Status.COMPLETE, {"val_loss": float(loss)}))
        spec = StudySpec(Kind.GRID, Optimizer.parse(name), LATTICE, tuple(range(seeds)), "val_loss", task)
        results.append(result(f"study {value:g}", spec, "", trials))
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
        assert max(map(cell_len, shown.splitlines())) <= 60, case
        assert ("on the edge of its axis at 15" in shown) == bool(edges), case
    laws = [axes for axes in draw_scaled(scaled).axes if axes.get_xscale() == "log"]
    bars = [c for axes in laws for c in axes.containers if isinstance(c, ErrorbarContainer)]
    assert sum(len(np.asarray(bar[0].get_xdata())) for bar in bars) == values + edges
    save_scaled_figure(scaled, tmp_path / "a.svg")
    assert (tmp_path / "a.svg").read_text().startswith("<?xml")
