"""`lrwd-sweep docs`: the user's guide, one Markdown file per page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lrwd_sweep.errors import UnknownName
from lrwd_sweep.report.view import consoles
from lrwd_sweep.report.view.notation import to_ascii

FOLDER = Path(__file__).parents[1] / "docs"
_WIDEST = 100  # columns of running text

Page = Annotated[
    str | None,
    typer.Argument(metavar="PAGE", help="A page's name (default: list the pages).", show_default=False),
]


def docs(page: Page = None) -> None:
    """Show a page of the user's guide; without a name, list the pages."""
    pages = {path.stem: path.read_text(encoding="utf-8") for path in sorted(FOLDER.glob("*.md"))}
    console = consoles.stdout()
    if page is None:
        width = max(map(len, pages))
        console.print(*(f"{name:{width}}  {_title(text)}" for name, text in pages.items()), sep="\n")
        console.print("\nlrwd-sweep docs PAGE shows a page.")
        return
    name = page.removesuffix(".md")
    if name not in pages:
        raise UnknownName("page", page, pages)
    text = to_ascii(pages[name]) if console.options.ascii_only else pages[name]
    if console.color_system is None:
        consoles.write(text)
    else:
        from rich.markdown import Markdown

        console.print(Markdown(text, hyperlinks=False), width=min(console.width, _WIDEST))


def _title(text: str) -> str:
    """Return the first heading of a page.

    >>> _title("# In CI\\n\\nText.")
    'In CI'
    """
    return text.partition("\n")[0].removeprefix("# ")
