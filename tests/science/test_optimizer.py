"""Optimizer names say their update."""

from __future__ import annotations

from typing import Any

import pytest

from lrwd_sweep.errors import UnknownName, UsageError
from lrwd_sweep.science.decay import DecayRule
from lrwd_sweep.science.optimizer import (
    Family,
    Optimizer,
    asks_for_restarts,
    formula,
    optimizer_names,
    users_of,
)

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
            ("rmspropw:fixed", Family.RMSPROP, DecayRule.FIXED),
            ("adamp", Family.ADAMP, DecayRule.LR_SCALED),  # what its authors do
            ("adamp:lr-scaled", Family.ADAMP, DecayRule.LR_SCALED),
            ("adampw", Family.ADAMP, DecayRule.INDEPENDENT),
            ("sgdp:corrected", Family.SGDP, DecayRule.CORRECTED),
        ],
    )
    def test_name_is_read(self, name: str, family: Family, rule: DecayRule) -> None:
        assert parse(name) == Optimizer(family, rule)

    @pytest.mark.parametrize("end", ["", ":normalized"])
    @pytest.mark.parametrize("name", optimizer_names())
    def test_canonical_name_is_its_own(self, name: str, end: str) -> None:
        optimizer = parse(name + end)
        assert str(optimizer) == name + end
        assert optimizer.normalized is bool(end)

    def test_every_family_has_every_rule_but_the_projected_are_decoupled(self) -> None:
        pairs = {(parse(name).family, parse(name).rule) for name in optimizer_names()}
        missing = {(family, rule) for family in Family for rule in DecayRule} - pairs
        assert missing == {(Family.SGDP, DecayRule.COUPLED), (Family.ADAMP, DecayRule.COUPLED)}
        assert len(pairs) == len(optimizer_names())

    @pytest.mark.parametrize(
        ("name", "read"), [("adamwr", "adamw"), ("SGDWR", "sgdw"), ("adampwr", "adampw")]
    )
    def test_warm_restarts_carry_normalised_decay(self, name: str, read: str) -> None:
        assert parse(name) == parse(f"{read}:normalized")
        assert asks_for_restarts(name)
        assert not asks_for_restarts(read)

    def test_letter_of_normalised_decay_is_its_own(self) -> None:
        assert [parse(name).symbol for name in ("adamw", "adam", "adamw:normalized")] == ["λ", "λ′", "λ_norm"]

    @pytest.mark.parametrize(
        ("name", "complaint"),
        [
            ("adamv", "unknown optimizer 'adamv'; did you mean adam, adamw or adamp?"),
            ("sdgw", "unknown optimizer 'sdgw'; did you mean sgdw"),
            ("lion", "unknown optimizer 'lion'; known: sgd, sgdw"),
            ("", "unknown optimizer ''; known: sgd"),
            ("w", "unknown optimizer 'w'"),
            ("adamw:lr-scald", "unknown decay rule 'lr-scald'; did you mean lr-scaled?"),
            ("adamw:", "unknown decay rule ''; known: coupled, independent, lr-scaled"),
            ("adamw:normalised", "unknown decay rule 'normalised'; did you mean normalized?"),
            ("adamw:normalized:fixed", "unknown decay rule 'normalized:fixed'"),
            ("adamr", "unknown optimizer 'adamr'"),
            ("wr", "unknown optimizer 'wr'"),
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

    def test_l2_of_a_projected_family_is_refused_with_a_name_that_works(self) -> None:
        with pytest.raises(UsageError, match="the decay of adamp is decoupled; write 'adamp'"):
            parse("adamp:coupled")

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

    @pytest.mark.parametrize("name", ["sgd", "sgdw:fixed", "adamw"])
    def test_normalised_decay_says_where_it_comes_from(self, name: str) -> None:
        optimizer = parse(f"{name}:normalized")
        assert optimizer.formula == f"{parse(name).formula}, {optimizer.rule.symbol} = λ_norm/√N"

    @pytest.mark.parametrize(
        ("name", "options", "text"),
        [
            ("sgd", {"momentum_form": "torch"}, "g ← g + λ′θ ; m ← β₁m + g ; θ ← θ − ηα m"),
            ("sgdw", {"nesterov": True}, "m ← β₁m + ηαg ; θ ← θ − (β₁m + ηαg) − ηλθ"),
            ("rmspropw", {"momentum": 0.0}, "θ ← θ − η(α g/(√v+ε) + λθ)"),
            ("rmspropw", {"momentum": 0.9}, "m ← β₁m + g/(√v+ε) ; θ ← θ − η(α m + λθ)"),
            ("sgdp", {}, "m ← Π(β₁m + g) ; θ ← θ − ηα(m + κwθ/(1−β₁))"),
            ("sgdp", {"nesterov": True}, "m ← β₁m + g ; θ ← θ − ηα(Π(g + β₁m) + κwθ/(1−β₁))"),
            ("adamw:corrected", {}, "θ ← θ − ηα m̂/(√v̂+ε) − η²αcθ"),
            ("adamp", {}, "θ ← θ − ηα(Π(m̂/(√v̂+ε)) + κwθ)"),
            ("adampw", {}, "θ ← θ − η(α Π(m̂/(√v̂+ε)) + κλθ)"),
            ("adampw:fixed", {}, "θ ← θ − ηα Π(m̂/(√v̂+ε)) − κdθ"),
            ("adampw:corrected", {}, "θ ← θ − ηα Π(m̂/(√v̂+ε)) − κη²αcθ"),
        ],
    )
    def test_formula_follows_the_hyperparameters(self, name: str, options: dict[str, Any], text: str) -> None:
        assert formula(parse(name), **options) == text


def test_hyperparameters_know_their_families() -> None:
    assert users_of("momentum") == [Family.SGD, Family.RMSPROP, Family.SGDP]
    assert users_of("beta1") == [Family.ADAM, Family.AMSGRAD, Family.ADAMP]
    assert users_of("epochs") == []
