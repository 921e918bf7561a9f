"""One strength of decay in every convention: exact if possible, refused if not."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrwd_sweep.science.conversion import Conventions, Run, conventions, timescale
from lrwd_sweep.science.optimizer import Convention, DecayRule, Family, Optimizer, optimizer_names

parse = Optimizer.parse
alphas, lambdas, steps = st.floats(1e-6, 10), st.floats(1e-8, 1), st.integers(1, 10**6)
momenta = st.floats(0, 0.99)
each = st.sampled_from(Convention)
UNSCHEDULED = {Convention.FIXED, Convention.CORRECTED}
EXACT = (Convention.INDEPENDENT, Convention.LR_SCALED, Convention.NORMALIZED)


@given(alphas, lambdas, steps, momenta, each, each, each)
def test_every_detour_gives_the_same_number(
    lr: float, x: float, n: int, mu: float, a: Convention, b: Convention, c: Convention
) -> None:
    run = Run(Family.SGD, lr, n, mu)
    by_way_of_b = run.convert(x, a, b)
    assert by_way_of_b is not None
    assert run.convert(x, a, c) == pytest.approx(run.convert(by_way_of_b, b, c), rel=1e-12)


@given(alphas, lambdas, steps, st.sampled_from(EXACT))
def test_families_that_scale_every_step_have_no_constant_l2(
    lr: float, x: float, n: int, other: Convention
) -> None:
    for family in set(Family) - {Family.SGD, Family.SGDP}:
        run = Run(family, lr, n)
        assert run.convert(x, Convention.COUPLED, other) is None, family
        assert run.convert(x, other, Convention.COUPLED) is None, family
        assert f"makes {family.display_name} do" in run.obstacle(Convention.COUPLED)
        assert "Proposition 2" in run.obstacle(Convention.COUPLED)


@given(alphas, lambdas, momenta)
def test_only_lr_scaled_decay_of_sgdp_is_divided_by_1_minus_momentum(lr: float, x: float, mu: float) -> None:
    sgdp, adamp = Run(Family.SGDP, lr, 9, mu), Run(Family.ADAMP, lr, 9, mu)
    for convention in Convention:
        number = sgdp.convert(x, Convention.INDEPENDENT, convention)
        if convention is Convention.LR_SCALED:
            assert number == pytest.approx(x * (1 - mu) / lr)
        else:
            assert number == adamp.convert(x, Convention.INDEPENDENT, convention)
    assert parse("sgdp").formula.endswith(f" + κ{sgdp.update(Convention.LR_SCALED)[len('θ ← θ − ηα') :]})")
    assert "adamp" in sgdp.users(Convention.LR_SCALED)
    assert Run(Family.SGDP, lr).obstacle(Convention.LR_SCALED) == "the momentum is not known"
    assert "decoupled" in sgdp.obstacle(Convention.COUPLED)


def test_no_decay_is_no_decay_in_every_convention() -> None:
    for family in (*Family, None):
        for source in Convention:
            for target in Convention:
                assert Run(family, 0.1).convert(0.0, source, target) == 0.0


def test_an_unknown_number_is_not_guessed() -> None:
    unknown = Run(Family.SGD, 0.1)
    assert unknown.convert(0.1, Convention.COUPLED, Convention.INDEPENDENT) is None
    assert unknown.obstacle(Convention.COUPLED) == "the momentum is not known"
    assert unknown.convert(0.1, Convention.INDEPENDENT, Convention.NORMALIZED) is None
    assert unknown.obstacle(Convention.NORMALIZED) == "the number of steps N is not known"


def test_limits_name_what_is_not_exact() -> None:
    with_momentum, without = Run(Family.SGD, 0.1, 9, 0.9), Run(Family.SGD, 0.1, 9, 0.0)
    constant = Run(Family.SGD, 0.1, 9, 0.0, constant=True)
    assert "asymptotically" in with_momentum.limits(Convention.COUPLED)
    assert without.limits(Convention.COUPLED) == ""  # Proposition 1
    assert not any(with_momentum.limits(convention) for convention in EXACT)
    for source in Convention:
        assert ("constant learning rate only" in without.limits(source)) is (source in UNSCHEDULED)
        assert not constant.limits(source)
        for target in Convention:
            assert constant.holds(source, target)
            assert without.holds(source, target) is (source is target or not UNSCHEDULED & {source, target})


@given(alphas, lambdas, steps, momenta, each, each)
def test_arithmetic_is_right_and_ends_in_the_converted_number(
    lr: float, x: float, n: int, mu: float, source: Convention, target: Convention
) -> None:
    for family in Family:
        run = Run(family, lr, n, mu)
        lines, found = run.arithmetic(x, source, target), run.convert(x, source, target)
        assert (lines == ()) is (source is target or found is None), family
        assert not lines or lines[-1].endswith(f" = {found:.6g}"), family
        for line in lines:
            _, _, numbers, result = line.split(" = ")
            python = re.sub(r"√(\d+)", r"\1**0.5", numbers).replace("×", "*").replace("−", "-")
            assert float(result) == pytest.approx(eval(python), rel=1e-4)
    assert Run(Family.SGD, 0.1, 100, 0.9).arithmetic(0.02, Convention.COUPLED, Convention.NORMALIZED) == (
        "λ = α × λ′ / (1 − β₁) = 0.1 × 0.02 / (1 − 0.9) = 0.02",
        "λ_norm = λ × √N = 0.02 × √100 = 0.2",
    )


@given(st.sampled_from(optimizer_names()), alphas, lambdas, steps, momenta)
def test_a_study_keeps_its_own_number(name: str, lr: float, x: float, n: int, mu: float) -> None:
    optimizer = parse(name)
    assert optimizer.rule.convention.symbol == optimizer.rule.symbol
    found = conventions(optimizer, lr, x, n, mu, constant=True)
    own = {
        DecayRule.COUPLED: found.coupled,
        DecayRule.INDEPENDENT: found.independent,
        DecayRule.LR_SCALED: found.lr_scaled,
        DecayRule.FIXED: found.independent,  # equal where η = 1
        DecayRule.CORRECTED: found.independent and pytest.approx(found.independent / lr),
    }
    assert x == own[optimizer.rule]
    moving = conventions(optimizer, lr, x, n, mu)
    if optimizer.rule.convention not in UNSCHEDULED:
        assert moving == found
        return
    assert (moving.independent, moving.lr_scaled, moving.coupled, moving.normalized) == (None,) * 4
    assert moving.timescale_steps == pytest.approx(1 / (x * (lr if name.endswith("corrected") else 1)))
    assert conventions(optimizer, lr, 0.0, n, mu).lr_scaled == 0


@given(st.sampled_from(optimizer_names()), alphas, lambdas, steps, momenta)
def test_normalized_decay_is_plain_decay_over_the_root_of_n(
    name: str, lr: float, x: float, n: int, mu: float
) -> None:
    plain, normalized = parse(name), parse(f"{name}:normalized")
    found = conventions(normalized, lr, x, n, mu)
    assert found == conventions(plain, lr, x / math.sqrt(n), n, mu)
    if normalized.rule is DecayRule.INDEPENDENT:
        assert found.normalized == pytest.approx(x)
    unknown = conventions(normalized, lr, x, None, mu)
    assert (unknown.independent, unknown.lr_scaled, unknown.coupled) == (None, None, None)
    assert unknown.normalized == (found.normalized and pytest.approx(found.normalized))


@given(alphas, lambdas, steps)
def test_the_propositions_hold(lr: float, lam: float, n: int) -> None:
    assert conventions(parse("sgdw"), lr, lam, None, 0.0).coupled == pytest.approx(lam / lr, rel=1e-12)
    assert conventions(parse("adam"), lr, lam, n, 0.9) == Conventions(None, None, lam, None, steps=n)


@given(alphas, lambdas, st.floats(0, 1))
def test_projected_steps_decay_at_a_tenth_of_the_rate(lr: float, x: float, share: float) -> None:
    for optimizer in map(parse, ("sgdp", "sgdpw:fixed", "adampw", "adampw:corrected")):
        never, always, found, unknown = (
            conventions(optimizer, lr, x, 9, 0.9, projected=projected)
            for projected in (0.0, 1.0, share, None)
        )
        assert never.timescale_steps is not None
        assert always.timescale_steps == pytest.approx(10 * never.timescale_steps)
        assert found.timescale_steps == pytest.approx(never.timescale_steps / (1 - 0.9 * share))
        assert found.timescale_steps_projected is None
        assert unknown.timescale_steps == never.timescale_steps
        assert unknown.timescale_steps_projected == pytest.approx(always.timescale_steps)


def test_decay_too_small_for_a_finite_number_of_steps_has_no_time_scale() -> None:
    assert conventions(parse("sgdw"), 0.1, 0.0, 100, 0.9) == Conventions(0.0, 0.0, 0.0, 0.0, steps=100)
    assert timescale(5e-324) is None
    assert math.isfinite(timescale(1e-300) or math.inf)
