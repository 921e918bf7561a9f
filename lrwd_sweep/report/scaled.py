"""Studies along a scale as rows, JSON and CSV: the best values, their exponents, and published rules."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from lrwd_sweep.report.result import Result
from lrwd_sweep.report.view.notation import estimate_text, short_decimal
from lrwd_sweep.science.scaling import (
    DECAY,
    LR,
    TAU_EPOCHS,
    TAU_SHARE,
    Optimum,
    PowerLaws,
    ScaledLattice,
    scaling,
)
from lrwd_sweep.science.separability import Estimate
from lrwd_sweep.science.separability.verdict import MARGIN
from lrwd_sweep.spec.over import Over

SCHEMA_VERSION = 1
HEADER = [f"{name}{end}" for name in (LR, DECAY, TAU_EPOCHS, TAU_SHARE) for end in ("", "_low", "_high")]


@dataclass(frozen=True, slots=True)
class Length:
    """Steps of a task."""

    epoch: float
    run: int  # that decay, N


@dataclass(frozen=True, slots=True)
class Scaled:
    """Studies along a scale, in the order of its values, with what was found."""

    over: Over
    results: Sequence[Result]
    lengths: Sequence[Length]
    found: PowerLaws
    margin: float

    @classmethod
    def of(cls, over: Over, results: Sequence[Result], margin: float = MARGIN) -> Scaled:
        """Analyse studies, one for each value of the scale."""
        tasks = [result.spec.task for result in results]
        lengths = [Length(task.steps_per_epoch, task.decay_steps) for task in tasks if task is not None]
        scales = [
            ScaledLattice(value, result.surface, length.run, length.epoch)
            for value, result, length in zip(over.values, results, lengths, strict=True)
        ]
        return cls(over, results, lengths, scaling(over.axis, scales, margin=margin), margin)

    @property
    def symbol(self) -> str:
        """The letter of the decay axis."""
        return self.results[0].surface.symbol

    def optimum_rows(self) -> list[tuple[str, ...]]:
        """Return label, one entry for each value, and the exponent."""
        optima, exponents = self.found.optima, self.found.exponents
        rows = [
            ("best α", *(_place(o, o.lr, LR) for o in optima), estimate_text(exponents[LR])),
            (f"best {self.symbol}", *(_place(o, o.weight_decay, DECAY) for o in optima), ""),
        ]
        independent = estimate_text(exponents[DECAY])
        if self.symbol == "λ":
            rows[1] = (*rows[1][:-1], independent)
        if all(o.tau_epochs.value is not None for o in optima):
            if self.symbol != "λ":
                rows.append(("λ = 1/τ per step", *("" for _ in optima), independent))
            rows += [
                (
                    "τ in epochs",
                    *(_ranged(o.tau_epochs) for o in optima),
                    estimate_text(exponents[TAU_EPOCHS]),
                ),
                ("τ in runs", *(_ranged(o.tau_share) for o in optima), estimate_text(exponents[TAU_SHARE])),
            ]
        elif self.symbol != "λ":
            rows[1] = (*rows[1][:-1], independent)
        metric = self.results[0].surface.metric
        rows.append((metric, *(short_decimal(o.best) if o.best is not None else "-" for o in optima), ""))
        return rows

    def rule_exponents(self) -> list[tuple[str, float, float]]:
        """Return rule, exponent of α, exponent of λ (λ′ for coupled decay); the first rule keeps the cell."""
        published = [(one.rule.name, one.rate, one.predicted) for one in self.found.rules]
        return [(f"keep α and {self.symbol}", 0.0, self.found.kept), *published]

    def rule_rows(self) -> list[tuple[str, str, str, str]]:
        """Return rule, exponent of λ, conclusion and cost."""
        support = ["-", *(str(one.support) for one in self.found.rules)]
        costs = [self.found.regret, *(one.regret for one in self.found.rules)]
        return [
            (name, short_decimal(exponent, 2).replace("-", "−", 1), concluded, estimate_text(cost, None))
            for (name, _, exponent), concluded, cost in zip(
                self.rule_exponents(), support, costs, strict=True
            )
        ]

    def sources(self) -> str:
        """Name the papers of the rules."""
        return "; ".join(f"{one.rule.name}: {one.rule.source}" for one in self.found.rules)

    def sentence(self) -> str:
        """Say what carrying the smallest scale's cell to the largest costs."""
        low, high = (self.over.label(value) for value in (self.over.values[0], self.over.values[-1]))
        cost = self.found.regret
        if cost.value is None:
            return f"the cost of the best cell of {low} at {high} is undetermined: {cost.reason}"
        text = f"{estimate_text(replace(cost, reason=''), None)} {self.results[0].surface.metric}"
        why = f" ({cost.reason})" if cost.reason else ""
        return f"the best cell of {low} at {high} costs {text}{why}"

    def json(self) -> str:
        """Return it as one strict JSON document."""
        found = self.found
        document = {
            "schema_version": SCHEMA_VERSION,
            "optimizer": str(self.results[0].spec.optimizer),
            "metric": self.results[0].surface.metric,
            "axis": str(found.axis),
            "scales": [
                {"value": optimum.value, "study_name": result.name, "best": optimum.best}
                | {name: _numbers(value) for name, value in _estimates(optimum).items()}
                | {"on_edge": list(optimum.edges)}
                for optimum, result in zip(found.optima, self.results, strict=True)
            ],
            "exponents": {name: _numbers(value) for name, value in found.exponents.items()},
            "carry_regret": _numbers(found.regret),
            "rules": [
                {
                    "rule": one.rule.name,
                    "source": one.rule.source,
                    "predicted_exponent": one.predicted,
                    "predicted_lr_exponent": one.rate,
                    "conclusion": str(one.support),
                    "carry_regret": _numbers(one.regret),
                }
                for one in found.rules
            ],
        }
        return json.dumps(document, ensure_ascii=False, allow_nan=False, indent=2) + "\n"

    def csv(self) -> str:
        """Return a row for each value of the scale."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["study", str(self.over.axis), self.results[0].surface.metric, *HEADER, "on_edge"])
        for optimum, result in zip(self.found.optima, self.results, strict=True):
            numbers = [x for e in _estimates(optimum).values() for x in (e.value, e.low, e.high)]
            writer.writerow([result.name, optimum.value, optimum.best, *numbers, " ".join(optimum.edges)])
        return out.getvalue()


def _estimates(optimum: Optimum) -> dict[str, Estimate]:
    return {
        LR: optimum.lr,
        DECAY: optimum.weight_decay,
        TAU_EPOCHS: optimum.tau_epochs,
        TAU_SHARE: optimum.tau_share,
    }


def _numbers(found: Estimate) -> dict[str, Any]:
    return {"value": found.value, "low": found.low, "high": found.high, "reason": found.reason}


def _place(optimum: Optimum, found: Estimate, name: str) -> str:
    return _ranged(found) + ", edge" * (name in optimum.edges)


def _ranged(found: Estimate) -> str:
    """Write a value with its interval, three digits each."""
    if found.value is None:
        return "-"
    text = short_decimal(found.value)
    if found.low is None or found.high is None:
        return text
    return f"{text} [{short_decimal(found.low, 2)}, {short_decimal(found.high, 2)}]"
