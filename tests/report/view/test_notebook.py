"""A study in a notebook: well-formed, harmless, in the notebook's own ink, and styling nothing around it."""

from __future__ import annotations

import re
from itertools import pairwise
from xml.etree.ElementTree import Element

import html5lib
import pytest

from lrwd_sweep.report.result import Result, comparison, result
from lrwd_sweep.report.view.html.lattice import hexadecimal
from lrwd_sweep.report.view.notebook import fragment
from lrwd_sweep.report.view.ramp import colour
from lrwd_sweep.science.decay import DecayRule
from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.science.optimizer import Optimizer
from lrwd_sweep.spec.study import Kind
from tests.report.view.examples import HOSTILE, study

LOADERS = {"script", "link", "img", "iframe", "object", "embed", "image", "use", "base", "form", "input"}


def lost() -> Result:
    """A study without any value."""
    found = study("lost")
    return result("lost", found.spec, "", [])


CASES = {
    "one": lambda: [study()],
    "two": lambda: [study("a", "adam"), study("b")],
    "search": lambda: [study(kind=Kind.TPE)],
    "lost": lambda: [lost(), study()],
    "hostile": lambda: [
        study(HOSTILE, Optimizer(None, DecayRule.COUPLED, HOSTILE), kind=Kind.IMPORT),
        study("</style><script>alert(1)</script>"),
    ],
}


def shown(results: list[Result]) -> str:
    """All of them, compared pair by pair."""
    return fragment(results, [comparison(a, b) for a, b in pairwise(results)])


def parsed(text: str) -> Element:
    """The piece as a parser reads it that raises at the first error of syntax."""
    tree: Element = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse(
        f"<!DOCTYPE html><title>notebook</title>{text}"
    )
    return tree


def elements(tree: Element) -> list[tuple[str, Element]]:
    """Every element below the body with its tag, whatever its namespace."""
    body = tree.find("body")
    assert body is not None
    return [(str(node.tag).split("}")[-1], node) for node in body.iter() if node is not body]


@pytest.mark.parametrize("case", CASES)
def test_it_is_one_element_that_runs_and_loads_nothing(case: str) -> None:
    text = shown(CASES[case]())
    tree = parsed(text)
    body = tree.find("body")
    assert body is not None
    assert [child.get("class") for child in body] == ["lrwd-sweep"]
    found = elements(tree)
    assert not LOADERS & {tag for tag, _ in found}
    assert not {name for _, node in found for name in node.attrib if name.startswith("on")}
    assert not {name for _, node in found for name in node.attrib if name.split("}")[-1] in ("href", "src")}
    assert not re.search(r"@import|url\((?!#)", text)


@pytest.mark.parametrize("case", CASES)
def test_names_are_text(case: str) -> None:
    text = shown(CASES[case]())
    assert not [c for c in text if c != "\n" and not c.isprintable()]
    styles = [node.text or "" for tag, node in elements(parsed(text)) if tag == "style"]
    assert len(styles) == 1
    assert "alert" not in styles[0]


def test_its_style_reaches_nothing_outside() -> None:
    """One rule holds all others: nested, they apply below its element alone."""
    (style,) = [node.text or "" for tag, node in elements(parsed(shown(CASES["one"]()))) if tag == "style"]
    assert style.strip().startswith(".lrwd-sweep {")
    depth, outside = 0, ""
    for character in style.strip():
        depth += (character == "{") - (character == "}")
        outside += character if depth == 0 else ""
    assert depth == 0
    assert outside == ".lrwd-sweep }"


def test_its_ink_is_the_notebooks() -> None:
    """Colours of its own stand only where there is a tile below them: on the squares of the lattice."""
    (style,) = [node.text or "" for tag, node in elements(parsed(shown(CASES["one"]()))) if tag == "style"]
    own = re.findall(r"^(.*?) \{[^}]*#[0-9a-f]{3}", style, re.M)
    assert own
    assert all(re.match(r"\.(ink|ring|star|light|ridge)\b", selector) for selector in own)
    assert "--ink: currentColor" in style
    assert not re.search(r"background|color-scheme|prefers", style)


@pytest.mark.parametrize("case", ["one", "two"])
def test_every_cell_is_a_square_and_the_best_is_the_brightest(case: str) -> None:
    results = CASES[case]()
    found = elements(parsed(shown(results)))
    squares = [node for tag, node in found if tag == "g" and "cell" in node.get("class", "").split()]
    assert len(squares) == 25 * len(results)
    best = results[0].best
    assert isinstance(best, Cell)
    (brightest, *_) = [node for node in squares if node.get("color") == hexadecimal(colour(1))]
    reading = next(node.text for node in brightest.iter() if str(node.tag).endswith("title"))
    assert reading is not None
    assert "the best cell" in reading


def test_it_says_the_verdict_the_best_cell_and_what_to_paste() -> None:
    text = "".join(parsed(shown([study()])).itertext())
    for said in (
        "ridge slope s =",
        "best and most forgiving: α = ",
        "torch.optim.AdamW(params",
        "Study study",
    ):
        assert said in text


def test_two_pictures_on_a_page_share_no_id() -> None:
    page = fragment([study("a")]) + fragment([study("b")])
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids)) == 2
    assert set(re.findall(r"url\(#([^)]+)\)", page)) == set(ids)


def test_the_same_study_is_the_same_text() -> None:
    assert fragment([study()]) == fragment([study()])
