"""Sweeps of small scripts in an empty directory."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from lrwd_sweep.runner.executors import run_process
from lrwd_sweep.runner.runner import Runner
from lrwd_sweep.science.trial import Trial
from lrwd_sweep.spec.job import DataFiles
from lrwd_sweep.spec.request import Request
from lrwd_sweep.spec.study import StudySpec
from lrwd_sweep.store import Store

FAST = f"{sys.executable} -S -E script.py"  # an interpreter that starts in 15 ms
RUN = f"{FAST} {{lr}} {{weight_decay}} {{seed}} {{out}}"
HEAD = (
    "import json, os, signal, sys, time\nlr, wd, seed, out = sys.argv[1:5]\nlr, wd = float(lr), float(wd)\n"
)
ONE: dict[str, Any] = {"lr": [0.01], "weight_decay": [0.1], "seeds": 1}
FOUR: dict[str, Any] = {"lr": [0.01, 0.02], "weight_decay": [0.1, 0.2], "seeds": 1}


@pytest.fixture(autouse=True)
def _soon(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(run_process, "GRACE", 0.5)
    monkeypatch.setattr(run_process, "READ_EVERY", 0.02)


def spec(script: str = "", **given: Any) -> StudySpec:
    if script:
        Path("script.py").write_text(HEAD + script, encoding="utf-8")
    request = Request.of(**{"run": RUN, "metric": "val_loss", **given})
    return request.spec(request.variant("adamw:lr-scaled"))


def sweep(store: Store, asked: StudySpec, name: str = "s") -> list[Trial]:
    Runner(store, "auto", None, DataFiles(), quiet=True).grid(name, asked)
    return store.trials(name, curves=True)


def attempts(name: str = "s") -> list[Path]:
    return sorted(Path("lrwd-runs", name).glob("*/attempt-*"))


def log_of(attempt: Path) -> Any:
    return json.loads((attempt / "command.json").read_text())
