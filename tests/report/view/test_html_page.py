"""The HTML report is well formed, harmless and self-contained, and works in a browser."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from xml.etree.ElementTree import Element

import html5lib
import matplotlib.image
import numpy as np
import pytest

from lrwd_sweep.report.gates import GateOutcome
from lrwd_sweep.report.result import Result, comparison, result
from lrwd_sweep.report.view.html_page import html, raised
from lrwd_sweep.report.view.scale import colour, luminance
from lrwd_sweep.science.decay import DecayRule
from lrwd_sweep.science.lattice import Lattice
from lrwd_sweep.science.optimizer import Optimizer
from lrwd_sweep.science.trial import Status, Trial
from lrwd_sweep.spec.study import Kind
from tests.report.view.examples import HOSTILE, harmful, study

LOADERS = {"link", "img", "iframe", "object", "embed", "image", "use", "video", "audio", "base", "form"}
EPOCHS = 30


def page(results: list[Result], outcomes: tuple[GateOutcome, ...] = ()) -> str:
    """A report of all results, compared pair by pair."""
    return html(results, [comparison(a, b) for a, b in pairwise(results)], outcomes)


def parsed(text: str) -> Element:
    """The page by a parser that raises at the first error of syntax."""
    tree: Element = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse(text)
    return tree


def all_of(tree: Element, tag: str, class_: str = "") -> list[Element]:
    """Elements by tag, whatever their namespace, and class."""
    return [
        node
        for node in tree.iter()
        if str(node.tag).split("}")[-1] == tag and (not class_ or class_ in node.get("class", "").split())
    ]


@cache
def with_curves(found: Result) -> Result:
    """The same study whose lanes have learning curves; the diverged one breaks off after ten epochs."""
    trials = []
    for k, trial in enumerate(found.trials):
        end = trial.metrics.get("val_loss", 0.5)
        losses = end + 2 * np.exp(-np.arange(EPOCHS) / 5) + 0.01 * (k % 7)
        if trial.status is Status.DIVERGED:
            losses[10:] = np.nan
        curves = {"val_loss": tuple(losses), "train_loss": tuple(losses / 2), "val_error": tuple(losses / 9)}
        trials.append(replace(trial, curves=curves))
    return result(found.name, found.spec, found.created, trials)


@cache
def large(rows: int, columns: int, seeds: int) -> Result:
    """A study of many cells, with curves of 60 epochs."""
    spec = study().spec
    lattice = Lattice(
        tuple(2.0 ** (k / 4) for k in range(-rows, 0)),
        (0.0, *(2.0 ** (k / 4) for k in range(1 - columns, 0))),
    )
    rng = np.random.default_rng(0)
    trials = []
    for cell in lattice.cells():
        for seed in range(seeds):
            curve = tuple(rng.uniform(0.1, 2.0, 60))
            metrics = {"val_loss": curve[-1]}
            trials.append(
                Trial(cell, seed, Status.COMPLETE, metrics, {"val_loss": curve, "train_loss": curve})
            )
    return result("large", replace(spec, lattice=lattice, seeds=tuple(range(seeds))), "", trials)


@cache
def lost() -> Result:
    """A study without any value."""
    found = study("lost")
    return result(
        "lost", found.spec, "", [replace(t, status=Status.DIVERGED, metrics={}) for t in found.trials]
    )


def hostile() -> Result:
    """A study whose names mean harm."""
    return study(HOSTILE, Optimizer(None, DecayRule.COUPLED, HOSTILE), kind=Kind.IMPORT)


CASES: dict[str, Callable[[], list[Result]]] = {
    "one": lambda: [study()],
    "two": lambda: [study("a", "adam"), study("b")],
    "curves": lambda: [with_curves(study("a", "adam")), with_curves(study("b"))],
    "some curves": lambda: [with_curves(study("a", "adam")), study("b")],
    "one seed": lambda: [study(seeds=1)],
    "search": lambda: [with_curves(study(kind=Kind.TPE))],
    "hostile": lambda: [hostile(), study()],
    "lost": lambda: [lost(), study()],
    "wide": lambda: [large(5, 20, 2)],
}


def test_pages_are_well_formed_with_headings_and_refer_to_nothing_outside() -> None:
    for case, results in CASES.items():
        text = page(results())
        tree = parsed(text)
        ids = [node.get("id") for node in tree.iter() if node.get("id")]
        assert len(ids) == len(set(ids)), case
        assert {node.get("aria-labelledby") for node in tree.iter()} - {None} <= set(ids), case
        assert len(all_of(tree, "h1")) == 1, case
        assert next(tree.iter("html")).get("lang") == "en", case
        assert all(all_of(table, "caption") for table in all_of(tree, "table")), case

        assert not LOADERS & {str(node.tag).split("}")[-1] for node in tree.iter()}, case
        names = {name.split("}")[-1] for node in tree.iter() for name in node.attrib}
        assert not {"src", "href", "srcset", "style"} & names, case
        assert not [name for name in names if name.startswith("on")], case
        style = all_of(tree, "style")[0].text or ""
        assert not re.search(r"url\(|@import", style), case
        assert set(re.findall(r"\w+://\S*", text)) <= {'http://www.w3.org/2000/svg",'}, case


def test_the_policy_allows_this_style_and_this_script_alone() -> None:
    tree = parsed(page([with_curves(study())]))
    policy = next(n for n in all_of(tree, "meta") if n.get("http-equiv") == "Content-Security-Policy")
    rules = dict(rule.split(" ", 1) for rule in str(policy.get("content")).split("; "))
    assert rules["default-src"] == "'none'"
    for name, element in (("style", all_of(tree, "style")[0]), ("script", all_of(tree, "script")[-1])):
        digest = base64.b64encode(hashlib.sha256((element.text or "").encode()).digest()).decode()
        assert rules[f"{name}-src"] == f"'sha256-{digest}'"


def test_the_same_results_give_the_same_bytes() -> None:
    assert page(CASES["curves"]()) == page(CASES["curves"]())


def test_hostile_names_are_text() -> None:
    text = page([hostile(), study()])
    assert not harmful(text)
    tree = parsed(text)
    assert len(all_of(tree, "script")) == 1  # ours
    assert "`<script>\\n\\u202e=cmd() @all" in "".join(all_of(tree, "h1")[0].itertext())


def test_every_cell_tells_its_place_value_and_seeds() -> None:
    cells = {cell.get("data-cell"): cell for cell in all_of(parsed(page([study()])), "g", "cell")}
    titles = ["".join(cell[0].itertext()) for cell in cells.values()]
    assert len(titles) == 25
    assert re.fullmatch(
        r"α 2⁻⁹ = 0\.00195, λ 2⁻⁷ = 0\.00781\ndiverged\nseed 0: diverged, 1: 0\.\d+, 2: 0\.\d+",
        "".join(cells["0-0"][0].itertext()),
    )
    values = [line for title in titles for line in title.splitlines() if "the best cell" in line]
    assert len(values) == 1
    assert re.match(r"val_loss 0\.\d+ ± 0\.\d+, the best cell, best of its row", values[0])
    assert sum("one of the ten best" in title for title in titles) == 9


def test_marks_are_signs_and_not_colours_alone() -> None:
    ink = all_of(parsed(page([study()])), "g", "ink")[0]
    assert len(all_of(ink, "path", "star")) == 1
    assert len(all_of(ink, "rect", "ring")) == 10
    assert [node.text for node in all_of(ink, "text") if str(node.text).endswith("~")] == [".415~"]
    ink = all_of(parsed(page([study(seeds=1)])), "g", "ink")[0]
    glyphs = [node.text for node in all_of(ink, "text", "none")]
    assert sorted(str(glyph) for glyph in glyphs) == ["!", "·", "×"]


def test_a_large_lattice_keeps_its_marks_without_numbers() -> None:
    ink = all_of(parsed(page([large(5, 20, 2)])), "g", "ink")[0]
    assert not all_of(ink, "text")
    assert len(all_of(ink, "circle", "ring")) == 9
    assert len(all_of(ink, "path", "star")) == 1


def test_studies_share_the_scale_of_their_metric() -> None:
    found = study("a", "adam")
    worse = [replace(t, metrics={m: v + 0.05 for m, v in t.metrics.items()}) for t in found.trials]
    tree = parsed(page([found, result("worse", study("b").spec, "", worse)]))
    first, second = (
        {cell.get("data-cell"): cell.get("color") for cell in all_of(lattice, "g", "cell")}
        for lattice in all_of(tree, "svg", "lattice")
    )
    assert first["2-2"] != second["2-2"]
    assert len(all_of(tree, "linearGradient")) == 1


def test_the_baseline_column_stands_apart() -> None:
    squares = [cell.find("{*}rect") for cell in all_of(parsed(page([large(5, 12, 2)])), "g", "cell")]
    row = sorted({float(str(rect.get("x"))) for rect in squares if rect is not None})
    gaps = np.diff(row)
    assert gaps[0] > gaps[1]
    assert gaps[1:] == pytest.approx(gaps[1])


def test_the_ridge_runs_through_the_best_decay_of_its_rows() -> None:
    found = study(seeds=3)
    tree = parsed(page([found]))
    lines = [n for n in all_of(all_of(tree, "svg", "lattice")[0], "polyline") if n.get("class") != "halo"]
    points = [tuple(map(float, p.split(","))) for line in lines for p in str(line.get("points")).split()]
    squares = {c.get("data-cell"): c.find("{*}rect") for c in all_of(tree, "g", "cell")}
    assert len(points) == len(found.separability.ridge) > 0
    for (x, y), (i, minimum) in zip(points, found.separability.ridge, strict=True):
        j = int(np.abs(np.log2(found.surface.weight_decay) - minimum).argmin())
        rect = squares[f"{i}-{j}"]
        assert rect is not None
        left, top, width, height = (float(str(rect.get(name))) for name in ("x", "y", "width", "height"))
        assert left - 0.1 <= x <= left + width + 0.1
        assert y == pytest.approx(top + height / 2)


def test_every_metric_comparison_gate_and_recommendation_is_there() -> None:
    gate = GateOutcome("max-best", "b", 0.2, 0.1, False, "too much")
    a, b = study("a", "adam"), study("b")
    text = "".join(parsed(page([a, b], (gate,))).itertext())
    assert comparison(a, b).comparison.verdict in text
    for label in (
        "ridge slope s", "curvature coupling ρ", "transfer regret, 1 octave", "interaction share",
        "top-10 tilt", "basin", "w lr-scaled", "on the test split", "slope difference", "FAILED",
        "torch.optim.AdamW(params, lr=", "How it was computed", "hold for this basin",
    ):  # fmt: skip
        assert label in text


def test_exponents_are_superscripts() -> None:
    assert raised("2⁻⁷·⁵ = <") == "2<sup>−7.5</sup> = &lt;"
    assert "−9" in {node.text for node in all_of(parsed(page([study()])), "tspan", "exponent")}


def points_of(tree: Element, series: str) -> list[str]:
    """The polylines of one series in the first panel."""
    panel = all_of(all_of(tree, "figure", "curves")[0], "g", "plot")[0]
    return [str(line.get("points")) for line in all_of(all_of(panel, "g", series)[0], "polyline")]


def test_a_curve_drawn_by_the_script_is_the_one_in_the_file() -> None:
    found = with_curves(study())
    tree = parsed(page([found]))
    data = json.loads(all_of(tree, "script", "data")[0].text or "")
    best = found.surface.best()
    assert best is not None
    drawn = [
        " ".join(f"{x},{y}" for x, y in zip(data["x"], lane, strict=False))
        for lane in data["cells"]["{}-{}".format(*best)][0]
    ]
    assert points_of(tree, "best") == drawn
    assert len(drawn) == 3
    assert len(data["x"]) == EPOCHS
    assert points_of(tree, "worst")


def test_a_diverged_curve_breaks_off() -> None:
    data = json.loads(all_of(parsed(page([with_curves(study())])), "script", "data")[0].text or "")
    assert [len(lane) for lane in data["cells"]["0-0"][0]] == [10, EPOCHS, EPOCHS]


def test_without_curves_there_is_no_figure_of_them() -> None:
    tree = parsed(page([study()]))
    assert not all_of(tree, "figure", "curves")
    assert not all_of(tree, "script", "data")


def test_a_thousand_cells_fit_in_five_megabytes() -> None:
    text = page([large(25, 40, 3)])
    assert text.count('class="cell') >= 1000
    assert len(text.encode()) < 5e6


def test_curves_of_a_huge_lattice_are_those_of_the_chosen_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lrwd_sweep.report.view.svg_curves._POINTS", 1000)
    data = json.loads(all_of(parsed(page([large(5, 20, 2)])), "script", "data")[0].text or "")
    assert len(data["cells"]) <= 3


def test_text_stands_out_from_the_ground_in_light_and_dark() -> None:
    style = files("lrwd_sweep.report.view").joinpath("templates/style.css").read_text("utf-8")
    schemes = [
        dict(re.findall(r"--(\w+): (#\w{6})", block)) for block in re.findall(r":root \{(.*?)\}", style, re.S)
    ]
    for colours in (schemes[0], schemes[1]):
        light = {
            name: luminance((int(code[1:3], 16), int(code[3:5], 16), int(code[5:7], 16)))
            for name, code in colours.items()
        }
        for ink in ("ink", "muted", "best", "worst", "centre", "selected"):
            for ground in ("ground", "raised", "none") if ink == "ink" else ("ground",):
                low, high = sorted((light[ink], light[ground]))
                assert (high + 0.05) / (low + 0.05) >= 4.5, (ink, ground)


def test_other_reports_do_not_load_the_template_library() -> None:
    code = "import sys, lrwd_sweep.report.view.html_page; sys.exit('jinja2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


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


def browse(url: str, folder: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    """Open a page in chromium without a window."""
    assert CHROMIUM, "install chromium: apt-get install chromium"
    quiet = (
        "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
        "--disable-component-update --disable-sync --enable-logging=stderr --window-size=1280,1600"
    )
    return subprocess.run(
        [CHROMIUM, *quiet.split(), f"--user-data-dir={folder / 'profile'}", *flags, url],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )


@pytest.mark.browser
def test_a_browser_complains_of_nothing_and_shows_the_ramp(tmp_path: Path) -> None:
    file, picture = tmp_path / "report.html", tmp_path / "report.png"
    file.write_text(page(CASES["curves"]()), encoding="utf-8")
    assert "CONSOLE" not in browse(file.as_uri(), tmp_path, f"--screenshot={picture}").stderr
    pixels = (255 * matplotlib.image.imread(picture)[::4, ::4, :3]).round().astype(int).reshape(-1, 3)
    assert colour(1) in {tuple(map(int, rgb)) for rgb in pixels}


@pytest.mark.browser
def test_the_policy_keeps_the_page_from_loading_anything(tmp_path: Path) -> None:
    file = tmp_path / "loading.html"
    text = page(CASES["curves"]()).replace("</main>", '</main><img src="picture.png" alt="">')
    file.write_text(text, encoding="utf-8")
    assert "Content Security Policy" in browse(file.as_uri(), tmp_path, "--dump-dom").stderr


@pytest.mark.browser
def test_a_click_draws_curves_arrows_walk_the_lattice_and_nothing_is_loaded(tmp_path: Path) -> None:
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page(CASES["curves"]()))
    file = tmp_path / "driven.html"
    file.write_text(text.replace("</body>", f"<script>{DRIVEN}</script></body>"), encoding="utf-8")
    found = re.search("<title>(.*?)</title>", browse(file.as_uri(), tmp_path, "--dump-dom").stdout, re.S)
    assert found is not None
    assert found[1].startswith(
        "0 6 3-2 α 2⁻⁶ = 0.0156, λ′ 2⁻⁵ = 0.0312"
    )  # nothing loaded; three seeds, two panels
