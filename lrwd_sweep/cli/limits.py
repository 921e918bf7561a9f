"""The gate options of `report`, and the gates that they request."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lrwd_sweep.cli.parse import number, whole
from lrwd_sweep.errors import UnknownName, UsageError

if TYPE_CHECKING:
    from lrwd_sweep.report.gates import Gate


def _gate(
    option: str, metavar: str, text: str, parser: Callable[[str], float] | None = None
) -> typer.models.OptionInfo:
    """Declare an option whose help marks it as a gate."""
    found: typer.models.OptionInfo = typer.Option(
        option, metavar=metavar, parser=parser, help=f"Gate: {text} (default: no gate).", show_default=False
    )
    return found


MaxBest = Annotated[
    float | None,
    _gate(
        "--max-best",
        "V",
        "the best seed mean is at most V, for a metric of which lower is better",
        number("--max-best"),
    ),
]
MinBest = Annotated[
    float | None,
    _gate(
        "--min-best",
        "V",
        "the best seed mean is at least V, for a metric of which higher is better",
        number("--min-best"),
    ),
]
MaxAbsSlope = Annotated[
    float | None,
    _gate(
        "--max-abs-slope",
        "V",
        "the ridge slope's whole 90 % interval lies within ±V; fails without an interval",
        number("--max-abs-slope", 0),
    ),
]
MaxTransferRegret = Annotated[
    float | None,
    _gate(
        "--max-transfer-regret",
        "V",
        "moving α by --octaves without retuning λ costs at most V on average, in the metric's units",
        number("--max-transfer-regret", 0),
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
Required = Annotated[
    str | None,
    _gate("--require", "VERDICT", "the verdict is separable, product-coupled, coupled or undetermined"),
]
NoEdge = Annotated[
    bool,
    typer.Option("--no-edge", help="Gate: the best cell with λ > 0 is not on the edge of the lattice."),
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
    _gate(
        "--max-regression",
        "V",
        "the best seed mean is at most V worse than in --baseline, in the metric's units",
        number("--max-regression", 0),
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


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits as given on the command line; None and False set none."""

    max_best: float | None = None
    min_best: float | None = None
    max_abs_slope: float | None = None
    max_transfer_regret: float | None = None
    octaves: float | None = None
    require: str | None = None
    no_edge: bool = False
    max_failed: int | None = None
    min_seeds: int | None = None
    max_regression: float | None = None
    baseline: Path | None = None

    def gates(self) -> list[Gate]:
        """Return the gates in the order of the options. Raises UsageError or UnknownName."""
        if self.octaves is not None and self.max_transfer_regret is None:
            raise UsageError(f"--octaves {self.octaves:g} requires --max-transfer-regret V; add it")
        if self.octaves is not None and self.octaves <= 0:
            raise UsageError(f"--octaves {self.octaves:g} is not a distance; choose more than 0")
        if self.baseline is not None and self.max_regression is None:
            raise UsageError(f"--baseline {str(self.baseline)!r} requires --max-regression V; add it")
        if self.max_regression is not None and self.baseline is None:
            raise UsageError(
                f"--max-regression {self.max_regression:g} requires --baseline OLD.json; "
                "add a file written by report --format json"
            )
        return list(self._gates())

    def _gates(self) -> Iterator[Gate]:
        from lrwd_sweep.report import gates
        from lrwd_sweep.science.separability import Verdict

        if self.max_best is not None:
            yield gates.MaxBest(self.max_best)
        if self.min_best is not None:
            yield gates.MinBest(self.min_best)
        if self.max_abs_slope is not None:
            yield gates.MaxAbsSlope(self.max_abs_slope)
        if self.max_transfer_regret is not None:
            yield gates.MaxTransferRegret(
                self.max_transfer_regret, 1.0 if self.octaves is None else self.octaves
            )
        if self.require is not None:
            if self.require not in list(Verdict):
                raise UnknownName("verdict", self.require, Verdict)
            yield gates.Require(Verdict(self.require))
        if self.no_edge:
            yield gates.NoEdge()
        if self.max_failed is not None:
            yield gates.MaxFailed(self.max_failed)
        if self.min_seeds is not None:
            yield gates.MinSeeds(self.min_seeds)
        if self.baseline is not None and self.max_regression is not None:
            yield gates.MaxRegression(self.max_regression, gates.read_earlier_report(self.baseline))
