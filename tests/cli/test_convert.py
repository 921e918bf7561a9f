"""`convert` does the arithmetic between conventions, and refuses a number without an equivalent."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lrwd_sweep.science.optimizer import Convention
from tests.cli.conftest import Run, ended, process

CIFAR = "--batch-size 128 --train-size 50000"


def text(run: Run, arguments: str) -> list[str]:
    """Return the lines of a conversion that succeeds."""
    found = run("convert", *arguments.split())
    assert (found.code, found.err) == (0, ""), arguments
    return found.out.splitlines()


def document(run: Run, arguments: str) -> Any:
    return json.loads("\n".join(text(run, f"{arguments} --format json")))


def values(run: Run, arguments: str) -> dict[str, float | None]:
    """Return the converted number by convention."""
    return {entry["convention"]: entry["value"] for entry in document(run, arguments)["conventions"]}


def test_pytorchs_decay_becomes_the_papers_with_formula_and_arithmetic(run: Run) -> None:
    assert text(run, "-o adamw --lr 1e-3 --wd 0.05 --from lr-scaled --to independent") == [
        "lr-scaled w = 0.05 at α = 0.001 is independent λ = 5e-05",
        "  λ = α × w = 0.001 × 0.05 = 5e-05",
        "  θ ← θ − ηαwθ",
        "  θ ← θ − ηλθ",
        "  exact under any schedule",
        "  decay averages over 1/λ = 20000 steps where η = 1",
    ]


def test_projected_decay_averages_ten_times_as_long(run: Run) -> None:
    arguments = "-o adamp --lr 2^-8 --wd 16"
    *_, last = text(run, f"{arguments} --epochs 1 --batch-size 8 --train-size 64")
    assert last == (
        "  decay averages over 1/λ = 16 to 160 steps = 2 to 20 epochs where η = 1, "
        "the longer where a step is projected"
    )
    found = document(run, arguments)
    assert (found["timescale_steps"], found["timescale_steps_projected"]) == pytest.approx((16, 160))
    assert document(run, "-o adamw --lr 1e-3 --wd 0.1")["timescale_steps_projected"] is None


def test_the_papers_worked_example(run: Run) -> None:
    short = f"--lr 1e-3 --wd 0.05 --epochs 100 {CIFAR}"
    for name in ("-o adamw --from normalized", "-o adamwr"):
        assert values(run, f"{name} {short}")["independent"] == pytest.approx(2.53e-4, rel=1e-3)
    long = values(run, f"-o adamw --lr 1e-3 --wd 0.025 --from normalized --epochs 1500 {CIFAR}")
    assert long["independent"] == pytest.approx(3.26e-5, rel=2e-3)
    assert long["lr-scaled"] == pytest.approx(0.0326, rel=2e-3)


def test_an_epoch_counts_its_incomplete_batch_unless_it_is_dropped(run: Run) -> None:
    arguments = f"-o adamw --lr 1e-3 --wd 1e-4 --epochs 100 {CIFAR}"
    assert document(run, arguments)["steps"] == 39_100
    dropped = document(run, f"{arguments} --drop-last")
    assert (dropped["steps"], dropped["timescale_epochs"]) == (39_000, pytest.approx(1e4 / 390))


def test_without_to_every_convention_has_a_row(run: Run) -> None:
    lines = text(run, "-o sgd --lr 2^-3 --wd 0.01 --steps 100")
    rows = [line.split()[0] for line in lines]
    for convention in Convention:
        assert rows.count(convention) == (2 if convention is Convention.COUPLED else 1)
    assert max(len(line) for line in lines if ":" not in line) <= 80


def test_sgd_and_sgdp_take_the_momentum(run: Run) -> None:
    arguments = "-o sgd --lr 0.1 --wd 1e-3 --to independent"
    for momentum, expected, limit in (
        ("", 1e-3, "  L2 under momentum is decay asymptotically, not step by step"),
        ("--momentum 0", 1e-4, "  exact under any schedule"),
    ):
        assert values(run, f"{arguments} {momentum}")["independent"] == pytest.approx(expected)
        assert limit in text(run, f"{arguments} {momentum}")
    arguments = "-o sgdp --lr 0.1 --wd 0.02 --to independent"
    assert text(run, arguments)[:3] == [
        "lr-scaled w = 0.02 at α = 0.1 is independent λ = 0.02",
        "  λ = α × w / (1 − β₁) = 0.1 × 0.02 / (1 − 0.9) = 0.02",
        "  θ ← θ − ηαwθ/(1−β₁)",
    ]
    assert values(run, f"{arguments} --momentum 0.5")["independent"] == pytest.approx(0.004)


def test_l2_of_adam_has_no_equivalent_unless_it_is_0(run: Run) -> None:
    found = values(run, "-o adam --lr 1e-3 --wd 0.1 --steps 9")
    assert {convention for convention, value in found.items() if value is not None} == {"coupled"}
    assert "Proposition 2" in text(run, "-o adam --lr 1e-3 --wd 0.1")[-1]
    for name in ("adam", "adam:normalized"):
        first, *_ = text(run, f"-o {name} --lr 1e-3 --wd 0 --to lr-scaled")
        assert first == "coupled λ′ = 0 at α = 0.001 is lr-scaled w = 0"


def test_fixed_and_corrected_decay_are_equal_only_at_a_constant_rate(run: Run) -> None:
    for arguments, value in (
        ("-o adamw --lr 1e-3 --wd 0.01 --to fixed", 0.01),
        ("-o adamw:fixed --lr 0.1 --wd 0.01 --to corrected", 0.1),
    ):
        (entry,) = document(run, arguments)["conventions"]
        assert (entry["value"], entry["exact"]) == (pytest.approx(value), False)
        assert entry["remark"].count("constant learning rate only") == 1


def test_the_optimizers_name_gives_the_convention(run: Run) -> None:
    for name, source in (
        ("adamw:fixed", "fixed"),
        ("rmspropw:corrected", "corrected"),
        ("adamwr", "normalized"),
        ("sgdw:normalized", "normalized"),
        ("adamp", "lr-scaled"),
        ("amsgrad", "coupled"),
    ):
        found = document(run, f"-o {name} --lr 0.1 --wd 0.2 --steps 100")
        assert found["from"] == {"convention": source, "value": 0.2}


def test_normalized_decay_of_another_rule_is_divided_first(run: Run) -> None:
    arguments = "-o adamw:lr-scaled:normalized --lr 0.1 --wd 0.2 --steps 100"
    divided = "  w = λ_norm / √N = 0.2 / √100 = 0.02"
    assert text(run, f"{arguments} --to independent")[:3] == [
        "lr-scaled w = 0.02 at α = 0.1 is independent λ = 0.002",
        divided,
        "  λ = α × w = 0.1 × 0.02 = 0.002",
    ]
    assert divided in text(run, arguments)
    expected = {"convention": "lr-scaled", "value": pytest.approx(0.02), "lambda_norm": 0.2}
    assert document(run, arguments)["from"] == expected
    given = document(run, f"{arguments} --from lr-scaled")["from"]
    assert given == {"convention": "lr-scaled", "value": 0.2}


REFUSED = {  # parts of the message by arguments
    "-o rmsprop --lr 1 --wd 1 --to lr-scaled": ("RMSProp", "rmspropw"),
    "-o adagradw --lr 1 --wd 1 --to coupled": ("AdaGrad", "adagradw"),
    "-o adamp --lr 1 --wd 1 --to coupled": ("AdamP", "-optimizer adamp"),
    "-o sgdp --lr 1 --wd 1 --to coupled": ("SGDP", "decoupled"),
    "-o adam:normalized --lr 1 --wd 1": ("λ_norm", "give --steps"),
    "-o adamwr --lr 1 --wd 1 --to fixed": ("N is not known", "--steps"),
    "-o rmsprop --lr 1 --wd 1 --momentum 0": ("sgd and sgdp", "leave"),
    "-o adam --lr 1 --wd 1 --to lr-scaled": ("Proposition 2", "compare adam"),
    "-o adamw --lr 1e-3 --wd 1 --to coupled": ("independent to coupled", "Proposition 2"),
    "-o adamw --lr 1e-3 --wd 1 --to normalized": ("N is not known", "give --steps"),
    "-o adamw --lr 1e-3 --wd 1 --from normalised": ("'normalised'", "normalized"),
    "-o adamw --lr 1e-3 --wd 1 --to l2": ("'l2'", "coupled"),
    "-o adamw --lr 1e-3 --wd -1": ("--wd -1", "above 0"),
    "-o adamw --lr 1e-3 --wd x": ("--wd x", "1e-3"),
    "-o adamw --lr 0 --wd 1": ("--lr 0", "above 0"),
    "-o adamw --lr 1e-3 --wd 1 --epochs 9": ("--batch-size and --train-size", "--steps"),
    "-o adamw --lr 1e-3 --wd 1 --steps 9 --epochs 9": ("--steps 9", "leave out"),
    "-o adamw --lr 1e-3 --wd 1 --drop-last": ("--drop-last needs --train-size", "leave it out"),
    "-o adamw --lr 1e-3 --wd 1 --epochs 1 --batch-size 9 --train-size 8": ("--batch-size 9",),
    "-o adamw --lr 1e-3 --wd 1 --momentum 0.9": ("--momentum 0.9", "leave it out"),
    "-o sgd --lr 1 --wd 1 --momentum 1": ("--momentum 1", "below 1"),
    "-o sgd --lr 1 --wd 1 --momentum nan": ("--momentum nan", "below 1"),
    "-o adamw --lr 1e-200 --wd 1e200": ("1e+200", "lr-scaled"),
    "-o adamw:lr-scaled --lr 1e-200 --wd 1e-200": ("1e-200", "independent"),
    "-o adamw --lr 1e-3 --wd 1 --format xml": ("'xml'", "json"),
    "-o lion --lr 1 --wd 1": ("'lion'", "adamw"),
    "-o adamw --lr 1e-3": ("--wd", "lrwd-sweep convert --help"),
}


def test_bad_input_is_refused_in_one_line(run: Run) -> None:
    for arguments, parts in REFUSED.items():
        found = run("convert", *arguments.split())
        assert (found.code, found.out, found.err.count("\n")) == (2, "", 1), arguments
        assert all(part in found.err for part in parts), arguments


def test_a_console_without_greek_has_words_and_no_numpy_is_loaded() -> None:
    arguments = ("-o", "adamw", "--lr", "1e-3", "--wd", "1", "--to", "lr-scaled")
    found = ended(process("convert", *arguments, PYTHONIOENCODING="ascii", PYTHONPROFILEIMPORTTIME="1"))
    assert found.code == 0
    assert "lr-scaled w = 1000" in found.out
    assert "theta <- theta - eta*alpha*w*theta" in found.out
    assert "\\u" not in found.out
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in found.err.splitlines()}
    assert "lrwd_sweep" in loaded
    assert not loaded & {"torch", "numpy", "sqlalchemy", "optuna", "sklearn"}
