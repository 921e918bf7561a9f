"""The package's public names and one-line errors."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import lrwd_sweep
from lrwd_sweep import LrwdError, Study
from lrwd_sweep.errors import NothingToReport, StoreError, UnknownName, UsageError
from tests.api.conftest import NAME, tiny


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = "import sys, lrwd_sweep; lrwd_sweep.LrwdError; dir(lrwd_sweep); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert not loaded & {"torch", "sqlalchemy", "rich", "numpy", "pandas", "optuna", "jinja2", "typer"}


def test_reading_a_study_loads_no_torch(swept: Study) -> None:
    code = f"import sys, lrwd_sweep; lrwd_sweep.load({NAME!r}, storage={str(swept.store)!r})._repr_html_()"
    code += "; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_public_name_is_there_and_no_other() -> None:
    modules = {path.stem for path in Path(lrwd_sweep.__file__).parent.iterdir()}
    assert not modules & set(lrwd_sweep.__all__)  # whose import would take the place of the name
    for name in lrwd_sweep.__all__:
        assert getattr(lrwd_sweep, name).__name__ == name
        assert name in dir(lrwd_sweep)
    with pytest.raises(AttributeError, match="'lrwd_sweep' has no attribute 'sweeps'"):
        lrwd_sweep.sweeps  # noqa: B018


MISTAKES: list[tuple[dict[str, Any], type[LrwdError], str]] = [
    ({"epoch": 3}, UnknownName, "unknown keyword 'epoch'; did you mean epochs?"),
    ({"optimizer": 3}, UsageError, "^optimizer=3 is not text"),
    ({"batch_size": 1}, UsageError, "^batch_size=1 is not a whole number of at least 2"),
    ({"lr": 0.1}, UsageError, "^lr=0.1 is not an axis"),
    ({"t_0": 3}, UsageError, "^t_0 has no effect on schedule cosine"),
    ({"download": True}, UsageError, "^download=True has no effect on digits"),
    ({"device": "tpu"}, UnknownName, "unknown device 'tpu'"),
    ({"study_name": " "}, UsageError, "^study_name=' ' is not a name"),
    ({"storage": ":memory:"}, StoreError, "^storage ':memory:' names no file"),
]


def test_a_mistake_is_one_line_that_names_the_keyword() -> None:
    for asked, kind, said in MISTAKES:
        with pytest.raises(kind, match=said) as raised:
            lrwd_sweep.sweep(**asked)
        assert "\n" not in str(raised.value), asked
        assert "--" not in str(raised.value), asked
    assert not Path("lrwd-sweep.db").exists()


def test_a_study_that_is_not_there_names_the_near_one() -> None:
    with pytest.raises(NothingToReport):
        lrwd_sweep.load(NAME)
    tiny(study_name="mine")
    with pytest.raises(UnknownName, match="did you mean mine"):
        lrwd_sweep.load("mien")
