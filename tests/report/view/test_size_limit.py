"""A text that is too long says where it was cut, and stays markdown."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lrwd_sweep.report.view.size_limit import CUT, LEFT_OUT, MOST_CHARACTERS, fitted

CODE = "```python\nfirst\n\nsecond\n```"


def markdown(*blocks: str) -> str:
    return "\n\n".join(blocks) + "\n"


def test_what_fits_is_left_as_it_is() -> None:
    text = markdown("a", CODE, "b" * 50)
    assert fitted(text, len(text)) == text


def test_the_longest_block_gives_way_and_the_rest_stays() -> None:
    text = markdown("# a", "x" * 300, "b", "y" * 500, "# the verdict")
    assert fitted(text, 500) == markdown("# a", "x" * 300, "b", LEFT_OUT, "# the verdict")


def test_many_short_blocks_are_cut_at_a_block() -> None:
    text = markdown(*(f"# {k}" for k in range(1000)))
    cut = fitted(text, 300)
    assert cut.endswith(f"\n\n{CUT}\n")
    assert text.startswith(cut.removesuffix(f"{CUT}\n"))


def test_code_is_never_cut_in_two() -> None:
    text = markdown("a", CODE, *(["b" * 20] * 30), CODE)
    for most in range(200, len(text)):
        found = fitted(text, most)
        assert found.count("```") in (0, 2, 4)
        assert found.count("first") == found.count("second")


@given(st.lists(st.integers(1, 300), max_size=60), st.integers(150, 2000))
def test_the_result_is_never_longer_than_asked(sizes: list[int], most: int) -> None:
    assert len(fitted(markdown(*("x" * size for size in sizes)), most)) <= most


def test_the_limit_is_that_of_a_comment_on_a_pull_request() -> None:
    assert MOST_CHARACTERS <= 65_536
    assert 4 * MOST_CHARACTERS < 900_000  # bytes, of whatever characters
