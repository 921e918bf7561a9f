"""The lattices as a figure for a paper, in the manner of Loshchilov and Hutter's Figure 2."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lrwd_sweep.errors import HostError, NothingToReport, UnknownName, UsageError, arg
from lrwd_sweep.report.result import Result
from lrwd_sweep.report.view.fields import title
from lrwd_sweep.report.view.figure_panel import Panel, colour_scale, legend_handles, write
from lrwd_sweep.report.view.tiles import seeds_of
from lrwd_sweep.science.trial import Direction

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# No file carries when and by which version it was made, so that the same results give the same bytes.
_METADATA: dict[str, dict[str, Any]] = {
    "svg": {"Date": None, "Creator": "lrwd-sweep"},
    "pdf": {"CreationDate": None, "Creator": "lrwd-sweep", "Producer": None},
    "png": {"Software": None},
}
_STYLE = {
    "font.family": ["STIXGeneral", "DejaVu Sans"],  # both come with matplotlib
    "mathtext.fontset": "stix",
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 8,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "pdf.fonttype": 42,  # TrueType, embedded: publishers refuse Type 3
    "svg.fonttype": "path",
    "svg.hashsalt": "lrwd-sweep",
    "savefig.dpi": 300,
}
_SINGLE, _DOUBLE = 3.4, 7.0  # inches: one column of a paper, and both


def save_figure(results: Sequence[Result], path: Path) -> None:
    """Draw one panel per result, all on one colour scale, into an svg, png or pdf file.

    Raises what `write_figure` does, NothingToReport without results, UsageError if their metrics differ.
    """
    figure_format(path)
    if not results:
        raise NothingToReport("there is no study to draw; name one that lrwd-sweep study list shows")
    if len({result.surface.metric for result in results}) > 1:
        raise UsageError(
            f"studies in different metrics share no colour scale; choose one with {arg('metric')}"
        )
    write_figure(path, lambda: draw(results))


def figure_format(path: Path) -> str:
    """Return the format of a file's suffix. Raises UnknownName if it cannot be written."""
    form = path.suffix.lower().removeprefix(".")
    if form not in _METADATA:
        raise UnknownName("figure format", path.suffix or path.name, [f".{name}" for name in _METADATA])
    return form


def write_figure(path: Path, draw: Callable[[], Figure]) -> None:
    """Write the figure that `draw` returns, in our style and the format of the file's suffix.

    It is drawn in memory first, so that a failure leaves no file; the same results give the same bytes.
    Raises UnknownName for another suffix, HostError without matplotlib, OSError if it cannot be written.
    """
    form = figure_format(path)
    drawn = io.BytesIO()
    with _style():
        draw().savefig(drawn, format=form, metadata=_METADATA[form])
    path.write_bytes(drawn.getvalue())


@contextmanager
def _style() -> Iterator[None]:
    """Set matplotlib to our style within the block, without pyplot."""
    try:
        from matplotlib import rc_context, style
    except ImportError:
        raise HostError("a figure needs matplotlib; run pip install 'lrwd-sweep[figures]'") from None
    with rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)  # in a user's name
        style.use(["default", _STYLE])
        yield


def draw(results: Sequence[Result]) -> Figure:
    """Draw the figure: as wide as one column for one panel, as two columns for more."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure

    columns = len(results) if len(results) <= 2 else 2 if len(results) == 4 else 3
    rows = math.ceil(len(results) / columns)
    width = _SINGLE if columns == 1 else _DOUBLE
    height = rows * (0.72 * width / columns + 0.55) + 0.3
    figure = Figure(figsize=(width, height), layout="constrained")
    surfaces = [result.surface for result in results]
    norm, ramp, extend = colour_scale(surfaces)
    every = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in every[len(results) :]:
        axes.set_axis_off()
    panels = every[: len(results)]
    for k, (axes, result) in enumerate(zip(panels, results, strict=True)):
        Panel(axes, result, width / columns).draw(norm, ramp, title(result, results))
        if k % columns == 0:
            axes.set_ylabel(r"learning rate $\alpha$")
    bar = figure.colorbar(
        ScalarMappable(norm, ramp), ax=every, extend=extend, fraction=0.05, pad=0.02, aspect=30
    )
    higher = ", higher is better" * (surfaces[0].direction is Direction.MAXIMIZE)
    label = f"{surfaces[0].metric}, {seeds_of(surfaces)}{higher}"
    write(bar.ax.yaxis.label, label, figure.get_size_inches()[1])
    handles = legend_handles(results)
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=len(handles),
        frameon=False,
        handletextpad=0.3,
        columnspacing=1.2,
    )
    return figure
