"""A name determines an optimizer's update; decay is converted exactly or refused; η_t follows the papers."""

import math
import re
from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrwd_sweep.errors import UnknownName
from lrwd_sweep.science import optimizer as science
from lrwd_sweep.science.conversion import Conventions, Run, conventions, timescale
from lrwd_sweep.science.optimizer import Convention, DecayRule, Family, Optimizer, optimizer_names
from lrwd_sweep.science.schedule import Schedule, Timetable
from tests.refusal import assert_raises

parse = Optimizer.parse
alphas, lambdas, steps = st.floats(1e-6, 10), st.floats(1e-8, 1), st.integers(1, 10**6)
momenta = st.floats(0, 0.99)
UNSCHEDULED = {Convention.FIXED, Convention.CORRECTED}
EXACT = (Convention.INDEPENDENT, Convention.LR_SCALED, Convention.NORMALIZED)


def test_names_are_read_and_wrong_ones_refused_with_the_near_ones() -> None:
    for name, family, rule in (
        ("adam:coupled", Family.ADAM, DecayRule.COUPLED),
        (" SGDW ", Family.SGD, DecayRule.INDEPENDENT),
        ("adamp", Family.ADAMP, DecayRule.LR_SCALED),  # its authors' rule
        ("sgdp:corrected", Family.SGDP, DecayRule.CORRECTED),
    ):
        assert parse(name) == Optimizer(family, rule), name
    for name, read in (("adamwr", "adamw"), ("SGDWR", "sgdw"), ("adampwr", "adampw")):  # warm restarts
        assert parse(name) == parse(f"{read}:normalized")
        assert (science.asks_for_restarts(name), science.asks_for_restarts(read)) == (True, False)
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
            said = str(optimizer), optimizer.normalized, optimizer.symbol
            assert said == (name + end, bool(end), "λ_norm" if end else optimizer.rule.symbol)
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


@given(alphas, lambdas, steps, momenta, st.sampled_from(Convention), st.sampled_from(Convention))
def test_detours_agree_and_arithmetic_is_right_and_ends_in_the_number(
    lr: float, x: float, n: int, mu: float, source: Convention, target: Convention
) -> None:
    sgd = Run(Family.SGD, lr, n, mu)
    for way in Convention:
        between = sgd.convert(x, source, way)
        assert between is not None
        assert sgd.convert(x, source, target) == pytest.approx(sgd.convert(between, way, target), rel=1e-12)
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
    sgdp = Run(Family.SGDP, lr, 9, mu).convert(x, Convention.INDEPENDENT, Convention.LR_SCALED)
    assert sgdp == pytest.approx(x * (1 - mu) / lr)


def test_number_that_does_not_exist_is_not_guessed_and_limits_name_what_is_not_exact() -> None:
    for family, source, target in product((*Family, None), Convention, Convention):
        assert Run(family, 0.1).convert(0.0, source, target) == 0.0
    for family, other in product(set(Family) - {Family.SGD, Family.SGDP}, EXACT):
        run, two = Run(family, 0.1, 9), (Convention.COUPLED, other)
        assert run.convert(0.1, *two) is run.convert(0.1, *two[::-1]) is None, family
        assert f"makes {family.display_name} do" in run.obstacle(Convention.COUPLED)
    unknown = Run(Family.SGD, 0.1)
    for run, source, target, obstacle in (
        (unknown, Convention.COUPLED, Convention.INDEPENDENT, "the momentum is not known"),
        (unknown, Convention.NORMALIZED, Convention.INDEPENDENT, "the number of steps N is not known"),
        (Run(Family.SGDP, 0.1), Convention.LR_SCALED, Convention.FIXED, "the momentum is not known"),
    ):
        assert run.convert(0.1, source, target) is run.convert(0.1, target, source) is None
        assert run.obstacle(source) == obstacle
    assert "decoupled" in Run(Family.SGDP, 0.1, 9, 0.9).obstacle(Convention.COUPLED)
    with_momentum, without = Run(Family.SGD, 0.1, 9, 0.9), Run(Family.SGD, 0.1, 9, 0.0)
    constant = replace(without, constant=True)
    assert "asymptotically" in with_momentum.limits(Convention.COUPLED)
    assert without.limits(Convention.COUPLED) == ""  # Proposition 1
    assert not any(with_momentum.limits(convention) for convention in EXACT)
    for source, target in product(Convention, Convention):
        assert ("constant learning rate only" in without.limits(source)) is (source in UNSCHEDULED)
        assert not constant.limits(source)
        assert constant.holds(source, target)
        assert without.holds(source, target) is (source is target or not UNSCHEDULED & {source, target})


