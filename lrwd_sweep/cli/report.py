"""`lrwd-sweep report`: the picture and the numbers from the store alone, and gates on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lrwd_sweep.cli import limits, options
from lrwd_sweep.cli.parse import one_of
from lrwd_sweep.cli.study_run import note, read_results
from lrwd_sweep.errors import GateFailed, NothingToReport
from lrwd_sweep.view import consoles
from lrwd_sweep.view.files import replaced, write_file
from lrwd_sweep.view.formats import Format

if TYPE_CHECKING:
    from lrwd_sweep.gates import Gate, Outcome
    from lrwd_sweep.result import ComparedResults, Result


def report(
    studies: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="STUDY",
            help="Names from `study list`; several are compared with the first (default: the study or "
            "comparison that was trained or imported last).",
            show_default=False,
        ),
    ] = None,
    form: Annotated[
        Format,
        typer.Option(
            "--format",
            metavar="NAME",
            parser=one_of("format", Format),
            help="table, markdown (fits a pull request's comment), json, csv, junit or html.",
        ),
    ] = Format.TABLE,
    output: Annotated[
        Path | None,
        typer.Option("--output", metavar="FILE", help="Where to write it (default: standard output)."),
    ] = None,
    figure: Annotated[
        Path | None,
        typer.Option(
            "--figure",
            metavar="FILE",
            help="Draw the lattices too, as .pdf, .svg or .png (default: no figure).",
        ),
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(
            "--metric", metavar="NAME", help="Any metric of the store to judge by (default: the study's own)."
        ),
    ] = None,
    max_best: limits.MaxBest = None,
    max_abs_slope: limits.MaxAbsSlope = None,
    max_transfer_regret: limits.MaxTransferRegret = None,
    octaves: limits.Octaves = None,
    require: limits.Required = None,
    no_edge: limits.NoEdge = False,
    max_failed: limits.MaxFailed = None,
    min_seeds: limits.MinSeeds = None,
    max_regression: limits.MaxRegression = None,
    baseline: limits.Baseline = None,
    storage: options.Storage = None,
) -> None:
    """Show studies from the store, without training anything; the store may be read-only.

    Every gate applies to every study shown. The report says what each found; when a study fails one, the
    exit code is 1. What is undetermined fails.
    """
    asked = limits.Limits(
        max_best, max_abs_slope, max_transfer_regret, octaves, require, no_edge, max_failed, min_seeds,
        max_regression, baseline,
    )  # fmt: skip
    _report(studies or [], metric, storage, asked, Written(form, output, figure))


@dataclass(frozen=True, slots=True)
class Written:
    """What is written, and where; None is standard output, and no figure."""

    form: Format
    output: Path | None
    figure: Path | None

    def write(
        self,
        results: Sequence[Result],
        comparisons: Sequence[ComparedResults],
        outcomes: Sequence[Outcome],
    ) -> None:
        """Files first: where one cannot be written, standard output stays empty."""
        from lrwd_sweep.view.report import render, text_of

        report = render(results, comparisons, self.form, outcomes)
        if self.figure is not None:
            from lrwd_sweep.view.figure import save_figure

            with replaced(self.figure, "--figure") as temporary:
                save_figure(results, temporary)
            note(f"wrote {self.figure}")
        if self.output is not None:
            write_file(self.output, text_of(report))
            note(f"wrote {self.output}")
        elif isinstance(report, str):
            consoles.write(report)
        else:
            consoles.stdout().print(report)


def _report(
    studies: Sequence[str], metric: str | None, storage: str | None, asked: limits.Limits, written: Written
) -> None:
    """Read, judge, write. Raises NothingToReport, or GateFailed when the report is out."""
    from lrwd_sweep.store import open_store

    gates = asked.gates()  # before anything is opened
    with open_store(storage, write=False) as store:
        names = list(dict.fromkeys(studies or store.latest()))
        if not names:
            raise NothingToReport(f"{store.path} holds no study yet; run lrwd-sweep compare adam adamw first")
        curves = written.form is Format.HTML
        results, comparisons = read_results(store, names, metric, curves=curves)
    outcomes = [gate.check(result) for result in results for gate in gates]
    written.write(results, comparisons, outcomes)
    _name_unmatched(gates, names)
    _tell(outcomes, written.form)


def _name_unmatched(gates: Sequence[Gate], names: Sequence[str]) -> None:
    """Say which studies of the baseline nothing was compared with."""
    from lrwd_sweep.gates import MaxRegression

    for gate in gates:
        if isinstance(gate, MaxRegression):
            for name in sorted(gate.earlier.studies.keys() - set(names)):
                note(f"study {name!r} of {gate.earlier.source} is not in this report")


def _tell(outcomes: Sequence[Outcome], form: Format) -> None:
    """On stderr, the gates where the format holds none. Raises GateFailed with those that failed."""
    from lrwd_sweep.view.outcomes import sentence

    if form is Format.CSV:
        for outcome in outcomes:
            if outcome.passed:
                note(sentence(outcome))
    if failed := [outcome for outcome in outcomes if not outcome.passed]:
        raise GateFailed("\n".join(map(sentence, failed)))
