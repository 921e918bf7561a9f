"""The options of a network: their text forms, and those of the catalog's networks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from lrwd_sweep.errors import UnknownName, UsageError, arg, shown

MOST = 1 << 20
CONTEXT = 64  # tokens of a window of text by default
OF_NETWORKS: dict[str, dict[str, Any]] = {  # with their defaults
    "mlp-norm": {"width": 128},
    "mlp": {"width": 128},
    "embed-norm": {"width": 128, "embedding": 16, "scale": 16},
    "gpt": {"layers": 2, "heads": 4, "width": 64, "context": CONTEXT, "tie": False, "weight_norm": False},
}


def options_text(options: Mapping[str, Any]) -> str:
    """Return options as `Task` stores them. Raises UsageError for values that JSON does not have.

    >>> options_text({"width": 64, "act": "relu"})
    '{"act": "relu", "width": 64}'
    """
    try:
        return json.dumps(dict(options), sort_keys=True, allow_nan=False) if options else ""
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"[net.options] {shown(dict(options))}: {error}; give text, numbers, true or false, lists and "
            "tables"
        ) from None


def parse_options(text: str) -> dict[str, Any]:
    """Read options as the command line has them, or in JSON. Raises UsageError.

    >>> parse_options("width=64,act=relu,tie=true"), parse_options('{"widths": [64, 32]}')
    ({'width': 64, 'act': 'relu', 'tie': True}, {'widths': [64, 32]})
    """
    if text.lstrip().startswith("{"):
        try:
            found: dict[str, Any] = json.loads(text)
        except ValueError as error:
            raise UsageError(f"{arg('net_options', text)} is not JSON ({error})") from None
        return found
    pairs = [one.partition("=") for one in text.split(",")]
    for name, equals, value in pairs:
        if not (name.strip().isidentifier() and equals and value.strip()):
            raise UsageError(
                f"{arg('net_options', text)} is not options; write layers=2,width=32, or JSON for lists and "
                "tables"
            )
    return {name.strip(): _value(value.strip()) for name, _, value in pairs}


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def said_options(text: str) -> str:
    """Return stored options as a command line would give them.

    >>> said_options('{"act": "relu", "width": 64}'), said_options('{"widths": [64, 32]}')
    ('act=relu,width=64', '{"widths": [64, 32]}')
    """
    options = json.loads(text or "{}")
    said = {n: v if isinstance(v, str) else json.dumps(v) for n, v in options.items()}
    plain = ",".join(f"{name}={value}" for name, value in said.items())
    try:
        same = parse_options(plain) == options
    except UsageError:
        same = False
    return plain if same else text


def joined_options(text: str, outweighing: str) -> str:
    """Return stored options with others that outweigh them one by one."""
    return options_text(json.loads(text or "{}") | json.loads(outweighing or "{}"))


def complete_options(net: str, text: str) -> dict[str, Any]:
    """Return all options of a network of the catalog, of which `text` gives some. Raises UsageError."""
    known, given = OF_NETWORKS.get(net), json.loads(text or "{}")
    if known is None:
        if given:
            raise UsageError(
                f"{arg('net_options', said_options(text))} has no effect on {net}; it is for "
                f"{', '.join(OF_NETWORKS)} and networks of your own"
            )
        return {}
    for name, value in given.items():
        if name not in known:
            raise UnknownName(f"option of {net}", name, known)
        stated = arg("net_options", f"{name}={json.dumps(value)}")
        if isinstance(known[name], bool):
            if not isinstance(value, bool):
                raise UsageError(f"{stated} is neither true nor false")
        elif isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MOST:
            raise UsageError(f"{stated} is not a whole number from 1 to {MOST}")
    found: dict[str, Any] = known | given
    if "heads" in found and found["width"] % found["heads"]:
        raise UsageError(
            f"{arg('net_options', said_options(text))} makes {found['heads']} heads of width "
            f"{found['width']}, which does not divide; choose a width that is a multiple of the heads"
        )
    return found


def context(net: str, text: str) -> int:
    """Return the tokens in a window of text: the network's option `context`, if it has one."""
    found = {**OF_NETWORKS.get(net, {}), **json.loads(text or "{}")}.get("context", CONTEXT)
    if isinstance(found, bool) or not isinstance(found, int) or not 1 <= found <= MOST:
        raise UsageError(f"{arg('net_options', f'context={found}')} is not a whole number from 1 to {MOST}")
    return found
