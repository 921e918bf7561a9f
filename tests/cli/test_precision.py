"""`--precision`: part of the study, named wherever a study is, and refused where it would change one."""

from __future__ import annotations

import json
from pathlib import Path

from lrwd_sweep.store import open_store
from tests.cli.conftest import ADAMW, STORE, TINY, Run

ROUNDED = ("--precision", "bfloat16")
NAME = f"{ADAMW}-bfloat16"
NET = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(64, 10)

    def forward(self, x):
        logits = torch.zeros(len(x), 10, dtype=x.dtype)
        logits[torch.arange(len(x))] = self.head(x.flatten(1))
        return logits
"""


def test_a_study_of_its_own_with_its_precision_in_every_answer(run: Run) -> None:
    trained = run("grid", *TINY, *ROUNDED)
    assert trained.code == 0
    assert "computed in bfloat16" in trained.out
    assert "--precision bfloat16" in trained.out  # in what to do next
    assert json.loads(run("report", "--format", "json").out)["studies"][0]["study_name"] == NAME
    assert run("grid", *TINY, *ROUNDED).err == f"{NAME}: 9 of 9 lanes are in the store; nothing to train\n"
    assert run("grid", *TINY).code == 0
    with open_store(STORE, write=False) as store:
        plain, rounded = store.get_study(ADAMW).spec, store.get_study(NAME).spec
        values = [{trial.cell: trial.metrics for trial in store.trials(name)} for name in (ADAMW, NAME)]
    assert rounded.task is not None
    assert rounded.task.precision == "bfloat16"
    assert plain.differences(rounded) == ["precision: float32, bfloat16"]
    assert values[0].keys() == values[1].keys()
    assert values[0] != values[1]


def test_a_network_that_cannot_compute_in_it_is_refused_with_the_way_out(run: Run, tmp_path: Path) -> None:
    (tmp_path / "my_net.py").write_text(NET)
    found = run("grid", *TINY[:-4], "--epochs", "1", "--seeds", "1", *ROUNDED, "--net", "./my_net.py:Net")
    assert (found.code, found.out) == (2, "")
    assert "--net ./my_net.py:Net cannot compute in bfloat16: RuntimeError" in found.err
    assert "my_net.py, line 13" in found.err
    assert found.err.endswith("; choose --precision float32\n")
    assert found.err.count("\n") == 1
    assert not (tmp_path / STORE).exists() or run("study", "list").out.count("my_net") == 0
