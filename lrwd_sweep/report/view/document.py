"""The report as JSON: one strict, deterministic document of `schema_version` 1.

`report.schema.json` beside this file describes it. Within one version keys are only added.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from lrwd_sweep.report.gates import GateOutcome
from lrwd_sweep.report.recommend import Recommended, recommendations
from lrwd_sweep.report.result import ComparedResults, Result
from lrwd_sweep.report.view.pictures import Quantity
from lrwd_sweep.science.separability import Estimate, NoiseTest, Separability

SCHEMA_VERSION = 1

Document = dict[str, Any]


def document(
    results: Sequence[Result],
    comparisons: Sequence[ComparedResults] = (),
    outcomes: Sequence[GateOutcome] = (),
    shown: Sequence[Quantity] = (),
) -> Document:
    """Collect everything as plain values; a missing or infinite number is null, with a status or a reason.

    "gates" and every study's "shown" are present only if there are any.
    """
    gates = {"gates": [_gate(outcome) for outcome in outcomes]} if outcomes else {}
    return {
        "schema_version": SCHEMA_VERSION,
        "studies": [_study(result, results) | _shown(result, shown) for result in results],
        "comparisons": [_comparison(compared) for compared in comparisons],
    } | gates


def dumps(content: Document) -> str:
    """Write `content` in ASCII. Raises ValueError for NaN and infinity, which JSON does not have."""
    return json.dumps(content, indent=2, allow_nan=False) + "\n"


def _number(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


def _interval(estimate: Estimate) -> Document:
    return {
        "value": _number(estimate.value),
        "low": _number(estimate.low),
        "high": _number(estimate.high),
    }


def _study(result: Result, among: Sequence[Result]) -> Document:
    spec, task = result.spec, result.spec.task
    return {
        "study_name": result.name,
        "optimizer": str(spec.optimizer),
        "family": spec.optimizer.family and str(spec.optimizer.family),
        "decay_rule": str(spec.optimizer.rule),
        "formula": spec.formula,
        "metric": result.surface.metric,
        "direction": str(result.surface.direction),
        "cap": _number(result.surface.cap),
        "schedule": task and str(task.schedule),
        "net": task and task.net,
        "data": task and task.data,
        "epochs": task and task.epochs,
        "tensors": (task and task.tensors) or None,
        "seeds": list(result.surface.seeds),
        "axes": {
            "lr": [float(value) for value in result.surface.lr],
            "weight_decay": [float(value) for value in result.surface.weight_decay],
        },
        "counts": {
            name: result.surface.counts()[name]
            for name in ("cells", "complete", "diverged", "failed", "missing")
        },
        "runs": dict(zip(("done", "all"), result.surface.runs, strict=True)),
        "best": _best(result),
        "separability": _separability(result.separability),
        "recommended": _recommended(result, among),
        "cells": _cells(result),
    } | ({"snapshot": asdict(result.snapshot)} if result.snapshot else {})


def _shown(result: Result, quantities: Sequence[Quantity]) -> Document:
    """List seed means of further quantities, cell by cell; no cells but a reason if the study has none."""
    found = []
    for quantity in quantities:
        surface = quantity.surface(result)
        found.append(
            {
                "name": quantity.name,
                "meaning": quantity.label,
                "reason": quantity.absence(result) if surface is None else "",
                "cells": []
                if surface is None
                else [
                    {
                        "lr": float(surface.lr[i]),
                        "weight_decay": float(surface.weight_decay[j]),
                        "value": _number(float(mean)),
                        "sem": _number(float(surface.sem[i, j])),
                    }
                    for (i, j), mean in np.ndenumerate(surface.mean)
                ],
            }
        )
    return {"shown": found} if quantities else {}


def _best(result: Result) -> Document | None:
    found = result.ranked(1)
    if not found:
        return None
    best, task = found[0], result.spec.task
    decay = result.conventions(best.cell)
    steps = decay.timescale_steps
    return {
        "lr": best.cell.lr,
        "weight_decay": best.cell.weight_decay,
        "value": best.value,
        "sem": _number(best.sem),
        "on_edge": list(result.separability.on_edge),
        "test_value": _number(best.test_value),
        "conventions": {
            "independent": _number(decay.independent),
            "lr-scaled": _number(decay.lr_scaled),
            "coupled": _number(decay.coupled),
            "normalized": _number(decay.normalized),
        },
        "timescale_epochs": _number(steps / task.steps_per_epoch) if steps and task else None,
    }


def _recommended(result: Result, among: Sequence[Result]) -> Document:
    found = recommendations(result, among)
    return {
        "cells": [_cell_to_use(cell) for cell in found.cells],
        "why_not_forgiving": found.why_not_forgiving,
        "next": [{"why": advice.why, "command": advice.command_line} for advice in found.next],
    }


def _cell_to_use(found: Recommended) -> Document:
    around = found.around
    return {
        "role": found.role,
        "lr": found.cell.lr,
        "weight_decay": found.cell.weight_decay,
        "value": found.value,
        "around": around and {"mean": _number(around.mean), "worst": _number(around.worst)},
        "timescale_steps": _number(found.timescale_steps),
        "timescale_steps_projected": _number(found.timescale_steps_projected),
        "lines": [asdict(line) for line in found.lines],
    }


def _separability(found: Separability) -> Document:
    return {
        "verdict": str(found.verdict),
        "point_verdict": str(found.point_verdict),
        "reason": found.reason,
        "ridge_slope": _interval(found.ridge_slope) | {"rows": found.ridge_rows},
        "curvature_coupling": _interval(found.curvature_coupling),
        "transfer_regret": [
            {"octaves": regret.octaves}
            | _interval(regret.estimate)
            | {"pairs": regret.pairs, "pairs_out": regret.pairs_out, "in_sample": regret.in_sample}
            for regret in found.transfer_regret
        ],
        "interaction_share": _interval(found.interaction_share),
        "top10_tilt": {"value": _number(found.top10_tilt.value)},
        "basin": {"cells": int(np.sum(found.basin)), "tolerance": _number(found.basin_tolerance)},
        "slope_by_convention": {rule: _number(slope) for rule, slope in found.slope_by_convention.items()},
        "reverse_slope": _interval(found.reverse_slope),
        "baseline_gain": _interval(found.baseline_gain),
        "basin_on_edge": list(found.basin_on_edge),
        "noise_test": _noise_test(found.noise_test),
        "robustness": [
            {"basin": other.basin, "verdict": str(other.verdict), "ridge_slope": _interval(other.ridge_slope)}
            for other in found.robustness
        ],
    }


def _noise_test(found: NoiseTest | None) -> Document | None:
    if found is None:
        return None
    return {
        "f": found.f,
        "f_of_ranks": found.f_of_ranks,
        "freedom": list(found.freedom),
        "needed": found.needed,
        "passed": found.passed,
    }


def _cells(result: Result) -> list[Document]:
    surface = result.surface
    mean, sem = surface.mean, surface.sem
    so_far = np.where(surface.partial, surface.mean_so_far, np.nan)
    return [
        {
            "lr": float(surface.lr[i]),
            "weight_decay": float(surface.weight_decay[j]),
            "value": _number(float(mean[i, j])),
            "partial_value": _number(float(so_far[i, j])),
            "sem": _number(float(sem[i, j])),
            "status": str(surface.status(i, j)),
            "seeds": [
                {
                    "seed": seed,
                    "value": _number(float(surface.values[i, j, r])),
                    "status": str(surface.lanes[i, j, r]),
                }
                for r, seed in enumerate(surface.seeds)
            ],
        }
        for i in range(len(surface.lr))
        for j in range(len(surface.weight_decay))
    ]


def _comparison(compared: ComparedResults) -> Document:
    found = compared.comparison
    return {
        "a": compared.a.name,
        "b": compared.b.name,
        "slope_difference": _interval(found.slope_difference),
        "regret_ratio": _number(found.regret_ratio.value),
        "regret_ratio_interval": _interval(found.regret_ratio),
        "best_difference": _interval(found.best_difference),
        "verdict": found.verdict,
    }


def _gate(outcome: GateOutcome) -> Document:
    value = outcome.value
    return {
        "gate": outcome.gate,
        "study_name": outcome.study,
        "value": value if isinstance(value, str) else _number(value),
        "limit": outcome.limit,
        "passed": outcome.passed,
        "reason": outcome.reason,
    }
