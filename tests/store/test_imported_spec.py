"""The specification of an imported study, and the questions that its file and names leave open."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lrwd_sweep.cli.options import option_text
from lrwd_sweep.errors import UsageError
from lrwd_sweep.science.lattice import Cell, Lattice
from lrwd_sweep.science.optimizer import DecayRule, Family, Optimizer
from lrwd_sweep.science.trial import Direction, Status, Trial
from lrwd_sweep.spec.study import Kind
from lrwd_sweep.store.imports import ImportedSweep, import_spec
from lrwd_sweep.store.imports.run_table import SweepContext

TRIALS = (
    Trial(Cell(0.1, 0.0), 0, Status.COMPLETE, {"value": 1.5}),
    Trial(Cell(0.1, 0.01), 0, Status.DIVERGED),
)
SWEEP = ImportedSweep(TRIALS, Lattice((0.1,), (0.0, 0.01)), (0,))
SCALED, PAPER = DecayRule.LR_SCALED, DecayRule.INDEPENDENT


def with_context(**context: object) -> ImportedSweep:
    return replace(SWEEP, context=SweepContext(**context))  # type: ignore[arg-type]


def refusal(sweep: ImportedSweep, optimizer: str, **options: object) -> str:
    with pytest.raises(UsageError) as error:
        import_spec(sweep, optimizer, **options)  # type: ignore[arg-type]
    return error.value.spelled(option_text)


def test_spec_spans_the_file() -> None:
    spec = import_spec(replace(SWEEP, metric="m"), "adamw:lr-scaled")
    assert (spec.kind, spec.lattice, spec.seeds) == (Kind.IMPORT, SWEEP.lattice, (0,))
    assert (spec.metric, spec.task) == ("m", None)
    assert spec.optimizer == Optimizer(Family.ADAM, SCALED)
    assert (spec.direction, spec.given_cap) == (Direction.MINIMIZE, None)


def test_name_of_a_decoupled_optimizer_leaves_the_decay_rule_open() -> None:
    for name, scaled, paper in (
        ("adamw", "adamw:lr-scaled", "adamw:independent"),
        ("AdamW", "adamw:lr-scaled", "adamw:independent"),
        ("sgdw", "sgdw:lr-scaled", "sgdw:independent"),
        ("rmspropw", "rmspropw:lr-scaled", "rmspropw:independent"),
        ("adampw", "adampw:lr-scaled", "adampw:independent"),
        ("adamwr", "adamw:lr-scaled:normalized", "adamw:independent:normalized"),
    ):
        text = refusal(SWEEP, name)
        assert text.startswith(f"{name}: did you train ")
        assert text.endswith(
            f"({scaled}) or the paper's rule ({paper})? add --decay-rule lr-scaled or "
            "--decay-rule independent"
        )
        for rule, full in ((SCALED, scaled), (PAPER, paper)):
            expected = Optimizer.parse(full)
            assert import_spec(SWEEP, name, decay_rule=rule).optimizer == expected
            assert import_spec(with_context(decay_rule=rule), name).optimizer == expected
            assert import_spec(SWEEP, full).optimizer == expected


def test_other_names_determine_the_decay_rule() -> None:
    for name in ("adam", "sgd", "adamp", "sgdp", "adamw:fixed", "adamw:corrected"):
        assert import_spec(SWEEP, name).optimizer == Optimizer.parse(name)


def test_unknown_optimizer_needs_a_decay_rule() -> None:
    assert "add --decay-rule: one of coupled, independent, lr-scaled" in refusal(SWEEP, "Lion v2")
    for sweep, rule in ((SWEEP, "lr-scaled"), (with_context(decay_rule=SCALED), None)):
        optimizer = import_spec(sweep, "Lion v2", decay_rule=rule).optimizer
        assert (str(optimizer), optimizer.rule, optimizer.family) == ("Lion v2", SCALED, None)
    assert "did you mean adam, adamw or adamp?" in refusal(SWEEP, "adamv")


def test_contradictions_are_refused_with_a_remedy() -> None:
    both = with_context(decay_rule=SCALED, direction=Direction.MAXIMIZE)
    for sweep, optimizer, options, text in (
        (
            *(SWEEP, "adam", {"decay_rule": "lr-scaled"}),
            "--decay-rule lr-scaled contradicts --optimizer adam, which is coupled; "
            "write --optimizer adamw:lr-scaled",
        ),
        (
            *(SWEEP, "adamw", {"decay_rule": "coupled"}),
            "contradicts --optimizer adamw, which is decoupled; write --optimizer adam",
        ),
        (
            *(SWEEP, "adamw:lr-scaled", {"decay_rule": "independent"}),
            "which is lr-scaled; write --optimizer adamw:independent",
        ),
        (SWEEP, "adampw", {"decay_rule": "coupled"}, "which is decoupled; adamp has no L2"),
        (SWEEP, "lion", {"decay_rule": "lr-scald"}, "unknown decay rule 'lr-scald'; did you mean lr-scaled"),
        (SWEEP, " ", {"decay_rule": "lr-scaled"}, "--optimizer ' ' is empty"),
        (both, "adamw", {"decay_rule": "independent"}, "--columns decay_rule="),
        (both, "adam", {}, "column decay_rule lr-scaled contradicts --optimizer adam,"),
        (both, "adamw", {"direction": Direction.MINIMIZE}, "--columns direction="),
    ):
        assert text in refusal(sweep, optimizer, **options)


def test_name_that_suggests_higher_needs_a_direction() -> None:
    sweep = with_context(higher="metric 'f1'")
    assert refusal(sweep, "adam") == (
        "is a higher or a lower value better (metric 'f1' suggests higher)? "
        "add --maximize, or --minimize if lower is better"
    )
    for direction in Direction:
        assert import_spec(sweep, "adam", direction=direction).direction is direction
        assert import_spec(with_context(higher="x", direction=direction), "adam").direction is direction
    assert refusal(sweep, "adamw").count("\n") == 1  # both questions at once


def test_given_cap_overrides_that_of_the_file() -> None:
    assert import_spec(with_context(cap=2.0), "adam").given_cap == 2.0
    assert import_spec(with_context(cap=2.0), "adam", cap=3.0).given_cap == 3.0
