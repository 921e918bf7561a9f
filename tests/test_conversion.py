"""One strength of decay in every convention: exact where it can be, refused where it cannot."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrwd_sweep.conversion import Convention, Conventions, Run, conventions, timescale
from lrwd_sweep.decay import DecayRule
from lrwd_sweep.optimizer import Family, Optimizer, optimizer_names

parse = Optimizer.parse
alphas, lambdas, steps = st.floats(1e-6, 10), st.floats(1e-8, 1), st.integers(1, 10**6)
momenta = st.floats(0, 0.99)
each = st.sampled_from(Convention)
EXACT = (Convention.INDEPENDENT, Convention.LR_SCALED, Convention.NORMALIZED)


class TestRun:
    """λ = gain × number."""

    @given(alphas, lambdas, steps, momenta, each, each, each)
    def test_any_way_round_gives_the_same_number(
        self, lr: float, x: float, n: int, mu: float, a: Convention, b: Convention, c: Convention
    ) -> None:
        run = Run(Family.SGD, lr, n, mu)
        by_way_of_b = run.convert(x, a, b)
        assert by_way_of_b is not None
        direct, detour = run.convert(x, a, c), run.convert(by_way_of_b, b, c)
        assert direct == pytest.approx(detour, rel=1e-12)

    @given(alphas, lambdas, steps, st.sampled_from(EXACT))
    def test_adam_has_no_constant_coupled_decay(self, lr: float, x: float, n: int, other: Convention) -> None:
        run = Run(Family.ADAM, lr, n)
        assert run.convert(x, Convention.COUPLED, other) is None
        assert run.convert(x, other, Convention.COUPLED) is None
        assert "Proposition 2" in run.obstacle(Convention.COUPLED)

    @pytest.mark.parametrize("family", [*Family, None])
    @given(source=each, target=each)
    def test_no_decay_is_no_decay_everywhere(
        self, family: Family | None, source: Convention, target: Convention
    ) -> None:
        assert Run(family, 0.1).convert(0.0, source, target) == 0.0

    def test_what_is_not_known_is_not_guessed(self) -> None:
        unknown = Run(Family.SGD, 0.1)
        assert unknown.convert(0.1, Convention.COUPLED, Convention.INDEPENDENT) is None
        assert unknown.obstacle(Convention.COUPLED) == "the momentum is not known"
        assert unknown.convert(0.1, Convention.INDEPENDENT, Convention.NORMALIZED) is None
        assert unknown.obstacle(Convention.NORMALIZED) == "the number of steps N is not known"

    def test_what_is_not_exact_says_so(self) -> None:
        with_momentum, without = Run(Family.SGD, 0.1, 9, 0.9), Run(Family.SGD, 0.1, 9, 0.0)
        assert "asymptotically" in with_momentum.limits(Convention.COUPLED)
        assert without.limits(Convention.COUPLED) == ""  # Proposition 1
        for convention in (Convention.FIXED, Convention.CORRECTED):
            assert "constant learning rate only" in without.limits(convention)
        assert not any(with_momentum.limits(convention) for convention in EXACT)

    def test_arithmetic_shows_letters_numbers_and_result(self) -> None:
        run = Run(Family.SGD, 0.1, 100, 0.9)
        assert run.arithmetic(0.02, Convention.COUPLED, Convention.NORMALIZED) == (
            "λ = α × λ′ / (1 − β₁) = 0.1 × 0.02 / (1 − 0.9) = 0.02",
            "λ_norm = λ × √N = 0.02 × √100 = 0.2",
        )

    @given(alphas, lambdas, steps, momenta, each, each)
    def test_arithmetic_ends_in_the_converted_number(
        self, lr: float, x: float, n: int, mu: float, source: Convention, target: Convention
    ) -> None:
        run = Run(Family.SGD, lr, n, mu)
        lines = run.arithmetic(x, source, target)
        if source is target:
            assert lines == ()
            return
        found = run.convert(x, source, target)
        assert lines[-1].endswith(f" = {found:.6g}")

    @pytest.mark.parametrize("rule", DecayRule)
    def test_every_decay_rule_is_a_convention_with_its_letter(self, rule: DecayRule) -> None:
        assert Convention(rule.value).symbol == rule.symbol


class TestConventions:
    """One strength of decay in every convention of a study."""

    @given(st.sampled_from(optimizer_names()), alphas, lambdas, steps, momenta)
    def test_own_convention_is_unchanged(
        self, name: str, lr: float, weight_decay: float, n: int, momentum: float
    ) -> None:
        optimizer = parse(name)
        found = conventions(optimizer, lr, weight_decay, n, momentum)
        own = {
            DecayRule.COUPLED: found.coupled,
            DecayRule.INDEPENDENT: found.independent,
            DecayRule.LR_SCALED: found.lr_scaled,
        }[optimizer.rule]
        assert own == weight_decay

    @given(alphas, lambdas)
    def test_proposition_1(self, lr: float, lam: float) -> None:
        assert conventions(parse("sgdw"), lr, lam, None, 0.0).coupled == pytest.approx(lam / lr, rel=1e-12)

    @given(alphas, lambdas, steps)
    def test_adam_with_l2_is_itself_alone(self, lr: float, weight_decay: float, n: int) -> None:
        assert conventions(parse("adam"), lr, weight_decay, n, 0.9) == Conventions(
            None, None, weight_decay, None
        )

    def test_worked_example_of_the_paper(self) -> None:
        batches = 391
        run = Run(Family.ADAM, 0.001, 100 * batches)
        lam = run.convert(1 / 20, Convention.NORMALIZED, Convention.INDEPENDENT)
        assert lam == pytest.approx(2.53e-4, rel=2e-3)
        found = conventions(parse("adamw"), 0.001, 3.264e-5, 1500 * batches, None)
        assert found.normalized == pytest.approx(0.025, rel=1e-3)
        assert found.lr_scaled == pytest.approx(0.0326, rel=2e-3)
        assert found.timescale_steps == pytest.approx(1 / 3.264e-5)

    def test_without_decay_nothing_is_averaged(self) -> None:
        found = conventions(parse("sgdw"), 0.1, 0.0, 100, 0.9)
        assert found == Conventions(0.0, 0.0, 0.0, 0.0)
        assert found.timescale_steps is None

    def test_a_decay_too_small_for_a_number_of_steps_has_no_time_scale(self) -> None:
        assert timescale(5e-324) is None
        assert math.isfinite(timescale(1e-300) or math.inf)
