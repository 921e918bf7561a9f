"""Public names, one-line errors, and studies with their frame, surface and picture."""

import io
import subprocess
import sys
from pathlib import Path
from typing import Any, assert_type

import numpy as np
import pytest
from rich.console import Console

import lrwd_sweep
from lrwd_sweep import Comparison, LrwdError, Study
from lrwd_sweep.errors import NothingToReport, StoreError, UnknownName, UsageError
from lrwd_sweep.report.result import comparison, result
from lrwd_sweep.report.trained_study import Best
from tests.api.conftest import NAME, TINY, stored, tiny
from tests.refusal import assert_raises
from tests.report.view.examples import study


def test_frame_surface_and_best_cell_are_what_the_store_holds(swept: Study) -> None:
    frame, trials = swept.frame, stored(str(swept.store))
    assert len(frame) == len(trials) == 2 * 2 * 2
    for (_, row), trial in zip(frame.iterrows(), trials, strict=True):
        assert (row["lr"], row["weight_decay"]) == (trial.cell.lr, trial.cell.weight_decay)
        assert (row["seed"], row["status"], row["detail"]) == (trial.seed, trial.status, trial.detail)
        assert {name: row[name] for name in trial.metrics} == trial.metrics
    assert set(frame) == {"lr", "weight_decay", "seed", "status", "detail", *trials[0].metrics}
    assert list(frame)[5] == swept.metric == "val_loss"
    curves = swept.curves()
    for name in trials[0].curves:
        assert curves[name].tolist() == [value for trial in trials for value in trial.curves[name]]
    means = frame.groupby(["lr", "weight_decay"])["val_loss"].mean()
    np.testing.assert_allclose(swept.surface.mean.ravel(), means, rtol=1e-14)
    best = swept.best
    assert_type(best, Best | None)
    assert best is not None
    assert (best.lr, best.weight_decay) == means.idxmin()
    assert best.value == pytest.approx(means.min(), rel=1e-14)
    assert best.sem is not None
    assert best.test_value is not None


def test_a_study_shows_itself_everywhere_also_without_a_value(swept: Study) -> None:
    shown = f"<Study '{NAME}' of adamw: 2×2 cells × 2 seeds; undetermined; best val_loss "
    assert repr(swept).startswith(shown)
    assert "torch.optim.AdamW(params" in swept.recipe
    assert swept.formula in str(swept)
    console = Console(file=io.StringIO(), width=100, force_terminal=True, color_system="truecolor")
    console.print(swept)
    assert "\x1b[" in console.file.getvalue()  # type: ignore[attr-defined]
    assert "background-color: #" in swept._repr_html_()
    lost = Study(result("lost", study().spec, "", []), Path("lost.db"))
    assert (lost.best, lost.recipe) == (None, "")
    assert "25 missing" in repr(lost)
    assert "no cell has a value" in lost._repr_html_()


def test_a_comparison_is_that_of_the_results() -> None:
    found = lrwd_sweep.compare(["adam", "adamw"], **TINY | {"seeds": 3})
    assert_type(found, Comparison)
    assert list(found.studies) == ["adam", "adamw"]
    a, b = found.studies.values()
    assert found.differences == {"adamw": comparison(a.result, b.result).comparison}
    assert found.verdict == found.differences["adamw"].verdict
    assert found.frame["study"].value_counts().to_dict() == {"adam": 12, "adamw": 12}
    assert found.frame[found.frame["study"] == "adamw"]["val_loss"].tolist() == b.frame["val_loss"].tolist()
    assert repr(found) == "<Comparison: adam undetermined, adamw undetermined>"
    assert found.verdict.split()[0] in str(found)
    assert found._repr_html_().count(": values to use") == 2
    assert Comparison(*(lrwd_sweep.load(one.name) for one in (a, b))).differences == found.differences


def test_a_comparison_needs_different_studies(swept: Study) -> None:
    names: Any
    for names in (["adam"], "adam", ["adam", "adam"]):
        assert_raises("two or more different optimizers", lrwd_sweep.compare, names)
    for studies in ((), (swept, swept)):
        assert_raises("different studies", Comparison, *studies)


def test_the_package_loads_nothing_heavy_and_a_study_is_read_without_torch(swept: Study) -> None:
    heavy = {"torch", "sqlalchemy", "rich", "numpy", "pandas", "optuna", "jinja2", "typer"}
    for code, absent in (
        ("lrwd_sweep.LrwdError; dir(lrwd_sweep)", heavy),
        (f"lrwd_sweep.load({NAME!r}, storage={str(swept.store)!r})._repr_html_()", {"torch"}),
    ):
        whole = f"import sys, lrwd_sweep; {code}; print(*sys.modules)"
        done = subprocess.run([sys.executable, "-c", whole], capture_output=True, text=True, check=True)
        assert not absent & {name.split(".")[0] for name in done.stdout.split()}, code


def test_every_public_name_is_there_and_no_other() -> None:
    modules = {path.stem for path in Path(lrwd_sweep.__file__).parent.iterdir()}
    assert not modules & set(lrwd_sweep.__all__)  # whose import would take the place of the name
    for name in lrwd_sweep.__all__:
        assert getattr(lrwd_sweep, name).__name__ == name
        assert name in dir(lrwd_sweep)
    with pytest.raises(AttributeError, match="'lrwd_sweep' has no attribute 'sweeps'"):
        lrwd_sweep.sweeps  # noqa: B018


def test_a_mistake_is_one_line_that_names_the_keyword() -> None:
    cases: list[tuple[dict[str, Any], type[LrwdError], str]] = [
        ({"epoch": 3}, UnknownName, "unknown keyword 'epoch'; did you mean epochs?"),
        ({"optimizer": 3}, UsageError, "^optimizer=3 is not text"),
        ({"batch_size": 1}, UsageError, "^batch_size=1 is not a whole number of at least 2"),
        ({"lr": 0.1}, UsageError, "^lr=0.1 is not an axis"),
        ({"t_0": 3}, UsageError, "^t_0 has no effect on schedule cosine"),
        ({"download": True}, UsageError, "^download=True has no effect on digits"),
        ({"device": "tpu"}, UnknownName, "unknown device 'tpu'"),
        ({"study_name": " "}, UsageError, "^study_name=' ' is not a name"),
        ({"storage": ":memory:"}, StoreError, "^storage ':memory:' names no file"),
        ({"checkpoint_every": -1}, UsageError, "^checkpoint_every=-1 is too small"),
        ({"max_lanes": 0}, UsageError, "^max_lanes=0 is not a whole number"),
        ({"shard": "0/3"}, UsageError, "^shard='0/3' is not the K-th"),
        ({"shard": "1/3", "refine": True}, UsageError, "^refine=True decides from all results"),
        ({"spool": "x"}, UsageError, "^spool='?x'? has no effect without executor="),
    ]
    for asked, error, said in cases:
        assert_raises(f"(?!.*--){said}", lrwd_sweep.sweep, error=error, **asked)
    assert_raises("^shard='1/2' divides a lattice", lrwd_sweep.tpe, shard="1/2")
    assert_raises("^trials=0 is not a whole number", lrwd_sweep.tpe, trials=0)
    assert not Path("lrwd-sweep.db").exists()


def test_a_study_that_is_not_there_names_the_near_one() -> None:
    assert_raises("lrwd-sweep compare", lrwd_sweep.load, NAME, error=NothingToReport)
    tiny(study_name="mine")
    assert_raises("did you mean mine", lrwd_sweep.load, "mien", error=UnknownName)
