"""`lrwd-sweep report`: heatmaps and numbers of stored studies, and gates on them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lrwd_sweep.cli import limits, options
from lrwd_sweep.cli.parse import margin as parsed_margin
from lrwd_sweep.cli.parse import number, one_of, whole
from lrwd_sweep.cli.study_run import tell_what_changed
from lrwd_sweep.cli.watch import watch as watch_studies
from lrwd_sweep.errors import GateFailed, HostError, NothingToReport, UsageError
from lrwd_sweep.report.view import FORMATS, Format, consoles, render, text_of
from lrwd_sweep.report.view.consoles import note, replaced, write_file
from lrwd_sweep.report.view.notation import AxisStyle, labelled_axes
from lrwd_sweep.science.trial import requested_direction
from lrwd_sweep.spec.catalog import DIAGNOSTICS

if TYPE_CHECKING:
    from rich.console import RenderableType

    from lrwd_sweep.report.gates import Gate, GateOutcome
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
        help=FORMATS,
    ),
]
Output = Annotated[
    Path | None,
    typer.Option("--output", metavar="FILE", help="File to write (default: standard output)."),
]
Figure = Annotated[
    Path | None,
    typer.Option(
        "--figure",
        metavar="FILE",
        help="Also draw the lattices, as .pdf, .svg or .png (default: no figure).",
    ),
]
Metric = Annotated[
    str | None,
    typer.Option(
        "--metric", metavar="NAME", help="Metric of the store to rank by (default: the study's own)."
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
        help="Value of the metric from which on a cell counts as diverged (default: as stored for the "
        "study's own metric; chance level for an error).",
        show_default=False,
    ),
]
Show = Annotated[
    str | None,
    typer.Option(
        "--show",
        metavar="NAME[,NAME…]",
        help=f"Also draw {', '.join(DIAGNOSTICS).replace('_', '-')} or any metric, as heatmaps and by epoch; "
        "curves: error and training loss by epoch; scatter: test error against training loss "
        "(default: none of them).",
    ),
]
Full = Annotated[
    bool,
    typer.Option(
        "--full",
        help="Print every number and the values to use before the answer, and which parameters of every "
        "study decay (table, markdown).",
    ),
]
Margin = Annotated[
    float | None,
    typer.Option(
        "--margin",
        metavar="M",
        parser=parsed_margin,
        help="A ridge slope whose interval lies within ±M is separable, within −1±M product-coupled "
        "(default: 0.25).",
        show_default=False,
    ),
]
Open = Annotated[bool, typer.Option("--open", help="Open the report in the browser; implies --format html.")]
Watch = Annotated[
    bool,
    typer.Option(
        "--watch", help="Draw lattices that another process trains until they are complete, then report."
    ),
]
AxisName = Annotated[
    AxisStyle,
    typer.Option(
        "--axis",
        metavar="NAME",
        parser=one_of("axis", AxisStyle),
        help="Label the axes by powers of two where they are that, by decimal numbers, or decay by tau: its "
        "averaging time 1/λ as a share of the run.",
    ),
]
AtRestart = Annotated[
    int | None,
    typer.Option(
        "--at-restart",
        metavar="K",
        parser=whole("--at-restart"),
        help="Under warm restarts, report the end of the K-th cycle (default: of the last).",
    ),
]

_WITH_AXES = (Format.TABLE, Format.MARKDOWN, Format.HTML)


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
    axis: AxisName = AxisStyle.POWERS,
    margin: Margin = None,
    open_: Open = False,
    watch: Watch = False,
    max_best: limits.MaxBest = None,
    min_best: limits.MinBest = None,
    max_abs_slope: limits.MaxAbsSlope = None,
    max_transfer_regret: limits.MaxTransferRegret = None,
    octaves: limits.Octaves = None,
    max_sequential_regret: limits.MaxSequentialRegret = None,
    max_lr_sensitivity: limits.MaxLrSensitivity = None,
    require: limits.Required = None,
    no_edge: limits.NoEdge = False,
    max_failed: limits.MaxFailed = None,
    min_seeds: limits.MinSeeds = None,
    max_regression: limits.MaxRegression = None,
    baseline: limits.Baseline = None,
    storage: options.Storage = None,
) -> None:
    """Show studies of the store without training; the store may be read-only.

    Every gate applies to every study shown; an undetermined value fails. The report lists every outcome, and
    the exit code is 1 if one failed.
    """
    gates = limits.requested_gates(
        max_best, min_best, max_abs_slope, max_transfer_regret, octaves, max_sequential_regret,
        max_lr_sensitivity, require, no_edge, max_failed, min_seeds, max_regression, baseline,
    )  # fmt: skip
    direction = requested_direction(maximize=maximize, minimize=minimize)
    form = _checked(form, output, figure, axis, full=full, opens=open_)
    pictures = _names(show, form)
    if watch:
        with labelled_axes(axis):
            studies = watch_studies(studies, storage)
    results, comparisons = _read(
        studies, storage, metric=metric, direction=direction, cap=cap, margin=margin, at_restart=at_restart,
        curves=form is Format.HTML or bool(pictures),
    )  # fmt: skip
    outcomes = [gate.check(result) for result in results for gate in gates]
    if axis is AxisStyle.TAU and not any(result.surface.tau_of_one for result in results):
        raise UsageError(
            f"--axis {axis}: τ of a column differs by row, or its steps are unknown; choose decimal, or a "
            "study of independent decay"
        )
    with labelled_axes(axis):
        text = render(results, comparisons, form, outcomes, pictures, full=full)
        _write(text, output, figure, results, opens=open_)
    _name_unmatched(gates, [result.name for result in results])
    _fail(outcomes, form, results)


def _checked(
    form: Format, output: Path | None, figure: Path | None, axis: AxisStyle, *, full: bool, opens: bool
) -> Format:
    """Return the format, html for the browser. Raises UsageError if options do not go together."""
    if output is not None and figure is not None and output.resolve() == figure.resolve():
        raise UsageError(f"--output and --figure are both {output}; name two files")
    if opens and form not in (Format.TABLE, Format.HTML):
        raise UsageError(f"--open shows html, not {form}; leave out --format {form}")
    form = Format.HTML if opens else form
    if full and form not in (Format.TABLE, Format.MARKDOWN):
        raise UsageError(f"--full adds nothing to {form}; choose table or markdown")
    if axis is not AxisStyle.POWERS and figure is None and form not in _WITH_AXES:
        raise UsageError(f"--axis {axis}: {form} has no axis labels; choose table, markdown or html")
    return form


def _read(
    studies: Sequence[str] | None, storage: str | None, **options: Any
) -> tuple[list[Result], list[ComparedResults]]:
    """Read and compare the named studies, or the latest. Raises NothingToReport for an empty store."""
    from lrwd_sweep.store import open_store

    with open_store(storage, write=False) as store:
        names = list(dict.fromkeys(studies or store.latest()))
        if not names:
            raise NothingToReport(f"{store.path} holds no study yet; run lrwd-sweep compare adam adamw first")
        for name in names:
            store.get_study(name)  # refuses an unknown name before anything slow is imported
        from lrwd_sweep.report.result import read_results

        if options["margin"] is None:
            del options["margin"]  # its default is not known here without slow imports
        found = read_results(store, names, **options)
    tell_what_changed(found[0])
    return found


def _names(show: str | None, form: Format) -> tuple[str, ...]:
    """Split the names of pictures. Raises UsageError if the format has none, or for an empty name."""
    if show is None:
        return ()
    if form in (Format.CSV, Format.JUNIT, Format.GITHUB):
        raise UsageError(f"--show {show}: {form} holds no pictures; choose table, markdown, json or html")
    names = tuple(name.strip() for name in show.split(","))
    if not all(names):
        raise UsageError(f"--show {show!r} has an empty name; write for example --show norm,rotation")
    return names


def _write(
    text: RenderableType | str,
    output: Path | None,
    figure: Path | None,
    results: Sequence[Result],
    *,
    opens: bool,
) -> None:
    """Write figure and report, files first, so that an error leaves standard output empty; `opens` shows it.

    Raises HostError without a browser.
    """
    if figure is not None:
        from lrwd_sweep.report.view.paper_figure import save_figure

        with replaced(figure, "--figure") as temporary:
            save_figure(results, temporary)
        note(f"wrote {figure}")
    if opens:
        page = output or _temporary_page()
        write_file(page, text_of(text))
        _open_in_browser(page)
    elif output is not None:
        write_file(output, text_of(text))
        note(f"wrote {output}")
    elif isinstance(text, str):
        consoles.write(text)
    else:
        consoles.stdout().print(text)


def _temporary_page() -> Path:
    """Make an empty file for the browser, which may read it after this process has ended."""
    with NamedTemporaryFile(prefix="lrwd-sweep-", suffix=".html", delete=False) as file:
        return Path(file.name)


def _open_in_browser(page: Path) -> None:
    """Show a page in the browser. Raises HostError without one; the page stays."""
    import webbrowser

    if not webbrowser.open(page.resolve().as_uri()):
        raise HostError(f"--open: there is no browser here; open {page} in one")
    note(f"opened {page}")


def _name_unmatched(gates: Sequence[Gate], names: Sequence[str]) -> None:
    """Name the studies of a baseline that are not in the report."""
    from lrwd_sweep.report.gates import MaxRegression

    for gate in gates:
        if isinstance(gate, MaxRegression):
            for name in sorted(gate.earlier.studies.keys() - set(names)):
                note(f"study {name!r} of {gate.earlier.source} is not in this report")


def _fail(outcomes: Sequence[GateOutcome], form: Format, results: Sequence[Result]) -> None:
    """Raise GateFailed with the gates that failed; name all gates if the format holds none."""
    from lrwd_sweep.report.view.ci import gate_headline, gate_sentence

    if form is Format.CSV and outcomes:
        note(gate_headline(outcomes, results))
        for outcome in outcomes:
            if outcome.passed:
                note(gate_sentence(outcome))
    if failed := [outcome for outcome in outcomes if not outcome.passed]:
        raise GateFailed("\n".join(map(gate_sentence, failed)))
