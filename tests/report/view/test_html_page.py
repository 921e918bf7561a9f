"""The HTML report is well formed, harmless and self-contained, and works in a browser."""

import base64
import hashlib
import json
import re
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path
from xml.etree.ElementTree import Element

import html5lib
import numpy as np
import pytest

from lrwd_sweep.report.result import Result, comparison
from lrwd_sweep.report.view.html_page import html, raised, slope_axis
from lrwd_sweep.spec.study import Kind
from tests.report.view.examples import EPOCHS, harmful, having, known, labelled, lost, measured, study
from tests.report.view.test_tables import based

LOADERS = {"link", "img", "iframe", "object", "embed", "image", "use", "video", "audio", "base", "form"}


def page(results: list[Result]) -> str:
    return html(results, [comparison(a, b) for a, b in pairwise(results)])


def parsed(text: str) -> Element:
    tree: Element = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse(text)
    return tree


def all_of(tree: Element, tag: str, class_: str = "") -> list[Element]:
    found = tree.iterfind(f".//{{*}}{tag}")
    return [node for node in found if not class_ or class_ in node.get("class", "").split()]


def test_pages_are_well_formed_and_load_nothing() -> None:
    hostile = [labelled(), study()]
    search = [measured(kind=Kind.TPE), study("b", seeds=1)]
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
    wide = having(margin=0.5)
    axis = slope_axis([wide])
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
    (folder / "report.html").write_text(text, encoding="utf-8")
    quiet = (
        "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
        "--disable-component-update --disable-sync --enable-logging=stderr --window-size=1280,1600"
    )
    command = [CHROMIUM, *quiet.split(), f"--user-data-dir={folder / 'profile'}", *flags]
    url = (folder / "report.html").as_uri()
    return subprocess.run([*command, url], capture_output=True, text=True, timeout=120, check=True)


@pytest.mark.browser
def test_browser_loads_nothing_and_walks_the_lattice(tmp_path: Path) -> None:
    text = page([measured("a", "adam"), measured("b")])
    loading = text.replace("</main>", '</main><img src="picture.png" alt="">')
    assert "Content Security Policy" in browse(loading, tmp_path, "--dump-dom").stderr
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)
    driven = text.replace("</body>", f"<script>{DRIVEN}</script></body>")
    title, *_ = re.findall("<title>(.*?)</title>", browse(driven, tmp_path, "--dump-dom").stdout, re.S)
    assert title.startswith("0 6 3-2 α 2⁻⁶ = 0.0156, λ′ 2⁻⁵ = 0.0312")  # nothing loaded; six lines
