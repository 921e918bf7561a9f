"""Notation of marks, axis values, numbers, formulas and untrusted text, in Unicode or ASCII."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from rich.text import Text

from lrwd_sweep.science.lattice import format_value

if TYPE_CHECKING:
    from lrwd_sweep.science.separability import Estimate  # which loads numpy
    from lrwd_sweep.science.surface import Surface

_NUMBER = re.compile(r"\d+")
_MANY_DIGITS = 1e7  # from here on numbers are written with an exponent
_HARMFUL = frozenset({"Cc", "Cf", "Cn", "Cs", "Zl", "Zp"})  # control, bidirectional, separators, …


def plain(text: str) -> str:
    r"""Put `text` on one line, with control, bidirectional and other invisible characters as escapes.

    >>> plain("a\x1b[31mb\n\u202ec")
    'a\\x1b[31mb\\n\\u202ec'
    """
    return "".join(
        c.encode("unicode_escape").decode() if unicodedata.category(c) in _HARMFUL else c for c in text
    )


def styled(text: str, ascii_only: bool, style: str = "") -> Text:
    """Make untrusted text printable on a console, in ASCII if the console has only that."""
    return Text(to_ascii(plain(text)) if ascii_only else plain(text), style=style)


@dataclass(frozen=True, slots=True)
class Glyphs:
    """The characters of a drawing."""

    best: str
    top: str  # the ten best
    ridge: str  # best λ of a row that takes part in the ridge slope
    ridge_apart: str  # best λ of any other row
    diverged: str
    missing: str
    failed: str
    partial: str  # some seeds are missing
    up: str
    right: str
    ascii: bool

    def sign(self, mark: str) -> str:
        """Return the character of a `Mark` or a `Ridge`, whose values are the fields above."""
        return str(getattr(self, mark, ""))

    def symbol(self, letter: str) -> str:
        """Write the letter of a rule's decay."""
        return letter if not self.ascii else "tau/N" if letter.startswith("τ") else "wd"

    @property
    def alpha(self) -> str:
        """The letter of the learning rate."""
        return "lr" if self.ascii else "α"


UNICODE = Glyphs("★", "○", "┃", "│", "×", "·", "!", "~", "↑", "→", ascii=False)
ASCII = Glyphs("*", "o", "|", ":", "x", ".", "!", "~", "^", ">", ascii=True)

