"""One strength of decay in every convention: exact where it can be, refused where it cannot."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrwd_sweep.science.conversion import Conventions, Run, conventions, timescale
from lrwd_sweep.science.decay import Convention, DecayRule
from lrwd_sweep.science.optimizer import Family, Optimizer, optimizer_names

parse = Optimizer.parse
alphas, lambdas, steps = st.floats(1e-6, 10), st.floats(1e-8, 1), st.integers(1, 10**6)
momenta = st.floats(0, 0.99)
each = st.sampled_from(Convention)
SGD, SGDP = Family.SGD, Family.SGDP
PROJECTED = [name for name in optimizer_names() if name.startswith(("sgdp", "adamp"))]
UNSCHEDULED = (":fixed", ":corrected")
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

    @pytest.mark.parametrize("family", [family for family in Family if family not in (SGD, SGDP)])
    @given(alphas, lambdas, steps, st.sampled_from(EXACT))
    def test_what_scales_every_step_by_itself_has_no_constant_coupled_decay(
        self, family: Family, lr: float, x: float, n: int, other: Convention
    ) -> None:
        run = Run(family, lr, n)
        assert run.convert(x, Convention.COUPLED, other) is None
        assert run.convert(x, other, Convention.COUPLED) is None
        assert f"makes {family.display_name} do" in run.obstacle(Convention.COUPLED)
        assert "Proposition 2" in run.obstacle(Convention.COUPLED)

    def test_every_family_has_its_name(self) -> None:
        assert {family.display_name.lower() for family in Family} == set(Family)

    @given(alphas, lambdas, momenta)
    def test_sgdp_divides_its_lr_scaled_decay_alone_by_what_momentum_sums_up(
        self, lr: float, x: float, mu: float
    ) -> None:
        sgdp, adamp = Run(SGDP, lr, 9, mu), Run(Family.ADAMP, lr, 9, mu)
        for convention in Convention:
            number = sgdp.convert(x, Convention.INDEPENDENT, convention)
            other = adamp.convert(x, Convention.INDEPENDENT, convention)
            if convention is Convention.LR_SCALED:
                assert number == pytest.approx(x * (1 - mu) / lr)
            else:
                assert number == other
        assert "1−β₁" in sgdp.update(Convention.LR_SCALED)
        assert "adamp" in sgdp.users(Convention.LR_SCALED)
        assert Run(SGDP, lr).obstacle(Convention.LR_SCALED) == "the momentum is not known"
        assert "decoupled" in sgdp.obstacle(Convention.COUPLED)

    def test_the_update_of_sgdp_is_the_one_of_its_formula(self) -> None:
        decay = Run(SGDP, 0.1).update(Convention.LR_SCALED).removeprefix("θ ← θ − ηα")
        assert parse("sgdp").formula.endswith(f" + κ{decay})")

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

    @given(each, each)
    def test_what_the_schedule_treats_otherwise_lasts_at_a_constant_rate_alone(
        self, source: Convention, target: Convention
    ) -> None:
        moving, constant = Run(SGD, 0.1, 9, 0.0), Run(SGD, 0.1, 9, 0.0, constant=True)
        assert constant.holds(source, target)
        assert not constant.limits(target)
        unscheduled = {Convention.FIXED, Convention.CORRECTED}
        assert moving.holds(source, target) is (source is target or not unscheduled & {source, target})

    def test_arithmetic_shows_letters_numbers_and_result(self) -> None:
        run = Run(Family.SGD, 0.1, 100, 0.9)
        assert run.arithmetic(0.02, Convention.COUPLED, Convention.NORMALIZED) == (
            "λ = α × λ′ / (1 − β₁) = 0.1 × 0.02 / (1 − 0.9) = 0.02",
            "λ_norm = λ × √N = 0.02 × √100 = 0.2",
        )
        assert Run(SGDP, 0.1, 100, 0.9).arithmetic(0.02, Convention.LR_SCALED, Convention.CORRECTED) == (
            "λ = α × w / (1 − β₁) = 0.1 × 0.02 / (1 − 0.9) = 0.02",
            "c = λ / α = 0.02 / 0.1 = 0.2",
        )

    @pytest.mark.parametrize("family", Family)
    @given(alphas, lambdas, steps, momenta, each, each)
    def test_arithmetic_is_right_and_ends_in_the_converted_number(
        self,
        family: Family,
        lr: float,
        x: float,
        n: int,
        mu: float,
        source: Convention,
        target: Convention,
    ) -> None:
        run = Run(family, lr, n, mu)
        lines = run.arithmetic(x, source, target)
        found = run.convert(x, source, target)
        if source is target or found is None:
            assert lines == ()
            return
        assert lines[-1].endswith(f" = {found:.6g}")
        for line in lines:
            _, _, numbers, result = line.split(" = ")
            python = re.sub(r"√(\d+)", r"\1**0.5", numbers).replace("×", "*").replace("−", "-")
            assert float(result) == pytest.approx(eval(python), rel=1e-4)

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
        if optimizer.rule in (DecayRule.FIXED, DecayRule.CORRECTED):
            found = conventions(optimizer, lr, weight_decay, n, momentum, constant=True)
        own = {
            DecayRule.COUPLED: found.coupled,
            DecayRule.INDEPENDENT: found.independent,
            DecayRule.LR_SCALED: found.lr_scaled,
            DecayRule.FIXED: found.independent,  # which is where η = 1
        }
        if optimizer.rule is DecayRule.CORRECTED:
            assert found.independent == pytest.approx(lr * weight_decay)
        else:
            assert own[optimizer.rule] == weight_decay

    @given(st.sampled_from(optimizer_names()), alphas, lambdas, steps, momenta)
    def test_normalised_decay_is_the_plain_one_over_the_root_of_n(
        self, name: str, lr: float, weight_decay: float, n: int, momentum: float
    ) -> None:
        plain, normalized = parse(name), parse(f"{name}:normalized")
        found = conventions(normalized, lr, weight_decay, n, momentum)
        assert found == conventions(plain, lr, weight_decay / math.sqrt(n), n, momentum)
        if normalized.rule is DecayRule.INDEPENDENT:
            assert found.normalized == pytest.approx(weight_decay)
        unknown = conventions(normalized, lr, weight_decay, None, momentum)
        assert (unknown.independent, unknown.lr_scaled, unknown.coupled) == (None, None, None)
        assert unknown.normalized == (found.normalized and pytest.approx(found.normalized))

    @pytest.mark.parametrize("name", [name for name in optimizer_names() if name.endswith(UNSCHEDULED)])
    @given(lr=alphas, weight_decay=lambdas, n=steps)
    def test_what_is_not_scheduled_has_no_number_beside_scheduled_decay_but_a_time_scale(
        self, name: str, lr: float, weight_decay: float, n: int
    ) -> None:
        found = conventions(parse(name), lr, weight_decay, n, 0.9)
        assert (found.independent, found.lr_scaled, found.coupled, found.normalized) == (None,) * 4
        lam = weight_decay * (lr if name.endswith("corrected") else 1)
        assert found.timescale_steps == pytest.approx(1 / lam)
        assert conventions(parse(name), lr, 0.0, n, 0.9).lr_scaled == 0

    @given(alphas, lambdas)
    def test_proposition_1(self, lr: float, lam: float) -> None:
        assert conventions(parse("sgdw"), lr, lam, None, 0.0).coupled == pytest.approx(lam / lr, rel=1e-12)

    @given(alphas, lambdas, steps)
    def test_adam_with_l2_is_itself_alone(self, lr: float, weight_decay: float, n: int) -> None:
        assert conventions(parse("adam"), lr, weight_decay, n, 0.9) == Conventions(
            None, None, weight_decay, None, steps=n
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

    @given(st.sampled_from(PROJECTED), alphas, lambdas, st.floats(0, 1))
    def test_projected_steps_decay_at_a_tenth_of_the_rate(
        self, name: str, lr: float, weight_decay: float, share: float
    ) -> None:
        never, always = (conventions(parse(name), lr, weight_decay, 9, 0.9, projected=x) for x in (0.0, 1.0))
        assert never.timescale_steps is not None
        assert always.timescale_steps == pytest.approx(10 * never.timescale_steps)
        found = conventions(parse(name), lr, weight_decay, 9, 0.9, projected=share)
        assert found.timescale_steps == pytest.approx(never.timescale_steps / (1 - 0.9 * share))
        assert found.timescale_steps_projected is None
        unknown = conventions(parse(name), lr, weight_decay, 9, 0.9)
        assert unknown.timescale_steps == never.timescale_steps
        assert unknown.timescale_steps_projected == pytest.approx(always.timescale_steps)

    def test_without_decay_nothing_is_averaged(self) -> None:
        found = conventions(parse("sgdw"), 0.1, 0.0, 100, 0.9)
        assert found == Conventions(0.0, 0.0, 0.0, 0.0, steps=100)
        assert found.timescale_steps is None

    def test_a_decay_too_small_for_a_number_of_steps_has_no_time_scale(self) -> None:
        assert timescale(5e-324) is None
        assert math.isfinite(timescale(1e-300) or math.inf)
