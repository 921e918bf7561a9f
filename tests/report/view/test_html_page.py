"""HTML pages are well formed, harmless and self-contained; they and figures hold every mark and line."""

import base64
import hashlib
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise, product
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

import html5lib
import matplotlib
import numpy as np
import pytest
from matplotlib.collections import PathCollection, QuadMesh
from matplotlib.container import ErrorbarContainer
from matplotlib.mathtext import MathTextParser

from lrwd_sweep.errors import HostError, NothingToReport
from lrwd_sweep.report.result import Result, comparison, result
from lrwd_sweep.report.scaled import Scaled
from lrwd_sweep.report.view.html_page import html, raised, scaled_html, slope_axis
from lrwd_sweep.report.view.notation import mathematics
from lrwd_sweep.report.view.paper_figure import LogAxis, draw, save_figure
from lrwd_sweep.report.view.scaled_report import ScaledReport, draw_scaled, law_panels, save_scaled_figure
from lrwd_sweep.science.lattice import Lattice
from lrwd_sweep.science.optimizer import Optimizer, optimizer_names
from lrwd_sweep.science.scaling import DECAY, LR, TAU_EPOCHS, TAU_SHARE
from lrwd_sweep.science.trial import Status, Trial
from lrwd_sweep.spec.over import Over
from lrwd_sweep.spec.study import Kind
from tests import studies
from tests.refusal import assert_raises
from tests.report.view import examples
from tests.report.view.examples import EPOCHS, HOSTILE, drawn, harmful, known, labelled, lost, measured, study
from tests.report.view.test_tables import based
from tests.specs import spec

LOADERS = {"link", "img", "iframe", "object", "embed", "image", "use", "video", "audio", "base", "form"}


def page(results: list[Result]) -> str:
    return html(results, [comparison(a, b) for a, b in pairwise(results)])


def parsed(text: str) -> Any:
    return html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse(text)


def all_of(tree: Element, tag: str, kind: str = "") -> list[Element]:
    return [x for x in tree.iterfind(f".//{{*}}{tag}") if not kind or kind in x.get("class", "").split()]


def test_pages_are_well_formed_and_load_nothing() -> None:
    hostile, search = [labelled(), study()], [measured(kind=Kind.TPE), study("b", seeds=1)]
    for results in ([measured("a", "adam"), measured("b")], search, hostile, [lost(), study()]):
        text, case = page(results), results[0].name
        tree = parsed(text)
        ids = [node.get("id") for node in tree.iter() if node.get("id")]
        assert (len(ids), len(all_of(tree, "h1"))) == (len(set(ids)), 1), case
        assert {node.get("aria-labelledby") for node in tree.iter()} - {None} <= set(ids), case
        assert not LOADERS & {str(node.tag).split("}")[-1] for node in tree.iter()}, case
        names = {name.split("}")[-1] for node in tree.iter() for name in node.attrib}
        assert not [name for name in names if re.match("on|(src|href|srcset|style)$", name)], case
        assert not re.search(r"url\(|@import", all_of(tree, "style")[0].text or ""), case
        assert set(re.findall(r"\w+://\S*", text)) <= {'http://www.w3.org/2000/svg",'}, case
        assert not harmful(text), case
        if results is hostile:
            assert len(all_of(tree, "script")) == 1  # ours
            assert "`<script>\\n\\u202e=cmd() @all" in "".join(all_of(tree, "h1")[0].itertext())
        policy = known(tree.find(".//*[@http-equiv='Content-Security-Policy']")).attrib["content"]
        rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
        assert rules["default-src"] == "'none'", case
        for name, place in (("style", 0), ("script", -1)):
            digest = hashlib.sha256((all_of(tree, name)[place].text or "").encode()).digest()
            assert rules[f"{name}-src"] == f"'sha256-{base64.b64encode(digest).decode()}'", case


