"""The verdict: what the ridge slope, or its interval, allows to be said."""

from __future__ import annotations

from enum import StrEnum

from lrwd_sweep.science.separability.bootstrap import Estimate


class Verdict(StrEnum):
    """What the interval of the ridge slope s allows to be said, given that λ has an effect within rows.

    Without a measurable effect the verdict is undetermined whatever the interval, see `noise.noise_test`.
    """

    SEPARABLE = "separable"  # s within (−0.25, 0.25)
    PRODUCT_COUPLED = "product-coupled"  # s within (−1.25, −0.75): only the product αλ matters
    COUPLED = "coupled"  # s excludes (−0.25, 0.25) otherwise
    UNDETERMINED = "undetermined"


def interval_verdict(slope: Estimate) -> Verdict:
    """The verdict on the slope's interval; undetermined without one."""
    if slope.low is None or slope.high is None:
        return Verdict.UNDETERMINED
    return _verdict(slope.low, slope.high)


def point_verdict(slope: Estimate) -> Verdict:
    """What the point estimate alone would give."""
    if slope.value is None:
        return Verdict.UNDETERMINED
    return _verdict(slope.value, slope.value)


def _verdict(low: float, high: float) -> Verdict:
    if low > -0.25 and high < 0.25:
        return Verdict.SEPARABLE
    if low > -1.25 and high < -0.75:
        return Verdict.PRODUCT_COUPLED
    if high <= -0.25 or low >= 0.25:
        return Verdict.COUPLED
    return Verdict.UNDETERMINED
