"""`lrwd-sweep report`: heatmaps and numbers of stored studies, gates on them, and watching them grow."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lrwd_sweep.cli import gates, options
from lrwd_sweep.cli.parse import margin as parsed_margin
from lrwd_sweep.cli.parse import number, one_of, whole
from lrwd_sweep.cli.study_run import tell_what_changed
from lrwd_sweep.errors import GateFailed, HostError, NothingToReport, UsageError, arg
from lrwd_sweep.report.view import FORMATS, Format, consoles, render, text_of
from lrwd_sweep.report.view.consoles import note, replaced, write_file
from lrwd_sweep.report.view.notation import AxisStyle, labelled_axes
from lrwd_sweep.runner.signals import on_suspension
from lrwd_sweep.science.trial import requested_direction
from lrwd_sweep.spec.catalog import DIAGNOSTICS

if TYPE_CHECKING:
    from rich.console import RenderableType

    from lrwd_sweep.report.gates import Gate, GateOutcome
    from lrwd_sweep.report.result import ComparedResults, Result
    from lrwd_sweep.science.trial import Trial
    from lrwd_sweep.spec.study import StudySpec

SECONDS_BETWEEN_LOOKS = 1.0  # of --watch
LOOKS_IDLE = 10  # without a process that trains, after which a line says so: one begins after the other
_Found = dict[str, tuple["StudySpec", list["Trial"]]]  # by study
_WITH_AXES = (Format.TABLE, Format.MARKDOWN, Format.HTML)

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
    Format, typer.Option("--format", metavar="NAME", parser=one_of("format", Format), help=FORMATS)
]
Output = Annotated[
    Path | None, typer.Option("--output", metavar="FILE", help="File to write (default: standard output).")
]
Figure = Annotated[
    Path | None,
    typer.Option(
        "--figure", metavar="FILE", help="Also draw the lattices, as .pdf, .svg or .png (default: no figure)."
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
    max_best: gates.MaxBest = None,
    min_best: gates.MinBest = None,
    max_abs_slope: gates.MaxAbsSlope = None,
    max_transfer_regret: gates.MaxTransferRegret = None,
    octaves: gates.Octaves = None,
    max_sequential_regret: gates.MaxSequentialRegret = None,
    max_lr_sensitivity: gates.MaxLrSensitivity = None,
    require: gates.Required = None,
    no_edge: gates.NoEdge = False,
    max_failed: gates.MaxFailed = None,
    min_seeds: gates.MinSeeds = None,
    max_regression: gates.MaxRegression = None,
    baseline: gates.Baseline = None,
    storage: options.Storage = None,
) -> None:
    """Show studies of the store without training; the store may be read-only.

    Every gate applies to every study shown; an undetermined value fails. The report lists every outcome, and
    the exit code is 1 if one failed.
    """
    asked = gates.requested_gates(locals())
    direction = requested_direction(maximize=maximize, minimize=minimize)
    form = _checked(form, output, figure, axis, full=full, opens=open_)
    pictures = _names(show, form)
    with labelled_axes(axis):
        if watch:
            studies = _watch(studies, storage)
        results, comparisons = _read(
            studies, storage, metric=metric, direction=direction, cap=cap, margin=margin,
            at_restart=at_restart, curves=form is Format.HTML or bool(pictures),
        )  # fmt: skip
        outcomes = [gate.check(result) for result in results for gate in asked]
        if axis is AxisStyle.TAU and not any(result.surface.tau_of_one for result in results):
            raise UsageError(
                f"--axis {axis}: τ of a column differs by row, or its steps are unknown; choose decimal, or "
                "a study of independent decay"
            )
        text = render(results, comparisons, form, outcomes, pictures, full=full)
        deliver(text, output, figure, partial(_draw, results), opens=open_)
    _fail(outcomes, asked, form, results)


def _checked(
    form: Format, output: Path | None, figure: Path | None, axis: AxisStyle, *, full: bool, opens: bool
) -> Format:
    """Return the format, html for the browser. Raises UsageError if options do not go together."""
    refuse_one_file(output, figure)
    if opens and form not in (Format.TABLE, Format.HTML):
        raise UsageError(f"--open shows html, not {form}; leave out --format {form}")
    form = Format.HTML if opens else form
    if full and form not in (Format.TABLE, Format.MARKDOWN):
        raise UsageError(f"--full adds nothing to {form}; choose table or markdown")
    if axis is not AxisStyle.POWERS and figure is None and form not in _WITH_AXES:
        raise UsageError(f"--axis {axis}: {form} has no axis labels; choose table, markdown or html")
    return form


def refuse_one_file(output: Path | None, figure: Path | None) -> None:
    """Raise UsageError if report and figure are the same file."""
    if output is not None and figure is not None and output.resolve() == figure.resolve():
        raise UsageError(f"--output and --figure are both {output}; name two files")


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


def deliver(
    text: RenderableType | str,
    output: Path | None,
    figure: Path | None,
    save: Callable[[Path], None],
    *,
    opens: bool = False,
) -> None:
    """Write figure and report, files first, so that an error leaves standard output empty; `opens` shows it.

    `save` draws the figure. Raises HostError without a browser.
    """
    if figure is not None:
        with replaced(figure, "--figure") as temporary:
            save(temporary)
        note(f"wrote {figure}")
    if opens:
        _open(text_of(text), output)
    elif output is not None:
        write_file(output, text_of(text))
        note(f"wrote {output}")
    elif isinstance(text, str):
        consoles.write(text)
    else:
        consoles.stdout().print(text)


def _draw(results: Sequence[Result], path: Path) -> None:
    from lrwd_sweep.report.view.paper_figure import save_figure

    save_figure(results, path)


def _open(page: str, output: Path | None) -> None:
    """Show a page in the browser, which may read it after this process. Raises HostError without one."""
    import webbrowser

    if output is None:
        with NamedTemporaryFile(prefix="lrwd-sweep-", suffix=".html", delete=False) as file:
            output = Path(file.name)
    write_file(output, page)
    if not webbrowser.open(output.resolve().as_uri()):
        raise HostError(f"--open: there is no browser here; open {output} in one")
    note(f"opened {output}")


def _fail(
    outcomes: Sequence[GateOutcome], asked: Sequence[Gate], form: Format, results: Sequence[Result]
) -> None:
    """Raise GateFailed with the gates that failed; name what the report does not hold.

    That are studies of a baseline that are not in the report, and all gates if the format holds none.
    """
    from lrwd_sweep.report.gates import MaxRegression
    from lrwd_sweep.report.view.ci import gate_headline, gate_sentence

    for gate in asked:
        if isinstance(gate, MaxRegression):
            for name in sorted(gate.earlier.studies.keys() - {result.name for result in results}):
                note(f"study {name!r} of {gate.earlier.source} is not in this report")
    if form is Format.CSV and outcomes:
        note(gate_headline(outcomes, results))
        for outcome in outcomes:
            if outcome.passed:
                note(gate_sentence(outcome))
    if failed := [outcome for outcome in outcomes if not outcome.passed]:
        raise GateFailed("\n".join(map(gate_sentence, failed)))


def _watch(names: Sequence[str] | None, storage: str | None) -> list[str]:
    """Draw the lattices of the studies, or the latest, until they are complete; return their names.

    The store is only read. Raises UsageError if there is nothing to watch, UnknownName for an absent study.
    """
    from lrwd_sweep.report.view.live import Progress

    path, found, _ = _look(names, storage)
    _refuse_unwatchable(found)
    specs = {name: spec for name, (spec, _) in found.items()}
    known = {name: trials for name, (_, trials) in found.items()}
    with (
        consoles.shared() as console,
        Progress(console, specs, known, watches=True) as progress,
        on_suspension(progress.pause, progress.resume),
    ):
        seen, idle = _state(path), 0
        while not all(progress.of(name).whole for name in found):
            time.sleep(SECONDS_BETWEEN_LOOKS)
            idle += 1
            if (now := _state(path)) == seen and idle != LOOKS_IDLE:
                continue
            _, current, is_trained = _look(list(found), storage)
            for name, (spec, trials) in current.items() if now != seen else ():
                progress.of(name).stored(spec, trials)
            seen = now
            if is_trained:
                idle = 0
            elif idle == LOOKS_IDLE:
                consoles.note("no process trains this now; Ctrl-C ends watching")
    return list(found)


def _look(names: Sequence[str] | None, storage: str | None) -> tuple[Path, _Found, bool]:
    """Read the studies, and return True last if a process trains one of them.

    Raises UsageError for an empty store, UnknownName for an absent study.
    """
    from lrwd_sweep.store import open_store

    try:
        with open_store(storage, write=False) as store:
            chosen = dict.fromkeys(names or store.latest())
            if not chosen:
                raise UsageError(f"{arg('watch', True)}: {store.path} holds no study yet; begin one first")
            is_trained = any(store.driver(name) is not None for name in chosen)
            found = {name: (store.get_study(name).spec, store.trials(name)) for name in chosen}
            return store.path, found, is_trained
    except NothingToReport as error:
        raise UsageError(f"{arg('watch', True)}: {error.text}") from None


def _refuse_unwatchable(found: _Found) -> None:
    """Raise UsageError for a search, and if every lane of every lattice is stored."""
    from lrwd_sweep.spec.study import Kind

    for name, (spec, _) in found.items():
        if spec.kind is Kind.TPE:
            raise UsageError(
                f"{arg('watch', True)}: study {name!r} is a search, and its number of points is not stored; "
                f"leave {arg('watch', True)} out"
            )
    left = {
        name: {(cell, seed) for cell in spec.lattice.cells() for seed in spec.seeds}
        - {(trial.cell, trial.seed) for trial in trials}
        for name, (spec, trials) in found.items()
        if spec.kind is Kind.GRID
    }
    if not any(left.values()):
        names = f"{', '.join(map(repr, found))} {'is' if len(found) == 1 else 'are'}"
        raise UsageError(f"{arg('watch', True)}: {names} finished; leave {arg('watch', True)} out")


def _state(path: Path) -> tuple[int, int]:
    """Return what changes when the store is written."""
    found = path.stat()
    return found.st_mtime_ns, found.st_size
