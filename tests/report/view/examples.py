"""Surfaces, results and consoles for the tests of the views."""

import io
import unicodedata
from dataclasses import replace
from functools import cache
from typing import Any, TypeVar

import numpy as np
from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.text import Text

from lrwd_sweep.report.result import Result, result
from lrwd_sweep.science.lattice import Lattice
from lrwd_sweep.science.optimizer import DecayRule, Optimizer
from lrwd_sweep.science.surface import CellStatus, Float, Surface
from lrwd_sweep.science.trial import Status, Trial
from lrwd_sweep.spec.study import Kind, StudySpec
from lrwd_sweep.spec.task import Task
from tests import studies

T = TypeVar("T")
EPOCHS = 10
HOSTILE = "\x1b]0;gone\x07[/x] |`<script>\n\u202e=cmd() @all \x9b31m"


def known(value: T | None) -> T:
    assert value is not None
    return value


def surface(values: Float, *, baseline: bool = False, cap: float | None = None) -> Surface:
    """Return a surface on powers of two of values (I, J) or (I, J, R); NaN is a missing lane."""
    rows, columns, seeds = (values := np.atleast_3d(values)).shape
    lr, weight_decay = 2.0 ** np.arange(-rows, 0), 2.0 ** np.arange(-columns, 0)
    weight_decay[0] = 0 if baseline else weight_decay[0]
    lanes = np.where(np.isfinite(values), CellStatus.COMPLETE.value, CellStatus.MISSING.value).astype("U8")
    rule = DecayRule.INDEPENDENT
    return Surface(lr, weight_decay, tuple(range(seeds)), values, lanes, rule, "val_loss", cap)


def valley(rows: int = 11, columns: int = 11, *, diagonal: bool = False) -> Float:
    """Return a bowl, or a diagonal valley, of a cross-entropy."""
    a, b = np.meshgrid(np.linspace(-1, 1, rows), np.linspace(-1, 1, columns), indexing="ij")
    across = a + b if diagonal else b - 0.1
    return np.asarray(0.11 + 0.3 * across**2 + 0.05 * a**2 + 0.5 * np.clip(-a - 0.5, 0, 1))


@cache
def study(
    name: str = "study", optimizer: str | Optimizer = "adamw", *, kind: Kind = Kind.GRID, seeds: int = 3
) -> Result:
    """Return a 5×5 study, one lane diverged, one failed and one missing. It is cached: do not change it."""
    lattice = Lattice(tuple(2.0 ** np.arange(-9, -4)), tuple(2.0 ** np.arange(-7, -2)))
    odd, trials = {(0, 0): Status.DIVERGED, (1, 0): Status.FAILED}, []
    for k, (cell, value) in enumerate(zip(lattice.cells(), valley(5, 5).flat, strict=True)):
        for seed in range(1 if k == 2 else 0, seeds):
            loss = float(value) + 0.001 * seed
            metrics = {} if (k, seed) in odd else {"val_loss": loss, "test_loss": loss + 0.01}
            trials.append(Trial(cell, seed, odd.get((k, seed), Status.COMPLETE), metrics))
    optimizer = Optimizer.parse(optimizer) if isinstance(optimizer, str) else optimizer
    task = None if kind is Kind.IMPORT else Task()
    spec = StudySpec(kind, optimizer, lattice, tuple(range(seeds)), "val_loss", task)
    return result(name, spec, "2025-01-01T00:00:00Z", trials)


def having(**found: Any) -> Result:
    """Return the bowl of `tests.studies`, of which some numbers are given."""
    return replace(studies.study(), separability=replace(studies.study().separability, **found))


def labelled(name: str = HOSTILE) -> Result:
    return study(name, Optimizer(None, DecayRule.COUPLED, name), kind=Kind.IMPORT)


def lost() -> Result:
    return result("lost", study().spec, "", [Trial(t.cell, t.seed, Status.DIVERGED) for t in study().trials])


def stopped() -> Result:
    """Return a 7×7 study of three seeds in which each cell has one, and the last row none."""
    lanes = np.ndindex(7, 7, 3)
    return studies.without(studies.study(), *((i, j, seed) for i, j, seed in lanes if seed or i == 6))


@cache
def measured(name: str = "study", optimizer: str = "adamw", *, kind: Kind = Kind.GRID) -> Result:
    """Return `study` with curves: an effective learning rate α/2ᵉ at epoch e, a norm λ·e, …"""
    found, epochs, trials = study(name, optimizer, kind=kind), np.arange(1.0, EPOCHS + 1), []
    for trial in found.trials:
        last, lr, decay = trial.metrics.get("val_loss", np.nan), trial.cell.lr, trial.cell.weight_decay
        curves = {"val_loss": last * (1 + 10 / epochs) / 2, "train_loss": last / epochs}
        curves |= {"val_error": curves["val_loss"] / 3, "norm": decay * epochs}
        curves |= {"rotation": decay + 0 * epochs, "effective_lr": lr * 2.0**-epochs}
        metrics = dict(trial.metrics)
        if trial.status is Status.COMPLETE:
            metrics |= {"train_loss": last / EPOCHS, "test_error": last / 2, "val_error": last / 3}
        stored = {name: tuple(map(float, curve)) for name, curve in curves.items()}
        trials.append(replace(trial, metrics=metrics, curves=stored))
    return result(found.name, found.spec, found.created, trials)


def harmful(text: str) -> set[str]:
    """Return the control, bidirectional and other invisible characters of a text, except line ends."""
    return {c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")} - {"\n"}


def drawn(what: RenderableType, width: int = 80, encoding: str = "utf-8", **options: Any) -> str:
    """Return what a console of this width prints, without trailing blanks. Every line has to fit."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, newline="\n")
    plain: dict[str, Any] = dict.fromkeys(("highlight", "markup", "emoji"), False)
    Console(file=stream, width=width, _environ={}, **plain, **options).print(what)
    stream.seek(0)
    lines = stream.read().split("\n")
    assert max(cell_len(Text.from_ansi(line).plain) for line in lines) <= width, lines
    return "\n".join(line.rstrip() for line in lines).rstrip("\n") + "\n"
