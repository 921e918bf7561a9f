"""The report as JSON: one strict, deterministic document of `schema_version` 2.

`report.schema.json` beside this file describes it. Within one version keys are only added. Version 2 has all
keys of version 1 with their meaning.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from lrwd_sweep.report.answer import answer
from lrwd_sweep.report.gates import GateOutcome
from lrwd_sweep.report.recommend import Recommended, next_step, recommendations
from lrwd_sweep.report.result import ComparedResults, Result
from lrwd_sweep.report.view.ci import gate_headline
from lrwd_sweep.report.view.pictures import Quantity
from lrwd_sweep.report.view.tables import title
from lrwd_sweep.science.refinement import Refinement
from lrwd_sweep.science.separability import Estimate, Separability
from lrwd_sweep.spec.study import StudySpec

SCHEMA_VERSION = 2

Document = dict[str, Any]


def document(
    results: Sequence[Result],
    comparisons: Sequence[ComparedResults] = (),
    outcomes: Sequence[GateOutcome] = (),
    shown: Sequence[Quantity] = (),
) -> Document:
    """Collect everything as plain values; a missing or infinite number is null, with a status or a reason.

    "gates", their summary and every study's "shown" are present only if there are any.
    """
    failed = sum(not outcome.passed for outcome in outcomes)
    summary = {"failed": failed, "all": len(outcomes), "text": gate_headline(outcomes, results)}
    step = next_step(results, [title(result, results) for result in results])
    content: Document = {
        "schema_version": SCHEMA_VERSION,
        **({"gate_summary": summary} if outcomes else {}),
        "answer": [
            {"topic": line.topic, "label": line.label, "parts": line.parts, "code": line.code_line or None}
            for line in answer(results, comparisons)
        ],
        "next": {"why": step.why, "command": step.command_line, "runs": step.runs},
        "studies": [_study(result, results, shown) for result in results],
        "comparisons": [_comparison(compared) for compared in comparisons],
    }
    if outcomes:
        content["gates"] = [_gate(outcome) for outcome in outcomes]
    return _strict(content)  # type: ignore[no-any-return]


def dumps(content: Document) -> str:
    """Write `content` in ASCII. Raises ValueError for NaN and infinity, which JSON does not have."""
    return json.dumps(content, indent=2, allow_nan=False) + "\n"


def _strict(value: Any) -> Any:
    """Replace arrays and numpy's numbers by Python's, floats that are not finite by None, and estimates."""
    match value:
        case Estimate():
            return _strict(_interval(value))
        case dict():
            return {key: _strict(each) for key, each in value.items()}
        case list() | tuple():
            return [_strict(each) for each in value]
        case np.ndarray() | np.generic():
            return _strict(value.tolist())
        case float():
            return float(value) if math.isfinite(value) else None
    return value


def _named(found: object, *names: str) -> Document:
    """Collect the attributes of these names."""
    return {name: getattr(found, name) for name in names}


def _interval(estimate: Estimate) -> Document:
    return _named(estimate, "value", "low", "high", "reason")


def _study(result: Result, among: Sequence[Result], shown: Sequence[Quantity]) -> Document:
    spec, task, surface = result.spec, result.spec.task, result.surface
    counts, advised = surface.counts(), recommendations(result, among)
    found: Document = {
        "study_name": result.name,
        "optimizer": str(spec.optimizer),
        "family": spec.optimizer.family and str(spec.optimizer.family),
        "decay_rule": str(spec.optimizer.rule),
        "formula": spec.formula,
        "metric": surface.metric,
        "direction": str(surface.direction),
        "cap": None if surface.cap is None else float(surface.cap),
        "schedule": task and str(task.schedule),
        "net": task and task.net,
        "data": task and task.data,
        "epochs": task and task.epochs,
        "tensors": (task and task.tensors) or None,
        "seeds": surface.seeds,
        "axes": {"lr": surface.lr, "weight_decay": surface.weight_decay},
        "counts": {name: counts[name] for name in ("cells", "complete", "diverged", "failed", "missing")},
        "runs": dict(zip(("done", "all"), surface.runs, strict=True)),
        "best": _best(result),
        "separability": _separability(result.separability) | _on_axes(result),
        "recommended": {
            "cells": [_cell_to_use(cell) for cell in advised.cells],
            "why_not_forgiving": advised.why_not_forgiving,
            "next": [{"why": advice.why, "command": advice.command_line} for advice in advised.next],
        },
        "cells": _cells(result),
    }
    if result.refinement is not None:
        found["refined"] = _refined(result.refinement, spec)
    if spec.command is not None:
        found["command"] = spec.command.text
    if result.snapshot:
        found["snapshot"] = asdict(result.snapshot)
    if shown:
        found["shown"] = [_shown(result, quantity) for quantity in shown]
    return found


def _refined(found: Refinement, spec: StudySpec) -> Document:
    """Count the runs of a refined lattice, and list its cells that were never trained with the reason."""
    return {
        "runs": int(found.asked.sum() - found.todo.sum()),
        "of": found.asked.size,
        "max_runs": spec.refine and spec.refine.max_runs,
        "todo": int(found.todo.sum()),
        "beyond_max_runs": found.unfit,
        "settled": found.settled,
        "seeds": found.seeds,
        "never_trained": [
            {"lr": spec.lattice.lr[i], "weight_decay": spec.lattice.weight_decay[j], "why": str(why)}
            for (i, j), why in found.left.items()
        ],
    }


def _shown(result: Result, quantity: Quantity) -> Document:
    """List the seed means of a quantity, cell by cell; no cells but a reason if the study has none."""
    surface, cells = quantity.surface(result), []
    if surface is not None:
        mean, sem, lr, weight_decay = surface.mean, surface.sem, surface.lr, surface.weight_decay
        cells = [
            {"lr": lr[i], "weight_decay": weight_decay[j], "value": mean[i, j], "sem": sem[i, j]}
            for i, j in np.ndindex(mean.shape)
        ]
    return {
        "name": quantity.name,
        "meaning": quantity.label,
        "reason": quantity.absence(result) if surface is None else "",
        "cells": cells,
    }


def _best(result: Result) -> Document | None:
    if not result.ranked(1):
        return None
    (best,), task = result.ranked(1), result.spec.task
    decay = result.conventions(best.cell)
    steps = decay.timescale_steps
    return {
        **_named(best.cell, "lr", "weight_decay"),
        **_named(best, "value", "sem"),
        "on_edge": result.separability.on_edge,
        "test_value": best.test_value,
        "conventions": {
            "independent": decay.independent,
            "lr-scaled": decay.lr_scaled,
            "coupled": decay.coupled,
            "normalized": decay.normalized,
        },
        "timescale_epochs": steps / task.steps_per_epoch if steps and task else None,
    }


def _cell_to_use(found: Recommended) -> Document:
    return {
        "role": found.role,
        **_named(found.cell, "lr", "weight_decay"),
        "value": found.value,
        "around": found.around and _named(found.around, "mean", "worst"),
        **_named(found, "timescale_steps", "timescale_steps_projected"),
        "lines": [asdict(line) for line in found.lines],
    }


def _separability(found: Separability) -> Document:
    test = found.noise_test
    return {
        **_named(found, "verdict", "point_verdict", "reason"),
        "ridge_slope": _interval(found.ridge_slope) | {"rows": found.ridge_rows},
        "curvature_coupling": found.curvature_coupling,
        "transfer_regret": [
            {"octaves": regret.octaves}
            | _interval(regret.estimate)
            | _named(regret, "pairs", "pairs_out", "in_sample")
            for regret in found.transfer_regret
        ],
        "interaction_share": found.interaction_share,
        "top10_tilt": _named(found.top10_tilt, "value"),
        "basin": {"cells": np.sum(found.basin), "tolerance": found.basin_tolerance},
        "slope_by_convention": dict(found.slope_by_convention),
        **_named(found, "reverse_slope", "baseline_gain", "basin_on_edge"),
        "noise_test": test and _named(test, "f", "f_of_ranks", "freedom", "needed", "passed"),
        "robustness": [_named(other, "basin", "verdict", "ridge_slope") for other in found.robustness],
        **_named(found, "margin", "margin_octaves", "allowed", "excluded", "product_not_excluded"),
        **_named(found, "seeds_to_settle", "too_near_margin", "windowed", "rows_on_edge", "three_cell_slope"),
        **_named(found, "slope_from_rows", "verdict_from_rows", "bow", "contour_slope"),
        "sequential_regret": [
            _interval(regret.estimate) | _named(regret, "first", "start", "starts_out", "in_sample")
            for regret in found.sequential_regret
        ],
        "lr_sensitivity": found.lr_sensitivity
        and _named(found.lr_sensitivity, "tuned", "fixed", "difference"),
    }


def _on_axes(result: Result) -> Document:
    """Collect what the analysis found by index, as values on the axes, and what depends on the task."""
    found, surface = result.separability, result.surface
    lr, decay, contrast, tau = surface.lr, surface.weight_decay, found.contrast, result.timescale

    return {
        "ridge": [{"lr": lr[i], "weight_decay": 2.0**minimum} for i, minimum in found.ridge],
        "best_by_row": [{"lr": lr[i], "weight_decay": decay[j]} for i, j in found.best_by_row],
        "contrast": contrast
        and {
            **_interval(contrast.estimate),
            "lr": lr[[*contrast.rows]],
            "weight_decay": decay[[*contrast.columns]],
            "octaves": dict(zip(("lr", "weight_decay"), contrast.octaves, strict=True)),
        },
        "expected_best": result.expected_best,
        "timescale": tau and _named(tau, "lr", "steps", "epochs", "share"),
    }


def _cells(result: Result) -> list[Document]:
    surface = result.surface
    mean, sem, so_far = surface.mean, surface.sem, surface.mean_so_far
    return [
        {
            "lr": surface.lr[i],
            "weight_decay": surface.weight_decay[j],
            "value": mean[i, j],
            "partial_value": so_far[i, j] if surface.partial[i, j] else None,
            "sem": sem[i, j],
            "status": surface.status(i, j),
            "seeds": [
                {"seed": seed, "value": value, "status": status}
                for seed, value, status in zip(
                    surface.seeds, surface.values[i, j], surface.lanes[i, j], strict=True
                )
            ],
        }
        for i, j in np.ndindex(mean.shape)
    ]


def _comparison(compared: ComparedResults) -> Document:
    found = compared.comparison
    return {
        "a": compared.a.name,
        "b": compared.b.name,
        **_named(found, "slope_difference", "distance_difference"),
        "regret_ratio": found.regret_ratio.value,
        "regret_ratio_interval": found.regret_ratio,
        **_named(found, "best_difference", "verdict"),
    }


def _gate(outcome: GateOutcome) -> Document:
    value = float(outcome.value) if isinstance(outcome.value, int) else outcome.value
    rest = _named(outcome, "limit", "passed", "reason")
    return {"gate": outcome.gate, "study_name": outcome.study, "value": value} | rest
