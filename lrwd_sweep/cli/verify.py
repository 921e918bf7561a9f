"""`lrwd-sweep verify`: this code compared with the papers and with other libraries."""

from __future__ import annotations

import json

from lrwd_sweep.cli import options
from lrwd_sweep.cli.options import Format, OldJson, TextFormat
from lrwd_sweep.errors import GateFailed
from lrwd_sweep.report.view import consoles


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
    from lrwd_sweep.lab.verify import demonstrate
    from lrwd_sweep.report.view.verification import Shown, summary

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
