"""An optimizer's name determines its update."""

import re

from lrwd_sweep.errors import UnknownName
from lrwd_sweep.science import optimizer as science
from lrwd_sweep.science.optimizer import DecayRule, Family, Optimizer, optimizer_names
from tests.refusal import assert_raises

parse = Optimizer.parse


def test_names_are_read_and_wrong_ones_refused_with_the_near_ones() -> None:
    for name, family, rule in (
        ("adam", Family.ADAM, DecayRule.COUPLED),
        ("adamw", Family.ADAM, DecayRule.INDEPENDENT),
        ("adam:coupled", Family.ADAM, DecayRule.COUPLED),
        (" SGDW ", Family.SGD, DecayRule.INDEPENDENT),
        ("rmspropw:fixed", Family.RMSPROP, DecayRule.FIXED),
        ("adamp", Family.ADAMP, DecayRule.LR_SCALED),  # its authors' rule
        ("sgdp:corrected", Family.SGDP, DecayRule.CORRECTED),
    ):
        assert parse(name) == Optimizer(family, rule), name
    for name, read in (("adamwr", "adamw"), ("SGDWR", "sgdw"), ("adampwr", "adampw")):  # warm restarts
        assert parse(name) == parse(f"{read}:normalized")
        assert science.asks_for_restarts(name)
        assert not science.asks_for_restarts(read)
    lion = Optimizer(None, DecayRule.LR_SCALED, "Lion v2")
    assert (str(lion), lion.formula) == ("Lion v2", "θ ← θ − ηαwθ")
    for name, complaint in {
        "adamv": "unknown optimizer 'adamv'; did you mean adam, adamw or adamp?",
        "": "unknown optimizer ''; known: sgd",
        "adamw:lr-scald": "unknown decay rule 'lr-scald'; did you mean lr-scaled?",
        "adamw:": "unknown decay rule ''; known: coupled, independent, lr-scaled",
        "adamw:normalised": "unknown decay rule 'normalised'; did you mean normalized?",
        "adamw:normalized:fixed": "unknown decay rule 'normalized:fixed'",
        "wr": "unknown optimizer 'wr'",
    }.items():
        assert_raises(re.escape(complaint), parse, name, error=UnknownName)
    for name, remedy in {
        "adam:lr-scaled": "contradicts itself; write 'adamw:lr-scaled'",
        "sgdw:coupled": "contradicts itself; write 'sgd'",
        "adam:cautious": "cautious decay is decoupled; write 'adamw:cautious'",
        "ndadamw": "independent decay shrinks the norm of weights, which ndadam resets to 1; write 'ndadam'",
        "adamp:coupled": "the decay of adamp is decoupled; write 'adamp'",
    }.items():
        assert_raises(re.escape(remedy), parse, name)
        parse(remedy.split("'")[1])


def test_canonical_name_is_read_back_and_says_what_it_is() -> None:
    for name in optimizer_names():
        for end in ("", ":normalized"):
            optimizer = parse(name + end)
            symbol = "λ_norm" if end else optimizer.rule.symbol
            said = str(optimizer), optimizer.normalized, optimizer.symbol
            assert said == (name + end, bool(end), symbol)
            assert optimizer.rule.symbol in optimizer.formula, name
            for other in set(DecayRule) - {optimizer.rule}:
                assert f"{other.symbol}θ" not in optimizer.formula, name
        assert optimizer.formula == f"{parse(name).formula}, {optimizer.rule.symbol} = λ_norm/√N"
    assert len({parse(name).formula for name in optimizer_names()}) == len(optimizer_names())
    missing = {f"{family} {rule}" for family in Family for rule in set(DecayRule) - set(family.rules)}
    decoupled = {f"ndadam {rule}" for rule in set(DecayRule) - {DecayRule.COUPLED}}
    assert missing == {"sgdp coupled", "adamp coupled"} | decoupled
    for name in ("adamw:cautious", "sgdw:lr-scaled:cautious:normalized", "adamp:cautious"):
        assert (str(parse(name)), parse(name).cautious) == (name, True)
        assert "θ[uθ≥0]" in parse(name).formula


def test_formula_follows_the_hyperparameters() -> None:
    for name, momentum, nesterov, form, text in (
        ("sgd", None, False, "torch", "g ← g + λ′θ ; m ← β₁m + g ; θ ← θ − ηα m"),
        ("sgdw", None, True, "paper", "m ← β₁m + ηαg ; θ ← θ − (β₁m + ηαg) − ηλθ"),
        ("rmspropw", 0.0, False, "paper", "θ ← θ − η(α g/(√v+ε) + λθ)"),
        ("rmspropw", 0.9, False, "paper", "m ← β₁m + g/(√v+ε) ; θ ← θ − η(α m + λθ)"),
        ("sgdp", None, False, "paper", "m ← Π(β₁m + g) ; θ ← θ − ηα(m + κwθ/(1−β₁))"),
        ("sgdp", None, True, "paper", "m ← β₁m + g ; θ ← θ − ηα(Π(g + β₁m) + κwθ/(1−β₁))"),
        ("adamw:corrected", None, False, "paper", "θ ← θ − ηα m̂/(√v̂+ε) − η²αcθ"),
        ("adampw", None, False, "paper", "θ ← θ − η(α Π(m̂/(√v̂+ε)) + κλθ)"),
        ("adampw:fixed", None, False, "paper", "θ ← θ − ηα Π(m̂/(√v̂+ε)) − κdθ"),
    ):
        assert science.formula(parse(name), momentum=momentum, nesterov=nesterov, momentum_form=form) == text
    assert science.users_of("momentum") == [Family.SGD, Family.RMSPROP, Family.SGDP, Family.MUON, Family.KFAC]
    assert Family.SGD not in science.users_of("beta1")
    assert science.users_of("epochs") == []