def test_cells_carry_place_value_seeds_marks_and_the_ridge_and_bands_have_the_margin() -> None:
    found = study()
    tree = parsed(page([found, study("b")]))
    assert len(all_of(tree, "linearGradient")) == 1, "both studies have one scale"
    first = all_of(tree, "svg", "lattice")[0]
    cells = {cell.get("data-cell"): cell for cell in all_of(first, "g", "cell")}
    titles = {key: "".join(cell[0].itertext()) for key, cell in cells.items()}
    assert len(titles) == 25
    seeds = r"diverged\nseed 0: diverged, 1: 0\.\d+, 2: 0\.\d+"
    assert re.fullmatch(rf"α 2⁻⁹ = 0\.00195, λ 2⁻⁷ = 0\.00781\n{seeds}", titles["0-0"])
    (best,) = (line for title in titles.values() for line in title.splitlines() if "the best cell" in line)
    assert re.match(r"val_loss 0\.\d+ ± 0\.\d+, the best cell, best of its row", best)
    assert sum("one of the ten best" in title for title in titles.values()) == 9
    ink = all_of(first, "g", "ink")[0]
    assert [len(all_of(ink, *kind)) for kind in (("path", "star"), ("rect", "ring"))] == [1, 10]
    assert [node.text for node in all_of(ink, "text") if str(node.text).endswith("~")] == [".415~"]
    lines = [line for line in all_of(first, "polyline") if line.get("class") != "halo"]
    points = [tuple(map(float, p.split(","))) for line in lines for p in str(line.get("points")).split()]
    for (x, y), (i, minimum) in zip(points, found.separability.ridge, strict=True):
        j = int(np.abs(np.log2(found.surface.weight_decay) - minimum).argmin())
        rect = known(cells[f"{i}-{j}"].find("{*}rect"))
        left, top, width, height = (float(rect.attrib[name]) for name in ("x", "y", "width", "height"))
        assert left - 0.1 <= x <= left + width + 0.1
        assert y == pytest.approx(top + height / 2)
    lattice = all_of(parsed(page([based()])), "svg", "lattice")[0]
    rects = [known(cell.find("{*}rect")) for cell in all_of(lattice, "g", "cell")]
    gaps = np.diff(sorted({float(rect.attrib["x"]) for rect in rects}))
    assert gaps[0] > gaps[1] == pytest.approx(gaps[2]), "the column without decay stands apart"
    assert raised("2⁻⁷·⁵ = <") == "2<sup>−7.5</sup> = &lt;"
    axis = slope_axis([wide := examples.having(margin=0.5)])
    for start, width, verdict in axis["bands"]:
        middle = {"separable": 0.0, "product-coupled": -1.0}[verdict]
        ends = [axis["place"](middle - 0.5), axis["place"](middle + 0.5)]
        assert np.allclose([start, start + width], ends), verdict
    assert "<i>m</i> = 0.5." in page([wide])


def test_curves_of_file_and_script_are_the_same_and_stay_small(monkeypatch: pytest.MonkeyPatch) -> None:
    found = measured()
    tree = parsed(page([found]))
    data = json.loads(all_of(tree, "script", "data")[0].text or "")
    panel = all_of(all_of(tree, "figure", "curves")[0], "g", "plot")[0]
    in_file = [line.get("points", "").split() for line in all_of(all_of(panel, "g", "best")[0], "polyline")]
    lanes = data["cells"]["{}-{}".format(*known(found.surface.best()))][0]
    assert in_file == [[f"{x},{y}" for x, y in zip(data["x"], lane, strict=False)] for lane in lanes]
    assert (len(in_file), len(data["x"])) == (3, EPOCHS)
    assert [len(lane) for lane in data["cells"]["0-0"][0]] == [0, EPOCHS, EPOCHS]  # one diverged
    assert not all_of(parsed(page([study()])), "script", "data")
    monkeypatch.setattr("lrwd_sweep.report.view.pictures._POINTS", 1000)
    data = json.loads(all_of(parsed(page([found])), "script", "data")[0].text or "")
    assert len(data["cells"]) <= 3  # only those of the chosen cells


CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVEN = """
const cell = (key) => document.querySelector(`[data-cell="${key}"]`);
cell("2-2").dispatchEvent(new MouseEvent("click", {bubbles: true}));
cell("2-2").focus();
cell("2-2").dispatchEvent(new KeyboardEvent("keydown", {key: "ArrowUp", bubbles: true}));
const lines = document.querySelectorAll(".study .panels .selected polyline").length;
const reading = document.querySelector(".reading").textContent;
const loaded = performance.getEntriesByType("resource").length;
document.title = `${loaded} ${lines} ${document.activeElement.dataset.cell} ${reading}`;
"""


def browse(text: str, folder: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    assert CHROMIUM, "install chromium: apt-get install chromium"
    (path := folder / "report.html").write_text(text, encoding="utf-8")
    quiet = (
        "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
        "--disable-component-update --disable-sync --enable-logging=stderr --window-size=1280,1600"
    )
    command = [CHROMIUM, *quiet.split(), f"--user-data-dir={folder}/profile", *flags, path.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)


@pytest.mark.browser
def test_browser_loads_nothing_and_walks_the_lattice(tmp_path: Path) -> None:
    text = page([measured("a", "adam"), measured("b")])
    loading = text.replace("</main>", '</main><img src="picture.png" alt="">')
    assert "Content Security Policy" in browse(loading, tmp_path, "--dump-dom").stderr
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)
    driven = text.replace("</body>", f"<script>{DRIVEN}</script></body>")
    title, *_ = re.findall("<title>(.*?)</title>", browse(driven, tmp_path, "--dump-dom").stdout, re.S)
    assert title.startswith("0 6 3-2 α 2⁻⁶ = 0.0156, λ′ 2⁻⁵ = 0.0312")  # nothing loaded; six lines


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


def test_formulas_are_mathematics_and_ticks_are_few() -> None:
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
        panels = parsed(scaled_html(scaled)).iterfind(".//div[@class='law']")
        classes = [node.get("class") for panel in panels for node in panel.iter()]
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
