"""The study that an imported sweep becomes, and the questions that its names leave open."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from lrwd_sweep.cli.options import option_text
from lrwd_sweep.errors import UsageError
from lrwd_sweep.science.decay import DecayRule
from lrwd_sweep.science.lattice import Cell, Lattice
from lrwd_sweep.science.optimizer import Family, Optimizer
from lrwd_sweep.science.trial import Direction, Status, Trial
from lrwd_sweep.spec.study import Kind
from lrwd_sweep.store import open_store
from lrwd_sweep.store.csv_context import Context
from lrwd_sweep.store.csv_import import Sweep
from lrwd_sweep.store.imported_spec import import_spec

TRIALS = (
    Trial(Cell(0.1, 0.0), 0, Status.COMPLETE, {"value": 1.5}),
    Trial(Cell(0.1, 0.01), 0, Status.DIVERGED),
)
SWEEP = Sweep(TRIALS, Lattice((0.1,), (0.0, 0.01)), (0,))


def stated(**context: object) -> Sweep:
    """A sweep whose file says something about it."""
    return replace(SWEEP, context=Context(**context))  # type: ignore[arg-type]


def refusal(sweep: Sweep, optimizer: str, **options: object) -> str:
    """What stops the import."""
    with pytest.raises(UsageError) as error:
        import_spec(sweep, optimizer, **options)  # type: ignore[arg-type]
    return error.value.spelled(option_text)


def test_spec_spans_the_file() -> None:
    spec = import_spec(replace(SWEEP, metric="m"), "adamw:lr-scaled")
    assert (spec.kind, spec.lattice, spec.seeds) == (Kind.IMPORT, SWEEP.lattice, (0,))
    assert (spec.metric, spec.task) == ("m", None)
    assert spec.optimizer == Optimizer(Family.ADAM, DecayRule.LR_SCALED)
    assert (spec.direction, spec.given_cap) == (Direction.MINIMIZE, None)


@pytest.mark.parametrize(
    ("name", "scaled", "paper"),
    [
        ("adamw", "adamw:lr-scaled", "adamw:independent"),
        ("AdamW", "adamw:lr-scaled", "adamw:independent"),
        ("sgdw", "sgdw:lr-scaled", "sgdw:independent"),
        ("rmspropw", "rmspropw:lr-scaled", "rmspropw:independent"),
        ("adampw", "adampw:lr-scaled", "adampw:independent"),
        ("adamwr", "adamw:lr-scaled:normalized", "adamw:independent:normalized"),
    ],
)
def test_bare_decoupled_name_leaves_the_convention_open(name: str, scaled: str, paper: str) -> None:
    text = refusal(SWEEP, name)
    assert text.startswith(f"{name}: did you train ")
    assert text.endswith(
        f"({scaled}) or the paper's rule ({paper})? add --decay-rule lr-scaled or --decay-rule independent"
    )
    for rule in (DecayRule.LR_SCALED, DecayRule.INDEPENDENT):
        named = {DecayRule.LR_SCALED: scaled, DecayRule.INDEPENDENT: paper}[rule]
        expected = Optimizer.parse(named)
        assert import_spec(SWEEP, name, decay_rule=rule).optimizer == expected
        assert import_spec(stated(decay_rule=rule), name).optimizer == expected
        assert import_spec(SWEEP, named).optimizer == expected


@pytest.mark.parametrize("name", ["adam", "sgd", "adamp", "sgdp", "adamw:fixed", "adamw:corrected"])
def test_other_names_settle_the_convention(name: str) -> None:
    assert import_spec(SWEEP, name).optimizer == Optimizer.parse(name)


def test_free_label_needs_its_rule() -> None:
    text = refusal(SWEEP, "Lion v2")
    assert "add --decay-rule: one of coupled, independent, lr-scaled" in text
    for sweep, rule in ((SWEEP, "lr-scaled"), (stated(decay_rule=DecayRule.LR_SCALED), None)):
        optimizer = import_spec(sweep, "Lion v2", decay_rule=rule).optimizer
        assert (str(optimizer), optimizer.rule, optimizer.family) == ("Lion v2", DecayRule.LR_SCALED, None)


def test_typo_names_the_near_optimizer() -> None:
    assert "did you mean adam, adamw or adamp?" in refusal(SWEEP, "adamv")


@pytest.mark.parametrize(
    ("optimizer", "rule", "text"),
    [
        (
            "adam",
            "lr-scaled",
            "--decay-rule lr-scaled contradicts --optimizer adam, which is coupled; "
            "write --optimizer adamw:lr-scaled",
        ),
        ("adamw", "coupled", "contradicts --optimizer adamw, which is decoupled; write --optimizer adam"),
        ("adamw:lr-scaled", "independent", "which is lr-scaled; write --optimizer adamw:independent"),
        ("adampw", "coupled", "which is decoupled; adamp has no L2"),
        ("lion", "lr-scald", "unknown decay rule 'lr-scald'; did you mean lr-scaled"),
        (" ", "lr-scaled", "--optimizer ' ' is empty"),
    ],
)
def test_optimizer_and_rule_that_contradict(optimizer: str, rule: str, text: str) -> None:
    assert text in refusal(SWEEP, optimizer, decay_rule=rule)


def test_file_and_options_that_contradict() -> None:
    sweep = stated(decay_rule=DecayRule.LR_SCALED, direction=Direction.MAXIMIZE)
    assert "--columns decay_rule=" in refusal(sweep, "adamw", decay_rule="independent")
    assert "column decay_rule lr-scaled contradicts --optimizer adam," in refusal(sweep, "adam")
    assert "--columns direction=" in refusal(sweep, "adamw", direction=Direction.MINIMIZE)


def test_name_that_says_higher_stops_the_import_until_the_direction_is_given() -> None:
    sweep = stated(higher="metric 'f1'")
    assert refusal(sweep, "adam") == (
        "is a higher or a lower value better (metric 'f1' says higher)? "
        "add --maximize, or --minimize if lower is better"
    )
    for direction in Direction:
        assert import_spec(sweep, "adam", direction=direction).direction is direction
        assert import_spec(stated(higher="x", direction=direction), "adam").direction is direction


def test_all_that_is_open_is_asked_at_once() -> None:
    assert refusal(stated(higher="metric 'f1'"), "adamw").count("\n") == 1


def test_cap_is_that_of_the_file_unless_another_is_given() -> None:
    assert import_spec(stated(cap=2.0), "adam").given_cap == 2.0
    assert import_spec(stated(cap=2.0), "adam", cap=3.0).given_cap == 3.0


def test_imported_study_is_stored_like_any_other(tmp_path: Path) -> None:
    with open_store(str(tmp_path / "a.db"), write=True) as store:
        store.begin_study("theirs", import_spec(SWEEP, "lion", decay_rule="lr-scaled"))
        store.add_trials("theirs", TRIALS)
        assert store.trials("theirs") == [*TRIALS]
        counts = {"cells": 2, "complete": 1, "diverged": 1, "failed": 0, "missing": 0}
        assert store.studies()[0].counts == counts
