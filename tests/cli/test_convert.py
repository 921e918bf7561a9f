"""`convert` does the arithmetic between conventions, and refuses a number without an equivalent."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lrwd_sweep.science.optimizer import Convention
from tests.cli.conftest import Run


def text(run: Run, arguments: str) -> list[str]:
    found = run("convert", *arguments.split())
    assert (found.code, found.err) == (0, ""), arguments
    return found.out.splitlines()


def document(run: Run, arguments: str) -> Any:
    return json.loads("\n".join(text(run, f"{arguments} --format json")))


def test_conversion_shows_formula_and_arithmetic_or_a_row_per_convention(run: Run) -> None:
    assert text(run, "-o adamw --lr 1e-3 --wd 0.05 --from lr-scaled --to independent") == [
        "lr-scaled w = 0.05 at α = 0.001 is independent λ = 5e-05",
        "  λ = α × w = 0.001 × 0.05 = 5e-05",
        "  θ ← θ − ηαwθ",
        "  θ ← θ − ηλθ",
        "  exact under any schedule",
        "  decay averages over 1/λ = 20000 steps where η = 1",
    ]
    lines = text(run, "-o sgd --lr 2^-3 --wd 0.01 --steps 100")
    rows = [line.split()[0] for line in lines]
    for convention in Convention:
        assert rows.count(convention) == (2 if convention is Convention.COUPLED else 1)
    assert max(len(line) for line in lines if ":" not in line) <= 80


def test_json_of_a_conversion_and_normalized_decay(run: Run) -> None:
    arguments = "-o adamw --lr 1e-3 --wd 1e-4 --epochs 100 --batch-size 128 --train-size 50000"
    assert document(run, arguments)["steps"] == 39_100, "an epoch counts its incomplete batch"
    dropped = document(run, f"{arguments} --drop-last")
    assert (dropped["steps"], dropped["timescale_epochs"]) == (39_000, pytest.approx(1e4 / 390))
    projected = document(run, "-o adamp --lr 2^-8 --wd 16")
    found = projected["timescale_steps"], projected["timescale_steps_projected"]
    assert found == pytest.approx((16, 160))
    for name, source in (("adamw:fixed", "fixed"), ("adamwr", "normalized"), ("amsgrad", "coupled")):
        found = document(run, f"-o {name} --lr 0.1 --wd 0.2 --steps 100")
        assert found["from"] == {"convention": source, "value": 0.2}
    arguments = "-o adamw:lr-scaled:normalized --lr 0.1 --wd 0.2 --steps 100"
    assert text(run, f"{arguments} --to independent")[1] == "  w = λ_norm / √N = 0.2 / √100 = 0.02"
    expected = {"convention": "lr-scaled", "value": pytest.approx(0.02), "lambda_norm": 0.2}
    assert document(run, arguments)["from"] == expected
