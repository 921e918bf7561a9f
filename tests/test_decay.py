"""Optimizer names say their update, and conversions are exact."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrwd_sweep.decay import Conventions, DecayRule, Family, Optimizer, conventions, optimizer_names
from lrwd_sweep.errors import UnknownName, UsageError

parse = Optimizer.parse
alphas, lambdas, steps = st.floats(1e-6, 10), st.floats(1e-8, 1), st.integers(1, 10**6)
momenta = st.floats(0, 0.99)


class TestNames:
    """FAMILY[w][:RULE]."""

    @pytest.mark.parametrize(
        ("name", "family", "rule"),
        [
            ("adam", Family.ADAM, DecayRule.COUPLED),
            ("adamw", Family.ADAM, DecayRule.INDEPENDENT),
            ("adamw:lr-scaled", Family.ADAM, DecayRule.LR_SCALED),
            ("adamw:independent", Family.ADAM, DecayRule.INDEPENDENT),
            ("adam:coupled", Family.ADAM, DecayRule.COUPLED),
            ("sgd", Family.SGD, DecayRule.COUPLED),
            (" SGDW ", Family.SGD, DecayRule.INDEPENDENT),
        ],
    )
    def test_name_is_read(self, name: str, family: Family, rule: DecayRule) -> None:
        assert parse(name) == Optimizer(family, rule)

    @pytest.mark.parametrize("name", optimizer_names())
    def test_canonical_name_is_its_own(self, name: str) -> None:
        assert str(parse(name)) == name

    def test_every_family_has_every_rule(self) -> None:
        assert len(set(optimizer_names())) == len(Family) * len(DecayRule)

    @pytest.mark.parametrize(
        ("name", "complaint"),
        [
            ("adamv", "unknown optimizer 'adamv'; did you mean adam or adamw?"),
            ("sdgw", "unknown optimizer 'sdgw'; did you mean sgdw"),
            ("lion", "unknown optimizer 'lion'; known: adam, adamw"),
            ("", "unknown optimizer ''; known: adam"),
            ("w", "unknown optimizer 'w'"),
            ("adamw:lr-scald", "unknown decay rule 'lr-scald'; did you mean lr-scaled?"),
            ("adamw:", "unknown decay rule ''; known: coupled, independent, lr-scaled"),
        ],
    )
    def test_unknown_name_suggests_the_near_ones(self, name: str, complaint: str) -> None:
        with pytest.raises(UnknownName) as error:
            parse(name)
        assert complaint in str(error.value)

    @pytest.mark.parametrize(
        ("name", "remedy"),
        [
            ("adam:lr-scaled", "adamw:lr-scaled"),
            ("sgd:independent", "sgdw:independent"),
            ("sgdw:coupled", "sgd"),
        ],
    )
    def test_contradiction_is_refused_with_a_name_that_works(self, name: str, remedy: str) -> None:
        with pytest.raises(UsageError, match="contradicts itself") as error:
            parse(name)
        assert f"write {remedy!r}" in str(error.value)
        parse(remedy)

    def test_label_of_a_foreign_optimizer_is_its_name(self) -> None:
        lion = Optimizer(None, DecayRule.LR_SCALED, "Lion v2")
        assert (str(lion), lion.formula) == ("Lion v2", "θ ← θ − ηαwθ")


class TestFormulas:
    """The formula belongs to the name."""

    def test_each_optimizer_has_its_own(self) -> None:
        assert len({parse(name).formula for name in optimizer_names()}) == len(optimizer_names())

    @pytest.mark.parametrize("name", optimizer_names())
    def test_formula_uses_the_letter_of_its_rule_alone(self, name: str) -> None:
        optimizer = parse(name)
        formula = optimizer.formula
        assert optimizer.rule.symbol in formula
        for other in set(DecayRule) - {optimizer.rule}:
            assert f"{other.symbol}θ" not in formula


class TestConventions:
    """One strength of decay in every convention."""

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
        assert own == pytest.approx(weight_decay, rel=1e-12)

    @given(alphas, lambdas, steps, momenta)
    def test_translation_there_and_back_is_the_identity(
        self, lr: float, lam: float, n: int, momentum: float
    ) -> None:
        sgd = conventions(parse("sgdw"), lr, lam, n, momentum)
        for name, value in (("sgdw:lr-scaled", sgd.lr_scaled), ("sgd", sgd.coupled)):
            assert value is not None
            back = conventions(parse(name), lr, value, n, momentum)
            assert back.independent == pytest.approx(lam, rel=1e-12)
            assert back.normalized == pytest.approx(lam * math.sqrt(n), rel=1e-12)

    @given(alphas, lambdas)
    def test_proposition_1(self, lr: float, lam: float) -> None:
        assert conventions(parse("sgdw"), lr, lam, 0).coupled == pytest.approx(lam / lr, rel=1e-12)

    @given(alphas, lambdas, steps)
    def test_adam_has_no_constant_coupled_decay(self, lr: float, weight_decay: float, n: int) -> None:
        assert conventions(parse("adamw"), lr, weight_decay, n).coupled is None
        assert conventions(parse("adam"), lr, weight_decay, n) == Conventions(None, None, weight_decay, None)

    def test_worked_example_of_the_paper(self) -> None:
        batches = 391
        lam = 1 / 20 / math.sqrt(100 * batches)
        assert lam == pytest.approx(2.53e-4, rel=2e-3)
        found = conventions(parse("adamw"), 0.001, 3.264e-5, 1500 * batches)
        assert found.normalized == pytest.approx(0.025, rel=1e-3)
        assert found.lr_scaled == pytest.approx(0.0326, rel=2e-3)
        assert found.timescale_steps == pytest.approx(1 / 3.264e-5)

    def test_without_decay_nothing_is_averaged(self) -> None:
        found = conventions(parse("sgdw"), 0.1, 0.0, 100, 0.9)
        assert found == Conventions(0.0, 0.0, 0.0, 0.0)
        assert found.timescale_steps is None

    def test_unknown_budget_has_no_normalised_value(self) -> None:
        assert conventions(parse("adamw"), 0.1, 0.01, 0).normalized is None
