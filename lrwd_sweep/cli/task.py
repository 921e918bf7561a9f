"""The options that say what to train, which grid, compare and tpe share."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, get_type_hints

from lrwd_sweep.cli import options
from lrwd_sweep.spec.request import Request


def takes_task(command: Callable[..., None]) -> Callable[..., None]:
    """A command whose parameter `task` is made of the options in `options.TASK`, which stand in its place."""
    signature = inspect.signature(command)
    hints = get_type_hints(command, include_extras=True)
    parameters = []
    for parameter in signature.parameters.values():
        if parameter.name != "request":
            parameters.append(parameter.replace(annotation=hints[parameter.name]))
            continue
        for name, (annotation, default) in options.TASK.items():
            kind = inspect.Parameter.KEYWORD_ONLY
            parameters.append(inspect.Parameter(name, kind, default=default, annotation=annotation))
    positional = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in parameters]

    @functools.wraps(command)
    def with_options(**given: Any) -> None:
        request = {name: given.pop(name) for name in options.TASK}
        own = {name: request.pop(name) for name in ("preset", "lr", "wd", "seeds", "metric", "cap")}
        request |= dict(zip(("beta1", "beta2"), request.pop("betas") or (None, None), strict=True))
        overrides = tuple((name, value) for name, value in request.items() if value is not None)
        command(request=Request(**own, overrides=overrides), **given)

    with_options.__signature__ = signature.replace(parameters=positional)  # type: ignore[attr-defined]
    with_options.__annotations__ = {p.name: p.annotation for p in positional}
    del with_options.__wrapped__  # or its own signature would be read
    return with_options