@given(alphas, lambdas, steps, momenta)
def test_own_number_is_kept_and_lambda_norm_divided_by_root_n(lr: float, x: float, n: int, mu: float) -> None:
    for name in optimizer_names():
        optimizer, normalized = parse(name), parse(f"{name}:normalized")
        found, moving = (conventions(optimizer, lr, x, n, mu, constant=each) for each in (True, False))
        own = {
            DecayRule.COUPLED: found.coupled,
            DecayRule.INDEPENDENT: found.independent,
            DecayRule.LR_SCALED: found.lr_scaled,
            DecayRule.FIXED: found.independent,  # equal where η = 1
            DecayRule.CORRECTED: found.independent and pytest.approx(found.independent / lr),
        }
        assert x == own[optimizer.rule], name
        if optimizer.rule.convention not in UNSCHEDULED:
            assert moving == found, name
        else:
            others = (moving.independent, moving.lr_scaled, moving.coupled, moving.normalized)
            assert others == (None,) * 4, name
            per_step = x * (lr if name.endswith("corrected") else 1)
            assert moving.timescale_steps == pytest.approx(1 / per_step), name
        found, unknown = (conventions(normalized, lr, x, steps, mu) for steps in (n, None))
        assert found == conventions(optimizer, lr, x / math.sqrt(n), n, mu), name
        assert (unknown.independent, unknown.lr_scaled, unknown.coupled) == (None, None, None), name
        assert unknown.normalized == (found.normalized and pytest.approx(found.normalized)), name


@given(alphas, lambdas, st.floats(0, 1))
def test_propositions_hold_and_projected_steps_decay_at_a_tenth(lr: float, x: float, share: float) -> None:
    assert conventions(parse("sgdw"), lr, x, None, 0.0).coupled == pytest.approx(x / lr, rel=1e-12)
    assert conventions(parse("adam"), lr, x, 9, 0.9) == Conventions(None, None, x, None, steps=9)
    for optimizer in map(parse, ("sgdp", "sgdpw:fixed", "adampw", "adampw:corrected")):
        of = {each: conventions(optimizer, lr, x, 9, 0.9, projected=each) for each in (0.0, share, 1.0, None)}
        never = of[0.0].timescale_steps or math.nan
        assert of[None].timescale_steps == never
        projected = of[share].timescale_steps, of[1.0].timescale_steps, of[None].timescale_steps_projected
        assert projected == pytest.approx((never / (1 - 0.9 * share), 10 * never, 10 * never))
    assert conventions(parse("sgdw"), 0.1, 0.0, 100, 0.9) == Conventions(0.0, 0.0, 0.0, 0.0, steps=100)
    assert timescale(5e-324) is None  # no finite number of steps


counts = [st.integers(*ends) for ends in ((11, 100), (1, 9), (0, 10), (1, 30), (1, 3))]  # epochs to T_mult
timetables = st.builds(Timetable, st.sampled_from(Schedule), *counts, st.floats(0, 0.9))


@given(timetables)
def test_eta_warms_up_linearly_and_stays_between_its_least_and_one(timetable: Timetable) -> None:
    per_epoch, n = timetable.steps_per_epoch, timetable.epochs * timetable.steps_per_epoch
    found, warm = [timetable.eta(t) for t in range(n)], timetable.warmup * per_epoch
    assert found[:warm] == pytest.approx([(t + 1) / warm for t in range(warm)])
    assert all(0 < eta <= 1 for eta in found)
    assert found[warm] == pytest.approx(1)
    assert min(found[warm:]) >= timetable.eta_min - 1e-12
    if timetable.schedule is not Schedule.RESTARTS:
        assert found[warm:] == sorted(found[warm:], reverse=True)
        assert (timetable.snapshots, {timetable.steps_of_cycle(t) for t in range(0, n, 7)}) == ((), {n})
    for epoch in timetable.snapshots:
        assert epoch <= timetable.epochs
        if epoch < timetable.epochs and per_epoch * timetable.t_0 > 1:
            assert found[epoch * per_epoch] > found[epoch * per_epoch - 1]


def test_schedules_have_the_shapes_and_restarts_of_the_papers() -> None:
    for schedule, shape in ((Schedule.FIXED, [1.0] * 4), (Schedule.LINEAR, [1.0, 0.75, 0.5, 0.25])):
        assert [Timetable(schedule, 4, 1).eta(t) for t in range(4)] == shape
    for n in (10, 100, 360):
        found = [Timetable(Schedule.STEP, n, 1).eta(t) for t in range(n)]
        assert [t for t in range(1, n) if found[t] < found[t - 1]] == [3 * n // 10, 6 * n // 10, 8 * n // 10]
        assert found[-1] == pytest.approx(0.001)
    ends = Timetable(Schedule.COSINE, 1000, 1, eta_min=0.1)
    assert [ends.eta(t) for t in (0, 500, 999)] == pytest.approx([1, 0.55, 0.1], abs=1e-5)
    paper = Timetable(Schedule.RESTARTS, 1800, 391, t_0=100, t_mult=2)  # AdamW paper, equations 14 and 15
    assert paper.snapshots == (100, 300, 700, 1500)
    for epoch, start, n in (50, 0, 100), (99, 0, 100), (150, 100, 200), (900, 700, 800), (1500, 1500, 1600):
        assert paper.steps_of_cycle(391 * epoch) == 391 * n  # N of normalized decay
        for batch in (0, 1, 200, 390):  # T_cur is fractional
            wanted = 0.5 + 0.5 * math.cos(math.pi * (epoch - start + batch / 391) / n)
            assert paper.eta(391 * epoch + batch) == pytest.approx(wanted, abs=1e-12)
    timetable = Timetable(Schedule.RESTARTS, 20, 1, warmup=2, t_0=4, t_mult=2)
    assert timetable.snapshots == (6, 14), "warm-up precedes the first cycle"
    assert [timetable.eta(t) for t in (0, 1, 2, 6, 14)] == [0.5, 1, 1, 1, 1]
