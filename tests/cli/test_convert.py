"""`convert` does the arithmetic between conventions, and refuses a number without an equivalent."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lrwd_sweep.science.decay import Convention
from tests.cli.conftest import Run, ended, process

CIFAR = "--batch-size 128 --train-size 50000"


def text(run: Run, arguments: str) -> list[str]:
    """Return the lines of a conversion that succeeds."""
    found = run("convert", *arguments.split())
    assert (found.code, found.err) == (0, ""), arguments
    return found.out.splitlines()


def document(run: Run, arguments: str) -> Any:
    return json.loads("\n".join(text(run, f"{arguments} --format json")))


def test_pytorchs_decay_becomes_the_papers_with_formula_and_arithmetic(run: Run) -> None:
    assert text(run, "-o adamw --lr 1e-3 --wd 0.05 --from lr-scaled --to independent") == [
        "lr-scaled w = 0.05 at α = 0.001 is independent λ = 5e-05",
        "  λ = α × w = 0.001 × 0.05 = 5e-05",
        "  θ ← θ − ηαwθ",
        "  θ ← θ − ηλθ",
        "  exact under any schedule",
        "  decay averages over 1/λ = 20000 steps where η = 1",
    ]


def test_an_epoch_counts_its_incomplete_batch_unless_it_is_dropped(run: Run) -> None:
    arguments = f"-o adamw --lr 1e-3 --wd 1e-4 --epochs 100 {CIFAR}"
    assert document(run, arguments)["steps"] == 39_100
    dropped = document(run, f"{arguments} --drop-last")
    assert (dropped["steps"], dropped["timescale_epochs"]) == (39_000, pytest.approx(1e4 / 390))
    projected = document(run, "-o adamp --lr 2^-8 --wd 16")
    found = projected["timescale_steps"], projected["timescale_steps_projected"]
    assert found == pytest.approx((16, 160))


def test_without_to_every_convention_has_a_row(run: Run) -> None:
    lines = text(run, "-o sgd --lr 2^-3 --wd 0.01 --steps 100")
    rows = [line.split()[0] for line in lines]
    for convention in Convention:
        assert rows.count(convention) == (2 if convention is Convention.COUPLED else 1)
    assert max(len(line) for line in lines if ":" not in line) <= 80


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
    "-o adam:normalized --lr 1 --wd 1": ("λ_norm", "give --steps"),
    "-o adam --lr 1 --wd 1 --to lr-scaled": ("Proposition 2", "compare adam"),
    "-o adamw --lr 1e-3 --wd 1 --to l2": ("'l2'", "coupled"),
    "-o adamw --lr 1e-3 --wd -1": ("--wd -1", "above 0"),
    "-o adamw --lr 1e-3 --wd x": ("--wd x", "1e-3"),
    "-o adamw --lr 0 --wd 1": ("--lr 0", "above 0"),
    "-o adamw --lr 1e-3 --wd 1 --epochs 9": ("--batch-size and --train-size", "--steps"),
    "-o adamw --lr 1e-3 --wd 1 --steps 9 --epochs 9": ("--steps 9", "leave out"),
    "-o adamw --lr 1e-3 --wd 1 --drop-last": ("--drop-last needs --train-size", "leave it out"),
    "-o adamw --lr 1e-3 --wd 1 --epochs 1 --batch-size 9 --train-size 8": ("--batch-size 9",),
    "-o adamw --lr 1e-3 --wd 1 --momentum 0.9": ("--momentum 0.9", "leave it out"),
    "-o sgd --lr 1 --wd 1 --momentum nan": ("--momentum nan", "below 1"),
    "-o adamw --lr 1e-200 --wd 1e200": ("1e+200", "lr-scaled"),
    "-o adamw --lr 1e-3": ("--wd", "lrwd-sweep convert --help"),
}


def test_bad_input_is_refused_in_one_line(run: Run) -> None:
    for arguments, parts in REFUSED.items():
        found = run("convert", *arguments.split())
        assert (found.code, found.out, found.err.count("\n")) == (2, "", 1), arguments
        assert all(part in found.err for part in parts), arguments


def test_a_console_without_greek_has_words() -> None:
    arguments = ("-o", "adamw", "--lr", "1e-3", "--wd", "1", "--to", "lr-scaled")
    found = ended(process("convert", *arguments, PYTHONIOENCODING="ascii"))
    assert found.code == 0
    assert "lr-scaled w = 1000" in found.out
    assert "theta <- theta - eta*alpha*w*theta" in found.out
    assert "\\u" not in found.out
