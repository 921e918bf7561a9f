"""`lrwd-sweep verify`: this code compared with the papers and with other libraries."""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from lrwd_sweep.cli import options
from lrwd_sweep.cli.options import Format, OldJson, TextFormat
from lrwd_sweep.errors import GateFailed
from lrwd_sweep.lab.verify import Check, Relation, Section
from lrwd_sweep.report.view import consoles
from lrwd_sweep.report.view.notation import plain, to_ascii

_STYLES = {Relation.AGREE: "green", Relation.DIFFER: "yellow"}
_MORE_ASCII = str.maketrans({"⊙": "*", "‖": "|", "Σ": "Sigma", "≈": "~"})


def verify(
    device: options.Device = "auto",
    form: Format = TextFormat.TEXT,
    as_json: OldJson = False,
) -> None:
    """Check the papers' propositions in numbers, and compare each update with other implementations.

    Shows Propositions 1 to 3 of the AdamW paper and its view of decay as filtering; the rotation in
    equilibrium of scale-invariant tensors; every update against its paper's algorithm and torch.optim, and
    against adamp, timm, pytorch_optimizer and torch-optimi if installed. All in float64. Exit code 1 if a
    check fails.
    """
    from lrwd_sweep.engine.device import choose, prepare

    as_json = as_json or form is TextFormat.JSON
    chosen = choose(device)
    prepare(chosen)
    console, sections = consoles.stdout(), []
    for section in demonstrate(chosen):
        sections.append(section)
        if not as_json:
            console.print(Shown(section))
    failures = [line for section in sections for line in section.failures]
    if as_json:
        document = {
            "schema_version": 1,
            "device": str(chosen),
            "passed": not failures,
            "sections": [section.to_dict() for section in sections],
        }
        consoles.write(json.dumps(document, indent=2, allow_nan=False) + "\n")
    else:
        console.print(summary(sections, str(chosen)), soft_wrap=True)
    if failures:
        more = f" (and {len(failures) - 1} more)" if failures[1:] else ""
        raise GateFailed(failures[0] + more)


def demonstrate(device: Any) -> Iterator[Section]:
    """Yield every section, in float64, as it is computed; `device` is a torch.device."""
    from lrwd_sweep.lab.verify import lone_runs, parity, propositions

    yield propositions.proposition_1(device)
    yield propositions.proposition_2(device)
    yield propositions.proposition_3(device)
    yield propositions.filtering_identity(device)
    yield propositions.scale_invariance(device)
    yield propositions.equilibrium_rotation(device)
    yield lone_runs.parity_of_flat_minima(device)
    yield lone_runs.parity_of_kfac(device)
    yield parity.parity_with_papers(device)
    yield from parity.parity_by_library(device)


@dataclass(frozen=True, slots=True)
class Shown:
    """One section: its claim and the result of each check."""

    section: Section

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        ascii_only = options.ascii_only
        yield _text(self.section.title, ascii_only, "bold")
        if self.section.checks:
            table = self._table(ascii_only, stacked=False)
            width = Measurement.get(console, options.update(max_width=1000), table).maximum
            fits = len(self.section.headings) == 1 or width <= options.max_width
            yield table if fits else self._table(ascii_only, stacked=True)
        for note in self.section.notes:
            yield _text(f" {note}", ascii_only)
        if self.section.notes:
            yield Text()

    def _table(self, ascii_only: bool, *, stacked: bool) -> Table:
        """Make a row per check; if `stacked`, its other cells stand under the first."""
        first, *others = self.section.headings
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        table.add_column(_text(first, ascii_only), overflow="fold")
        for heading in [] if stacked else others:
            table.add_column(_text(heading, ascii_only), no_wrap=True)
        table.add_column("found", no_wrap=True)
        for check in self.section.checks:
            start, *rest = (_text(cell, ascii_only) for cell in check.cells)
            below = [_text(check.why, ascii_only, "dim")] if check.why else []
            if stacked:
                places = (f"{heading}: {cell}" for heading, cell in zip(others, check.cells[1:], strict=True))
                below = [_text("; ".join(places), ascii_only), *below]
            label = Group(start, *(Padding(line, (0, 0, 0, 2)) for line in below))
            found = Text(verdict(check), _STYLES[check.relation] if check.passed else "bold red")
            table.add_row(label, *([] if stacked else rest), found)
        return table


def verdict(check: Check) -> str:
    """Say how close or how far apart the two are, and mark a failed check.

    >>> verdict(Check(("a",), error=0.02, bound=1e-10))
    'FAILED, 2e-02'
    """
    if not check.passed:
        return f"FAILED, {check.error:.0e}"
    if check.relation is Relation.DIFFER:
        return f"differ, {check.error:.0e}"
    return "equal" if math.isinf(check.digits) else f"{check.digits:.1f} digits"


def summary(sections: Sequence[Section], device: str) -> str:
    """Count the checks on a device by their results."""
    checks = [check for section in sections for check in section.checks]
    passed = [check for check in checks if check.passed]
    agree = sum(check.relation is Relation.AGREE for check in passed)
    held = f"{agree} agree, {len(passed) - agree} differ as they must"
    failed = f", {len(checks) - len(passed)} FAILED" if len(passed) < len(checks) else ""
    return f"{len(checks)} checks in float64 on {device}: {held}{failed}"


def _text(text: str, ascii_only: bool, style: str = "") -> Text:
    harmless = plain(text)
    return Text(to_ascii(harmless.translate(_MORE_ASCII)) if ascii_only else harmless, style=style)