_SUPERSCRIPT = str.maketrans("-0123456789.", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹·")
_LOWERED = {raised: letter for letter, raised in _SUPERSCRIPT.items()}
RAISED = re.compile("[⁻⁰¹²³⁴⁵⁶⁷⁸⁹][⁻⁰¹²³⁴⁵⁶⁷⁸⁹·]*")

NEVER = "never trained"  # of a cell that a refined lattice left out
FEWER = "fewer seeds"  # of one that it ruled out with a few


def counted(number: float, noun: str) -> str:
    """Write a number of things.

    >>> counted(1, "seed"), counted(3, "seed"), counted(0.5, "octave")
    ('1 seed', '3 seeds', '0.5 octaves')
    """
    return f"{number:.12g} {noun}{'s' * (number != 1)}"


def about(seconds: float) -> str:
    """Write an estimated duration.

    >>> about(0.2), about(42.4), about(400), about(9000), about(4e5)
    ('about 1 s', 'about 42 s', 'about 7 min', 'about 2.5 h', 'about 4.6 days')
    """
    if seconds < 100:
        return f"about {max(round(seconds), 1)} s"
    if seconds < 100 * 60:
        return f"about {round(seconds / 60)} min"
    return f"about {seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"about {seconds / 86400:.1f} days"


def spent(seconds: float) -> str:
    """Write a measured duration.

    >>> spent(0.2), spent(59.6), spent(3599), spent(36061)
    ('0:00', '1:00', '59:59', '10:01:01')
    """
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"


def superscript(text: str) -> str:
    """Raise digits, sign and decimal point.

    >>> superscript("-7.5")
    '⁻⁷·⁵'
    """
    return text.translate(_SUPERSCRIPT)


def short_decimal(value: float, digits: int = 3) -> str:
    """Write `value` to `digits` significant digits, with an exponent if that is shorter.

    >>> short_decimal(0.05), short_decimal(0.0001), short_decimal(9.765625e-5)
    ('0.05', '1e-4', '9.77e-5')
    """
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    if "." in mantissa:
        mantissa = mantissa.rstrip("0").rstrip(".")
    scientific = f"{mantissa}e{int(exponent)}"
    decimal = f"{float(f'{value:.{digits - 1}e}'):.{max(0, digits - 1 - int(exponent))}f}"
    if "." in decimal:
        decimal = decimal.rstrip("0").rstrip(".")
    return decimal if len(decimal) <= max(5, len(scientific)) else scientific


class AxisStyle(StrEnum):
    """The labels of the lattices' axes."""

    POWERS = "powers"  # of two, if the whole axis has them
    DECIMAL = "decimal"
    TAU = "tau"  # of decay: its averaging time as a share of the run, where α does not decide it


_AXES = ContextVar("axes", default=AxisStyle.POWERS)


@contextmanager
def labelled_axes(style: AxisStyle) -> Iterator[None]:
    """Label axes in this style within the block, in every view."""
    token = _AXES.set(style)
    try:
        yield
    finally:
        _AXES.reset(token)


def axes_are_decimal() -> bool:
    """Tell if all axes are labelled by decimals here."""
    return _AXES.get() is AxisStyle.DECIMAL


def decay_symbol(surface: Surface) -> str:
    """Return the letter of the columns' labels: τ/N is τ as a share of the run's steps."""
    return "τ/N" if _AXES.get() is AxisStyle.TAU and surface.tau_of_one else surface.symbol


def decay_labels(surface: Surface, values: Sequence[float], glyphs: Glyphs) -> list[str]:
    """Label decays as `axis_labels` does, or by τ = 1/λ as a share of the run, ∞ without decay."""
    if not (_AXES.get() is AxisStyle.TAU and surface.tau_of_one):
        return axis_labels(values, glyphs)
    times = [surface.tau_of_one / value if value else math.inf for value in values]
    with labelled_axes(AxisStyle.DECIMAL):
        finite = iter(axis_labels([time for time in times if time < math.inf], glyphs))
    return [next(finite) if time < math.inf else ("inf" if glyphs.ascii else "∞") for time in times]


def axis_labels(values: Sequence[float], glyphs: Glyphs) -> list[str]:
    """Label every value: powers of two (half powers too) if the whole axis is, else short decimals.

    Under AxisStyle.DECIMAL always short decimals.

    >>> axis_labels([2**-7.5, 2.0], UNICODE), axis_labels([0.0, 0.01, 0.1], UNICODE)
    (['2⁻⁷·⁵', '2¹'], ['0', '0.01', '0.1'])
    """
    powers = [format_value(value) for value in values]
    if not axes_are_decimal() and all(
        text.startswith("2^") or value == 0 for text, value in zip(powers, values, strict=True)
    ):
        if glyphs.ascii:
            return powers
        return [text if text == "0" else "2" + superscript(text[2:]) for text in powers]
    for digits in range(3, 12):
        labels = [short_decimal(value, digits) for value in values]
        if len(set(labels)) == len(values):
            return labels
    return powers


def lattice_value(value: float) -> str:
    """Write a power of two with its decimal, any other value only as decimal."""
    label, decimal = axis_labels([value], UNICODE)[0], short_decimal(value)
    power = format_value(value).startswith("2^") and not axes_are_decimal()
    return f"{label} = {decimal}" if power else decimal


def with_error(value: float, sem: float | None) -> str:
    """Write value ± standard error, to the error's second digit; absurdly large numbers in short."""
    if sem is None or sem == 0:
        return short_decimal(value, 4)
    if max(abs(value), sem) >= _MANY_DIGITS:
        return f"{short_decimal(value, 4)} ± {short_decimal(sem, 2)}"
    places = min(max(1 - math.floor(math.log10(sem)), 0), 12)
    return f"{value:.{places}f} ± {sem:.{places}f}"


def estimate_text(estimate: Estimate, places: int | None = 2) -> str:
    """Write value and 90 % interval to `places` decimals, or why there is none.

    With `places` None, for numbers in the metric's units, three digits of the largest of the three.
    """
    if estimate.value is None:
        return f"undetermined: {estimate.reason}" if estimate.reason else "undetermined"
    numbers = [x for x in (estimate.value, estimate.low, estimate.high) if x is not None]
    text, *interval = alike(numbers, places)
    if len(interval) == 2:
        text += f" [{', '.join(interval)}]"
    return text + (f" ({estimate.reason})" if estimate.reason else "")


def alike(numbers: Sequence[float], places: int | None) -> list[str]:
    """Write numbers to the same decimal place, with a true minus and no minus before zero."""
    if places is None:
        largest = max(map(abs, numbers)) or 1.0
        places = 2 - math.floor(math.log10(largest))
        if not 0 <= places <= 7:
            return [short_decimal(number).replace("-", "−", 1) for number in numbers]
    texts = [f"{number:.{places}f}" for number in numbers]
    return [text.replace("-", "−" if text.strip("-0.") else "") for text in texts]


def fit_number(value: float, decimals: int, room: int) -> str:
    """Write `value` in at most `room` characters: up to `decimals` places, no leading zero, or an exponent.

    >>> fit_number(0.1124, 3, 4), fit_number(11.234, 3, 4), fit_number(123456, 3, 4)
    ('.112', '11.2', '1e5')
    """
    for places in range(max(decimals, 0), -1, -1):
        text = re.sub(r"^(-?)0\.", r"\1.", f"{value:.{places}f}")
        if not text.strip("-0."):
            text = text.removeprefix("-")
        if len(text) <= room:
            return text
    mantissa, exponent = f"{value:.0e}".split("e")
    text = f"{mantissa}e{int(exponent)}"
    return text if len(text) <= room else ">"


def _table(pairs: str) -> dict[str, str]:
    """Read pairs of words as a table."""
    words = pairs.split()
    return dict(zip(words[::2], words[1::2], strict=True))


_WORDS = _table(
    "θ theta  η eta  α alpha  λ′ lambda'  λ lambda  β₁ beta1  β₂ beta2  ε eps  m̂ m_hat  m̂′ m_hat'  v̂ v_hat "
    "Π proj  κ kappa  √ sqrt  max max  sign sign  clip clip  NS NS  ≥ >=  η_λ eta_lambda  ᵗ ^t "
    "λ_norm lambda_norm  η² eta^2  g² g^2  ⊗ (x)  ⁻¹ ^-1"
)
_TOKEN = re.compile(r"√(?:v̂|v|N)|" + "|".join(sorted(_WORDS, key=len, reverse=True)) + "|[a-z]|.")


def ascii_formula(formula: str) -> str:
    """Write an update rule in ASCII, with explicit products.

    >>> ascii_formula("θ ← θ − η(α m̂/(√v̂+ε) + λθ)")
    'theta <- theta - eta*(alpha*m_hat/(sqrt(v_hat)+eps) + lambda*theta)'
    """
    out = ""
    factor, spaced = False, False  # the last token was a factor; a space came since
    functions = ("Π", "√", "max", "sign", "clip", "NS")
    for token in _TOKEN.findall(formula.replace("←", "<-").replace("−", "-")):
        if token == " ":
            spaced = True
            continue
        word = _WORDS.get(token, token)
        if token.startswith("√") and len(token) > 1:
            word = f"sqrt({token[1:].replace('v̂', 'v_hat')})"
        starts_factor = word[0].isalpha() or word == "("
        out += "*" if factor and starts_factor else " " * spaced
        out += word
        factor = (word[0].isalpha() and token not in functions) or word in (")", "]", "^-1")
        spaced = False
    return out if out.isascii() else out.encode("ascii", "backslashreplace").decode()


def written(formula: str, glyphs: Glyphs) -> str:
    """Write a formula in the characters of `glyphs`."""
    return ascii_formula(formula) if glyphs.ascii else formula


_MATHEMATICS = _table(
    r"θ \theta  η \eta  α \alpha  λ \lambda  τ \tau  β \beta  ε \epsilon  m̂ \hat{m}  v̂ \hat{v}  ′ ^{\prime} "
    r"₁ _1  ₂ _2  ² ^2  ᵗ ^t  Π \Pi  κ \kappa  ⊗ \otimes  ⁻¹ ^{-1}  λ_norm \lambda_{norm}  ← \leftarrow  − - "
    r"; ,\quad"
)
_MATHEMATICAL = re.compile("|".join(sorted(_MATHEMATICS, key=len, reverse=True)))


def mathematics(formula: str) -> str:
    r"""Write an update rule as matplotlib's mathematics.

    >>> mathematics("θ ← θ − ηα m̂/(√v̂+ε)")
    '$\\theta  \\leftarrow  \\theta  - \\eta \\alpha  \\hat{m}/(\\sqrt{\\hat{v}}+\\epsilon )$'
    """
    rooted = formula.replace("√(max v/(1−β₂ᵗ))", r"\sqrt{\max v/(1−β₂ᵗ)}")
    rooted = re.sub("√(v̂|[a-zN])", r"\\sqrt{\1}", rooted)

    def letter(found: re.Match[str]) -> str:
        written = _MATHEMATICS[found[0]]
        return written + " " * written[-1].isalpha() * written.startswith("\\")

    return f"${_MATHEMATICAL.sub(letter, rooted)}$"


_PLAIN_LETTERS = str.maketrans(
    _table(
        "− -  – -  · .  × x  ± +-  ≈ ~  ∝ ~  ÷ /  … ...  ← <-  → ->  ⌊ floor(  ⌋ )  β beta  ′ '  √ sqrt "
        "\u0302 _hat  ₁ 1  ₂ 2  ρ rho  τ tau"
    )
    | {symbol: word for symbol, word in _WORDS.items() if len(symbol) == 1}
)


def to_ascii(text: str) -> str:
    """Write running text in ASCII: Greek letters as words, superscripts after a caret, the rest escaped.

    >>> to_ascii("α = 2⁻⁷·⁵ ± λ′")
    "alpha = 2^-7.5 +- lambda'"
    """
    flat = RAISED.sub(lambda raised: "^" + raised[0].translate(_LOWERED), text).translate(_PLAIN_LETTERS)
    return flat.encode("ascii", "backslashreplace").decode()


def in_patterns(names: Sequence[str], others: Sequence[str]) -> str:
    """Join names; those that differ only in numbers become one with a star, unless it matches `others`.

    >>> in_patterns(["blocks.0.norm", "blocks.1.norm", "layers.0"], ["layers.1"])
    'blocks.*.norm, layers.0'
    """
    taken = {_NUMBER.sub("*", name) for name in others}
    alike = Counter(_NUMBER.sub("*", name) for name in names)
    found = []
    for name in names:
        pattern = _NUMBER.sub("*", name)
        found.append(pattern if alike[pattern] > 1 and pattern not in taken else name)
    return ", ".join(dict.fromkeys(found))
