"""`lrwd-sweep report`: the picture and the numbers from the store alone, and gates on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lrwd_sweep.cli import limits, options
from lrwd_sweep.cli.parse import number, one_of, whole
from lrwd_sweep.cli.study_run import tell_what_changed
from lrwd_sweep.errors import GateFailed, NothingToReport, UsageError
from lrwd_sweep.report.view import consoles
from lrwd_sweep.report.view.consoles import note
from lrwd_sweep.report.view.files import replaced, write_file
from lrwd_sweep.report.view.formats import Format
from lrwd_sweep.science.direction import given
from lrwd_sweep.science.trial import Direction
from lrwd_sweep.spec.catalog import DIAGNOSTICS

if TYPE_CHECKING:
    from lrwd_sweep.report.gates import Gate, Outcome
    from lrwd_sweep.report.result import ComparedResults, Result


Studies = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="STUDY",
        help="Names from `study list`; several are compared with the first (default: the study or "
        "comparison that was trained or imported last).",
        show_default=False,
    ),
]
FormatName = Annotated[
    Format,
    typer.Option(
        "--format",
        metavar="NAME",
        parser=one_of("format", Format),
        help="table, markdown (fits a pull request's comment), json, csv, junit or html.",
    ),
]
Output = Annotated[
    Path | None,
    typer.Option("--output", metavar="FILE", help="Where to write it (default: standard output)."),
]
Figure = Annotated[
    Path | None,
    typer.Option(
        "--figure",
        metavar="FILE",
        help="Draw the lattices too, as .pdf, .svg or .png (default: no figure).",
    ),
]
Metric = Annotated[
    str | None,
    typer.Option(
        "--metric", metavar="NAME", help="Any metric of the store to judge by (default: the study's own)."
    ),
]
Maximize = Annotated[
    bool, typer.Option("--maximize", help="A higher value of the metric is better (default: as stored).")
]
Minimize = Annotated[
    bool, typer.Option("--minimize", help="A lower value of the metric is better (default: as stored).")
]
Cap = Annotated[
    float | None,
    typer.Option(
        "--cap",
        metavar="V",
        parser=number("--cap"),
        help="A value of the metric from which on a cell is out, as if it had diverged (default: as stored "
        "with the study's own metric; chance level for an error).",
        show_default=False,
    ),
]
Show = Annotated[
    str | None,
    typer.Option(
        "--show",
        metavar="NAME[,NAME…]",
        help=f"Draw these too: {', '.join(DIAGNOSTICS).replace('_', '-')} or any metric, as heatmaps and "
        "by epoch; curves: error and training loss by epoch; scatter: test error against training loss "
        "(default: none of them).",
    ),
]
Full = Annotated[
    bool,
    typer.Option("--full", help="Say of every study which of its parameters decay, in a table or markdown."),
]
AtRestart = Annotated[
    int | None,
    typer.Option(
        "--at-restart",
        metavar="K",
        parser=whole("--at-restart"),
        help="Under warm restarts, read what the run was at the end of its K-th cycle (default: of its "
        "newest).",
    ),
]


def report(
    studies: Studies = None,
    form: FormatName = Format.TABLE,
    output: Output = None,
    figure: Figure = None,
    metric: Metric = None,
    maximize: Maximize = False,
    minimize: Minimize = False,
    cap: Cap = None,
    show: Show = None,
    at_restart: AtRestart = None,
    full: Full = False,
    max_best: limits.MaxBest = None,
    min_best: limits.MinBest = None,
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
    if output is not None and figure is not None and output.resolve() == figure.resolve():
        raise UsageError(f"--output and --figure are both {output}; name two files")
    asked = limits.Limits(
        max_best, min_best, max_abs_slope, max_transfer_regret, octaves, require, no_edge, max_failed,
        min_seeds, max_regression, baseline,
    )  # fmt: skip
    direction = given(maximize=maximize, minimize=minimize)
    read = Read(tuple(studies or ()), metric, direction, cap, at_restart, storage)
    if full and form not in (Format.TABLE, Format.MARKDOWN):
        raise UsageError(f"--full adds nothing to {form}; choose table or markdown")
    _report(read, asked, Written(form, output, figure, _names(show, form), full))


def _names(show: str | None, form: Format) -> tuple[str, ...]:
    """The pictures asked for. Raises UsageError where the format has none, or for an empty name."""
    if show is None:
        return ()
    if form in (Format.CSV, Format.JUNIT):
        raise UsageError(f"--show {show}: {form} holds no pictures; choose table, markdown, json or html")
    names = tuple(name.strip() for name in show.split(","))
    if not all(names):
        raise UsageError(f"--show {show!r} has an empty name; write for example --show norm,rotation")
    return names


@dataclass(frozen=True, slots=True)
class Read:
    """What is read, and from where."""

    studies: tuple[str, ...]
    metric: str | None
    direction: Direction | None
    cap: float | None
    at_restart: int | None
    storage: str | None

    def results(self, *, curves: bool) -> tuple[list[Result], list[ComparedResults]]:
        """The studies as they stand. Raises NothingToReport."""
        from lrwd_sweep.report.results import read_results
        from lrwd_sweep.store import open_store

        with open_store(self.storage, write=False) as store:
            names = list(dict.fromkeys(self.studies or store.latest()))
            if not names:
                raise NothingToReport(
                    f"{store.path} holds no study yet; run lrwd-sweep compare adam adamw first"
                )
            found = read_results(
                store,
                names,
                self.metric,
                direction=self.direction,
                cap=self.cap,
                curves=curves,
                at_restart=self.at_restart,
            )
        tell_what_changed(found[0])
        return found


@dataclass(frozen=True, slots=True)
class Written:
    """What is written, and where; None is standard output, and no figure."""

    form: Format
    output: Path | None
    figure: Path | None
    show: tuple[str, ...] = ()  # pictures besides those of every report
    full: bool = False

    @property
    def needs_curves(self) -> bool:
        """Whether anything of it is drawn from learning curves."""
        return self.form is Format.HTML or bool(self.show)

    def write(
        self,
        results: Sequence[Result],
        comparisons: Sequence[ComparedResults],
        outcomes: Sequence[Outcome],
    ) -> None:
        """Files first: where one cannot be written, standard output stays empty."""
        from lrwd_sweep.report.view.report import render, text_of

        report = render(results, comparisons, self.form, outcomes, self.show, full=self.full)
        if self.figure is not None:
            from lrwd_sweep.report.view.figure import save_figure

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


def _report(read: Read, asked: limits.Limits, written: Written) -> None:
    """Read, judge, write. Raises NothingToReport, or GateFailed when the report is out."""
    gates = asked.gates()  # before anything is opened
    results, comparisons = read.results(curves=written.needs_curves)
    outcomes = [gate.check(result) for result in results for gate in gates]
    written.write(results, comparisons, outcomes)
    _name_unmatched(gates, [result.name for result in results])
    _tell(outcomes, written.form)


def _name_unmatched(gates: Sequence[Gate], names: Sequence[str]) -> None:
    """Say which studies of the baseline nothing was compared with."""
    from lrwd_sweep.report.gates import MaxRegression

    for gate in gates:
        if isinstance(gate, MaxRegression):
            for name in sorted(gate.earlier.studies.keys() - set(names)):
                note(f"study {name!r} of {gate.earlier.source} is not in this report")


def _tell(outcomes: Sequence[Outcome], form: Format) -> None:
    """On stderr, the gates where the format holds none. Raises GateFailed with those that failed."""
    from lrwd_sweep.report.view.outcomes import sentence

    if form is Format.CSV:
        for outcome in outcomes:
            if outcome.passed:
                note(sentence(outcome))
    if failed := [outcome for outcome in outcomes if not outcome.passed]:
        raise GateFailed("\n".join(map(sentence, failed)))
