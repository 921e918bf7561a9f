"""The JSON of real stores follows the schema, and holds the numbers of the analysis."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from lrwd_sweep.report.result import read_results
from lrwd_sweep.science.separability import Separability
from lrwd_sweep.store import open_store
from tests.cli.conftest import STORE, Run
from tests.former.commands import ADAM, ADAMW, GRID_NAME, HERE, OPTION_NAMES, TPE_NAME
from tests.report.view.schema import faults

NEW = (
    "margin margin_octaves allowed excluded product_not_excluded seeds_to_settle too_near_margin windowed "
    "rows_on_edge three_cell_slope slope_from_rows verdict_from_rows bow contour_slope sequential_regret "
    "lr_sensitivity ridge best_by_row contrast expected_best timescale"
)
GATES = ("--max-sequential-regret", "9", "--max-lr-sensitivity", "9", "--no-edge")
OF_FORMER: dict[
    str, list[tuple[str, ...]]
] = {  # kinds: compared, one grid, search, import and every option; two or three seeds
    "lattices": [(ADAM, ADAMW), (ADAM, ADAMW, "--margin", "0.5")],
    "unfinished": [(GRID_NAME,), (TPE_NAME,)],
    "options": [*((name,) for name in OPTION_NAMES), ("theirs",)],
}


def in_schema(run: Run, *arguments: str) -> Any:
    """Run report as JSON with gates; the exit code agrees with them."""
    found = run("report", *arguments, "--format", "json", *GATES)
    assert found.out, found
    document = json.loads(found.out)
    assert faults(document, "report") == [], arguments
    assert found.code == int(document["gate_summary"]["failed"] > 0), arguments
    for each in document["studies"]:
        assert set(NEW.split()) <= each["separability"].keys(), arguments
    return document


def test_stores_of_former_versions_and_of_this_one_give_documents_of_version_2(
    run: Run, compared: Path
) -> None:
    for store, several in OF_FORMER.items():
        shutil.copy(HERE / f"{store}.sqlite", f"{store}.db")
        for arguments in several:
            document = in_schema(run, *arguments, "--storage", f"{store}.db")
            assert document["schema_version"] == 2
            assert {line["topic"] for line in document["answer"]} >= {"verdict", "use", "next"}
            assert {
                each["separability"]["lr_sensitivity"]["fixed"]["value"] for each in document["studies"]
            } == {None}, "no former version measured the value before the first step"
    assert compared.exists()  # one seed, 3×3
    document = in_schema(run)
    for each in document["studies"]:
        found = each["separability"]
        assert found["verdict"] == "undetermined"
        assert found["lr_sensitivity"]["fixed"]["value"] >= 0
        assert found["contrast"] is None  # it needs two seeds
    assert document["next"]["runs"] > 0
    assert document["next"]["command"].startswith("lrwd-sweep grid --optimizer adam ")


def test_new_numbers_are_those_of_the_analysis(run: Run) -> None:
    shutil.copy(HERE / "lattices.sqlite", STORE)
    document = in_schema(run, ADAM, ADAMW)
    with open_store(str(Path(STORE)), write=False) as store:
        results, (compared,) = read_results(store, [ADAM, ADAMW])
    for each, result in zip(document["studies"], results, strict=True):
        written, found = each["separability"], result.separability
        for name in set(Separability.__slots__) - {"ridge_rows", "basin_tolerance"}:  # written elsewhere
            wanted, value = getattr(found, name), written.get(name)
            if name in ("ridge", "best_by_row"):
                assert [result.surface.lr[i] for i, _ in wanted] == [place["lr"] for place in value], name
            elif isinstance(wanted, bool | int | float | str):
                assert value == wanted, name
            elif hasattr(wanted, "low"):
                assert (value["value"], value.get("low"), value.get("high")) == (
                    wanted.value, wanted.low, wanted.high
                ), name  # fmt: skip
        tau = written["timescale"]
        if tau is not None and tau["steps"]["value"] is not None:
            assert tau["epochs"]["value"] == pytest.approx(tau["steps"]["value"] / 6)
            assert tau["share"]["value"] == pytest.approx(tau["epochs"]["value"] / 4)
    distance = document["comparisons"][0]["distance_difference"]
    assert distance["value"] == compared.comparison.distance_difference.value
