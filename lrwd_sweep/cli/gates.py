"""The gate options of `report`, and the gates that they request."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lrwd_sweep.cli.parse import number, whole
from lrwd_sweep.errors import UnknownName, UsageError

if TYPE_CHECKING:
    from lrwd_sweep.report.gates import Gate

_GATES = (  # arguments of `report` that are limits, in the order in which they are judged
    *("max_best", "min_best", "max_abs_slope", "max_transfer_regret", "max_sequential_regret"),
    *("max_lr_sensitivity", "require", "no_edge", "max_failed", "min_seeds", "max_regression"),
)


def _gate(option: str, metavar: str, text: str, parser: Callable[[str], float] | None = None) -> Any:
    text = f"Gate: {text} (default: no gate)."
    return typer.Option(option, metavar=metavar, parser=parser, help=text, show_default=False)


def _limit(option: str, text: str, least: float = -math.inf) -> Any:
    return _gate(option, "V", text, number(option, least))


MaxBest = Annotated[
    float | None,
    _limit("--max-best", "the best seed mean is at most V, for a metric of which lower is better"),
]
MinBest = Annotated[
    float | None,
    _limit("--min-best", "the best seed mean is at least V, for a metric of which higher is better"),
]
MaxAbsSlope = Annotated[
    float | None,
    _limit(
        "--max-abs-slope",
        "the ridge slope's whole 90 % interval lies within ±V; fails without an interval",
        0,
    ),
]
MaxTransferRegret = Annotated[
    float | None,
    _limit(
        "--max-transfer-regret",
        "moving α by --octaves without retuning λ costs at most V on average, in the metric's units",
        0,
    ),
]
Octaves = Annotated[
    float | None,
    typer.Option(
        "--octaves",
        metavar="N",
        parser=number("--octaves"),
        help="Distance that α moves for --max-transfer-regret, in factors of two (default: 1).",
    ),
]
MaxSequentialRegret = Annotated[
    float | None,
    _limit(
        "--max-sequential-regret",
        "tuning α and λ one at a time, in either order, costs at most V on average, in the metric's units",
        0,
    ),
]
MaxLrSensitivity = Annotated[
    float | None,
    _limit(
        "--max-lr-sensitivity",
        "a wrong α at the best cell's λ costs at most V on average, in the metric's units; fails if the "
        "value before the first step is not known",
        0,
    ),
]
Required = Annotated[
    str | None,
    _gate("--require", "VERDICT", "the verdict is separable, product-coupled, coupled or undetermined"),
]
NoEdge = Annotated[
    bool, typer.Option("--no-edge", help="Gate: the best cell with λ > 0 is not on the edge of the lattice.")
]
MaxFailed = Annotated[
    int | None,
    _gate(
        "--max-failed",
        "N",
        "at most N lanes failed, for lack of memory for example; diverged lanes do not count",
        whole("--max-failed", least=0),
    ),
]
MinSeeds = Annotated[
    int | None,
    _gate("--min-seeds", "N", "every cell has at least N finished or diverged seeds", whole("--min-seeds")),
]
MaxRegression = Annotated[
    float | None,
    _limit(
        "--max-regression",
        "the best seed mean is at most V worse than in --baseline, in the metric's units",
        0,
    ),
]
Baseline = Annotated[
    Path | None,
    typer.Option(
        "--baseline",
        metavar="OLD.json",
        help="Earlier `report --format json` for --max-regression; studies match by name (default: none).",
    ),
]


def requested_gates(arguments: Mapping[str, Any]) -> list[Gate]:
    """Return the gates that `arguments` of report request, in the order of its options.

    Raises UsageError or UnknownName.
    """
    octaves, baseline, regression = (arguments[name] for name in ("octaves", "baseline", "max_regression"))
    if octaves is not None and arguments["max_transfer_regret"] is None:
        raise UsageError(f"--octaves {octaves:g} requires --max-transfer-regret V; add it")
    if octaves is not None and octaves <= 0:
        raise UsageError(f"--octaves {octaves:g} is not a distance; choose more than 0")
    if baseline is not None and regression is None:
        raise UsageError(f"--baseline {str(baseline)!r} requires --max-regression V; add it")
    if regression is not None and baseline is None:
        raise UsageError(
            f"--max-regression {regression:g} requires --baseline OLD.json; "
            "add a file written by report --format json"
        )
    limits = {name: limit for name in _GATES if (limit := arguments[name]) is not None and limit is not False}
    if not limits:
        return []  # without imports that are slow
    from lrwd_sweep.report import gates
    from lrwd_sweep.science.separability import Verdict

    if limits.get("require", Verdict.COUPLED) not in list(Verdict):
        raise UnknownName("verdict", limits["require"], Verdict)
    made: list[Callable[[Any], Gate]] = [
        gates.MaxBest,
        gates.MinBest,
        gates.MaxAbsSlope,
        partial(gates.MaxTransferRegret, octaves=octaves or 1.0),
        gates.MaxSequentialRegret,
        gates.MaxLrSensitivity,
        lambda verdict: gates.Require(Verdict(verdict)),
        lambda _: gates.NoEdge(),
        gates.MaxFailed,
        gates.MinSeeds,
        lambda limit: gates.MaxRegression(limit, gates.read_earlier_report(Path(baseline or ""))),
    ]
    return [gate(limits[name]) for name, gate in zip(_GATES, made, strict=True) if name in limits]
