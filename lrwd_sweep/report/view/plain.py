"""Make any text harmless: names come from files, presets and other people's sweeps."""

from __future__ import annotations

import unicodedata

_HARMFUL = frozenset({"Cc", "Cf", "Cn", "Cs", "Zl", "Zp"})  # control, bidi, separators, …
_FORMULA_STARTS = tuple("=+-@＝＋－＠")


def plain(text: str) -> str:
    r"""`text` on one line, with control, bidirectional and other invisible characters shown as escapes.

    >>> plain("a\x1b[31mb\n\u202ec")
    'a\\x1b[31mb\\n\\u202ec'
    """
    return "".join(map(_visible, text))


def _visible(character: str) -> str:
    if unicodedata.category(character) in _HARMFUL:
        return character.encode("unicode_escape").decode()
    return character


def spreadsheet_text(text: str) -> str:
    """`plain(text)` as a cell that no spreadsheet takes for a formula: an apostrophe stands before = + - @.

    >>> spreadsheet_text("=cmd()")
    "'=cmd()"
    """
    harmless = plain(text)
    return f"'{harmless}" if harmless.lstrip().startswith(_FORMULA_STARTS) else harmless
