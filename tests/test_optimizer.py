"""Optimizer names say their update."""

from __future__ import annotations

import pytest

from lrwd_sweep.decay import DecayRule
from lrwd_sweep.errors import UnknownName, UsageError
from lrwd_sweep.optimizer import Family, Optimizer, optimizer_names

parse = Optimizer.parse


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
