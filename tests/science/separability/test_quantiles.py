"""Quantiles are those of scipy, and no analysis imports scipy."""

from __future__ import annotations

import pytest
from scipy.special import fdtri, stdtrit  # type: ignore[import-untyped]

from lrwd_sweep.science.separability.quantiles import f_quantile, t_quantile

FREEDOM = (1, 1.0001, 1.7, 2, 3, 4.4, 10, 33, 110, 440, 996, 1001, 1e5)


def test_quantiles_are_those_of_scipy() -> None:
    for nu in (*FREEDOM, 1e9):
        for level in (0.9, 0.95, 0.995):
            assert t_quantile(level, nu) == pytest.approx(float(stdtrit(nu, level)), rel=1e-11), (level, nu)
    for first in FREEDOM:
        for second in FREEDOM:
            found, known = f_quantile(0.99, first, second), float(fdtri(first, second, 0.99))
            assert found == pytest.approx(known, rel=1e-9), (first, second)
