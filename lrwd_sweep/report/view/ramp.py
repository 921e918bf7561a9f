"""The colours of a heatmap: a perceptually uniform, colour-blind-safe ramp from dark purple to bright yellow.

Anchors are points of Oklch (Ottosson 2020); between them lightness, chroma and hue run linearly. Lightness
alone rises evenly from end to end, so that the order survives any colour blindness and a grey printer.
"""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import pairwise

Rgb = tuple[int, int, int]

_ANCHORS = (  # (lightness, chroma, hue in degrees), evenly spaced
    (0.270, 0.115, 308.0),
    (0.430, 0.110, 272.0),
    (0.590, 0.093, 222.0),
    (0.750, 0.140, 158.0),
    (0.910, 0.180, 104.0),
)
_STEPS = 128


def _srgb(linear: float) -> int:
    """One linear channel, gamma-encoded, 0 to 255."""
    linear = min(max(linear, 0.0), 1.0)
    return round(255 * (12.92 * linear if linear <= 0.0031308 else 1.055 * linear ** (1 / 2.4) - 0.055))


def _oklch_to_rgb(lightness: float, chroma: float, hue: float) -> Rgb:
    """sRGB of an Oklch colour; channels outside the gamut are cut off."""
    a, b = chroma * math.cos(math.radians(hue)), chroma * math.sin(math.radians(hue))
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    return (
        _srgb(4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short),
        _srgb(-1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short),
        _srgb(-0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short),
    )


@lru_cache(maxsize=_STEPS + 1)
def _step(k: int) -> Rgb:
    place = k / _STEPS * (len(_ANCHORS) - 1)
    below, above = list(pairwise(_ANCHORS))[min(int(place), len(_ANCHORS) - 2)]
    part = place - min(int(place), len(_ANCHORS) - 2)
    lightness, chroma, hue = (x + part * (y - x) for x, y in zip(below, above, strict=True))
    return _oklch_to_rgb(lightness, chroma, hue)


def colour(goodness: float) -> Rgb:
    """The colour of `goodness`: 1 the best, bright; 0 the end of the scale, dark. Clipped to [0, 1]."""
    return _step(round(_STEPS * min(max(goodness, 0.0), 1.0)))


def dimmed(rgb: Rgb) -> Rgb:
    """A colour halfway to grey."""
    red, green, blue = ((channel + 128) // 2 for channel in rgb)
    return red, green, blue


def luminance(rgb: Rgb) -> float:
    """Relative luminance of WCAG 2, 0 (black) to 1 (white)."""
    red, green, blue = (
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in rgb)
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def text_on(rgb: Rgb) -> Rgb:
    """Black or white, whichever stands out more on `rgb`; the worse of both contrasts is 4.5 or better."""
    return (0, 0, 0) if luminance(rgb) > 0.179 else (255, 255, 255)
