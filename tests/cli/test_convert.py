"""`convert` does the arithmetic between conventions, and refuses what has no equivalent."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lrwd_sweep.science.decay import Convention
from tests.cli.conftest import Run, ended, process

ADAMW = ("convert", "-o", "adamw", "--lr", "1e-3")
CIFAR = ("--batch-size", "128", "--train-size", "50000")


def document(run: Run, *arguments: str) -> Any:
    """The JSON of a conversion that succeeds."""
    found = run(*arguments, "--format", "json")
    assert (found.code, found.err) == (0, "")
    return json.loads(found.out)


def values(run: Run, *arguments: str) -> dict[str, float | None]:
    """The converted number by convention."""
    return {entry["convention"]: entry["value"] for entry in document(run, *arguments)["conventions"]}


def test_pytorchs_decay_becomes_the_papers_with_formula_and_arithmetic(run: Run) -> None:
    found = run(*ADAMW, "--wd", "0.05", "--from", "lr-scaled", "--to", "independent")
    assert (found.code, found.err) == (0, "")
    assert found.out.splitlines() == [
        "lr-scaled w = 0.05 at α = 0.001 is independent λ = 5e-05",
        "  λ = α × w = 0.001 × 0.05 = 5e-05",
        "  θ ← θ − ηαwθ",
        "  θ ← θ − ηλθ",
        "  exact under any schedule",
        "  decay averages over 1/λ = 20000 steps where η = 1",
    ]


def test_projected_decay_averages_ten_times_as_long(run: Run) -> None:
    arguments = ("convert", "-o", "adamp", "--lr", "2^-8", "--wd", "16")
    *_, last = run(*arguments, "--epochs", "1", "--batch-size", "8", "--train-size", "64").out.splitlines()
    assert last == (
        "  decay averages over 1/λ = 16 to 160 steps = 2 to 20 epochs where η = 1, "
        "the longer where a step is projected"
    )
    found = document(run, *arguments)
    assert (found["timescale_steps"], found["timescale_steps_projected"]) == pytest.approx((16, 160))
    assert document(run, *ADAMW, "--wd", "0.1")["timescale_steps_projected"] is None


def test_worked_example_of_the_paper(run: Run) -> None:
    short = values(run, *ADAMW, "--wd", "0.05", "--from", "normalized", "--epochs", "100", *CIFAR)
    assert short["independent"] == pytest.approx(2.53e-4, rel=1e-3)
    long = values(run, *ADAMW, "--wd", "0.025", "--from", "normalized", "--epochs", "1500", *CIFAR)
    assert long["independent"] == pytest.approx(3.26e-5, rel=2e-3)
    assert long["lr-scaled"] == pytest.approx(0.0326, rel=2e-3)


def test_an_epoch_counts_its_incomplete_batch_unless_that_is_dropped(run: Run) -> None:
    arguments = (*ADAMW, "--wd", "1e-4", "--epochs", "100", *CIFAR)
    assert document(run, *arguments)["steps"] == 39_100
    dropped = document(run, *arguments, "--drop-last")
    assert dropped["steps"] == 39_000
    assert dropped["timescale_epochs"] == pytest.approx(1e4 / 390)


def test_without_to_every_convention_is_named_once(run: Run) -> None:
    found = run("convert", "-o", "sgd", "--lr", "2^-3", "--wd", "0.01", "--steps", "100")
    rows = [line.split()[0] for line in found.out.splitlines()]
    assert [rows.count(convention) for convention in Convention] == [
        2 if c == "coupled" else 1 for c in Convention
    ]
    assert max(len(line) for line in found.out.splitlines() if ":" not in line) <= 80


def test_sgd_with_l2_takes_the_momentum(run: Run) -> None:
    arguments = ("convert", "-o", "sgd", "--lr", "0.1", "--wd", "1e-3", "--to", "independent")
    assert values(run, *arguments)["independent"] == pytest.approx(1e-3)
    assert values(run, *arguments, "--momentum", "0")["independent"] == pytest.approx(1e-4)
    assert "asymptotically" in run(*arguments).out
    assert "exact under any schedule" in run(*arguments, "--momentum", "0").out


def test_adam_with_l2_is_shown_to_have_no_equivalent(run: Run) -> None:
    found = values(run, "convert", "-o", "adam", "--lr", "1e-3", "--wd", "0.1", "--steps", "9")
    assert {convention for convention, value in found.items() if value is not None} == {"coupled"}
    assert "Proposition 2" in run("convert", "-o", "adam", "--lr", "1e-3", "--wd", "0.1").out


def test_no_decay_is_no_decay_even_for_adam(run: Run) -> None:
    found = run("convert", "-o", "adam", "--lr", "1e-3", "--wd", "0", "--to", "lr-scaled")
    assert found.out.startswith("coupled λ′ = 0 at α = 0.001 is lr-scaled w = 0\n")
    found = run("convert", "-o", "adam:normalized", "--lr", "1e-3", "--wd", "0", "--to", "lr-scaled")
    assert found.out.startswith("coupled λ′ = 0 at α = 0.001 is lr-scaled w = 0\n")


def test_what_a_schedule_does_not_scale_is_equal_at_a_constant_rate_only(run: Run) -> None:
    (entry,) = document(run, *ADAMW, "--wd", "0.01", "--to", "fixed")["conventions"]
    assert (entry["value"], entry["exact"]) == (0.01, False)
    assert "constant learning rate only" in entry["remark"]


def test_between_two_that_no_schedule_scales_the_limit_is_said_once(run: Run) -> None:
    arguments = ("convert", "-o", "adamw:fixed", "--lr", "0.1", "--wd", "0.01", "--to", "corrected")
    (entry,) = document(run, *arguments)["conventions"]
    assert entry["value"] == pytest.approx(0.1)
    assert entry["remark"].count("constant learning rate only") == 1


def test_the_optimizers_name_says_what_wd_is(run: Run) -> None:
    for name, source in (
        ("adamw:fixed", "fixed"),
        ("rmspropw:corrected", "corrected"),
        ("adamwr", "normalized"),
        ("sgdw:normalized", "normalized"),
        ("adamp", "lr-scaled"),
        ("amsgrad", "coupled"),
    ):
        found = document(run, "convert", "-o", name, "--lr", "0.1", "--wd", "0.2", "--steps", "100")
        assert found["from"] == {"convention": source, "value": 0.2}


def test_adamwrs_number_is_over_the_root_of_its_steps(run: Run) -> None:
    arguments = ("convert", "-o", "adamwr", "--lr", "1e-3", "--wd", "0.05", "--to", "independent")
    assert values(run, *arguments, "--epochs", "100", *CIFAR)["independent"] == pytest.approx(
        2.53e-4, rel=1e-3
    )


def test_a_normalised_number_of_another_rule_is_divided_first(run: Run) -> None:
    arguments = (
        "convert",
        "-o",
        "adamw:lr-scaled:normalized",
        "--lr",
        "0.1",
        "--wd",
        "0.2",
        "--steps",
        "100",
    )
    assert run(*arguments, "--to", "independent").out.splitlines()[:3] == [
        "lr-scaled w = 0.02 at α = 0.1 is independent λ = 0.002",
        "  w = λ_norm / √N = 0.2 / √100 = 0.02",
        "  λ = α × w = 0.1 × 0.02 = 0.002",
    ]
    assert "  w = λ_norm / √N = 0.2 / √100 = 0.02\n" in run(*arguments).out
    given = document(run, *arguments)["from"]
    assert given == {"convention": "lr-scaled", "value": pytest.approx(0.02), "lambda_norm": 0.2}
    given = document(run, *arguments, "--from", "lr-scaled")["from"]
    assert given == {"convention": "lr-scaled", "value": 0.2}


def test_sgdps_lr_scaled_decay_takes_the_momentum(run: Run) -> None:
    arguments = ("convert", "-o", "sgdp", "--lr", "0.1", "--wd", "0.02", "--to", "independent")
    assert run(*arguments).out.splitlines()[:3] == [
        "lr-scaled w = 0.02 at α = 0.1 is independent λ = 0.02",
        "  λ = α × w / (1 − β₁) = 0.1 × 0.02 / (1 − 0.9) = 0.02",
        "  θ ← θ − ηαwθ/(1−β₁)",
    ]
    assert values(run, *arguments, "--momentum", "0.5")["independent"] == pytest.approx(0.004)
    assert "exact under any schedule" in run(*arguments).out


REFUSED = [
    (("convert", "-o", "rmsprop", "--lr", "1", "--wd", "1", "--to", "lr-scaled"), ("RMSProp", "rmspropw")),
    (("convert", "-o", "adagradw", "--lr", "1", "--wd", "1", "--to", "coupled"), ("AdaGrad", "adagradw")),
    (("convert", "-o", "adamp", "--lr", "1", "--wd", "1", "--to", "coupled"), ("AdamP", "-optimizer adamp")),
    (("convert", "-o", "sgdp", "--lr", "1", "--wd", "1", "--to", "coupled"), ("SGDP", "decoupled")),
    (("convert", "-o", "adam:normalized", "--lr", "1", "--wd", "1"), ("λ_norm", "give --steps")),
    (("convert", "-o", "adamwr", "--lr", "1", "--wd", "1", "--to", "fixed"), ("N is not known", "--steps")),
    (("convert", "-o", "rmsprop", "--lr", "1", "--wd", "1", "--momentum", "0"), ("sgd and sgdp", "leave")),
    (
        ("convert", "-o", "adam", "--lr", "1", "--wd", "1", "--to", "lr-scaled"),
        ("Proposition 2", "compare adam"),
    ),
    ((*ADAMW, "--wd", "1", "--to", "coupled"), ("independent to coupled", "Proposition 2")),
    ((*ADAMW, "--wd", "1", "--to", "normalized"), ("N is not known", "give --steps")),
    ((*ADAMW, "--wd", "1", "--from", "normalised"), ("'normalised'", "normalized")),
    ((*ADAMW, "--wd", "1", "--to", "l2"), ("'l2'", "coupled")),
    ((*ADAMW, "--wd", "-1"), ("--wd -1", "above 0")),
    ((*ADAMW, "--wd", "x"), ("--wd x", "1e-3")),
    (("convert", "-o", "adamw", "--lr", "0", "--wd", "1"), ("--lr 0", "above 0")),
    ((*ADAMW, "--wd", "1", "--epochs", "9"), ("--batch-size and --train-size", "--steps")),
    ((*ADAMW, "--wd", "1", "--steps", "9", "--epochs", "9"), ("--steps 9", "leave out")),
    ((*ADAMW, "--wd", "1", "--epochs", "1", "--batch-size", "9", "--train-size", "8"), ("--batch-size 9",)),
    ((*ADAMW, "--wd", "1", "--momentum", "0.9"), ("--momentum 0.9", "leave it out")),
    (("convert", "-o", "sgd", "--lr", "1", "--wd", "1", "--momentum", "1"), ("--momentum 1", "below 1")),
    (("convert", "-o", "sgd", "--lr", "1", "--wd", "1", "--momentum", "nan"), ("--momentum nan", "below 1")),
    (("convert", "-o", "adamw", "--lr", "1e-200", "--wd", "1e200"), ("1e+200", "lr-scaled")),
    (("convert", "-o", "adamw:lr-scaled", "--lr", "1e-200", "--wd", "1e-200"), ("1e-200", "independent")),
    ((*ADAMW, "--wd", "1", "--format", "xml"), ("'xml'", "json")),
    (("convert", "-o", "lion", "--lr", "1", "--wd", "1"), ("'lion'", "adamw")),
    (ADAMW, ("--wd", "lrwd-sweep convert --help")),
]


@pytest.mark.parametrize(("arguments", "parts"), REFUSED, ids=lambda case: " ".join(case[1:]))
def test_bad_input_is_one_line_with_its_remedy(
    run: Run, arguments: tuple[str, ...], parts: tuple[str, ...]
) -> None:
    found = run(*arguments)
    assert (found.code, found.out) == (2, "")
    assert found.err.count("\n") == 1
    for part in parts:
        assert part in found.err


def test_it_loads_neither_numpy_nor_a_database() -> None:
    found = ended(process(*ADAMW, "--wd", "1", PYTHONPROFILEIMPORTTIME="1"))
    assert found.code == 0
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in found.err.splitlines()}
    assert "lrwd_sweep" in loaded
    assert not loaded & {"torch", "numpy", "sqlalchemy", "optuna", "sklearn"}


def test_a_console_without_greek_gets_words() -> None:
    found = ended(process(*ADAMW, "--wd", "1", "--to", "lr-scaled", PYTHONIOENCODING="ascii"))
    assert "lr-scaled w = 1000" in found.out
    assert "theta <- theta - eta*alpha*w*theta" in found.out
    assert "\\u" not in found.out
