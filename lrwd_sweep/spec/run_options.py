"""The options of `--run` and `objective=`, and the command that they ask for."""

from __future__ import annotations

import hashlib
import inspect
import math
import os
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypedDict

from lrwd_sweep.errors import UsageError, arg
from lrwd_sweep.science.optimizer import CAUTIOUS, NORMALIZED, DecayRule, Optimizer
from lrwd_sweep.spec.field import RUN, declared, fields_of
from lrwd_sweep.spec.preset import DEFAULT
from lrwd_sweep.spec.user_code import Source, is_user_code
from lrwd_sweep.spec.user_command import DIGITS, Command, example, fill_early, placeholders, with_imports

_TIME = re.compile(r"(\d+(?:\.\d*)?)\s*([smhd]?)")
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True, slots=True)
class RunOptions:
    """The options of `--run`; an empty or None value was not given."""

    run: tuple[str, ...] = declared(
        (), "Command with {lr} {weight_decay} {seed} {out} [none]", panel=RUN, metavar="COMMAND"
    )
    read: str = declared(
        "", "auto, json:PATH:KEY, stdout:REGEX, … [$LRWD_RESULT]", panel=RUN, metavar="SOURCE"
    )
    take: str = declared(
        "last", "Point of a run that counts: last or best", panel=RUN, choices=("last", "best")
    )
    jobs: int | None = declared(
        None, "Runs at a time [one per visible GPU, else 1]", panel=RUN, least=1, most=1024
    )
    timeout: str = declared("", "End a run after 90s, 30m or 2h [never]", panel=RUN, metavar="TIME")
    diverged_above: float | None = declared(
        None,
        "End a run whose loss is above V as diverged [no]",
        panel=RUN,
        metavar="V",
        least=-math.inf,
        below=math.inf,
    )
    keep_out: bool = declared(False, "Continue in the {out} of the last attempt", panel=RUN)
    shell: bool = declared(False, "Run by sh -c, values quoted", panel=RUN)
    objective: tuple[Callable[..., Any], ...] = ()  # from Python, in place of `run`

    @property
    def option(self) -> str:
        """The argument that gave it, for messages."""
        return arg("run" if self.run else "objective")

    @property
    def count(self) -> int:
        """The number of commands or functions: one, or one for each optimizer."""
        return len(self.run or self.objective)


RUN_FIELDS = fields_of(RunOptions)


class RunKeywords(TypedDict, total=False):
    """The options of a command as keywords of Python."""

    run: str | Sequence[str]  # a command, or one for each optimizer
    objective: str | Callable[..., Any] | Sequence[Callable[..., Any]]  # f(lr, weight_decay, seed)
    read: str
    take: str
    jobs: int
    timeout: str | float
    diverged_above: float
    keep_out: bool
    shell: bool


def run_options(
    run: Mapping[str, Any], own: Mapping[str, Any], task: Mapping[str, Any], preset: str
) -> RunOptions | None:
    """Return the options of a command or function; None without one.

    `own` are those of a request, `task` those of a task. Raises UsageError for any that has no effect.
    """
    if not run.get("run") and not run.get("objective"):
        for name in run:
            raise UsageError(f"{arg(name)} has no effect without {arg('run')}; leave it out")
        return None
    option = "run" if run.get("run") else "objective"
    if run.get("run") and run.get("objective"):
        raise UsageError(f"{arg('run')} and {arg('objective')} exclude each other; give one")
    unused = [name for name in task if name != "epochs" or option == "objective"]
    unused += [name for name in ("shell", "read", "keep_out") if option == "objective" and run.get(name)]
    unused += ["preset"] * (preset != DEFAULT)
    for name in unused:
        raise UsageError(f"{arg(name)} has no effect with {arg(option)}; leave it out")
    return RunOptions(**run)


def foreign_optimizer(name: str) -> Optimizer:
    """Return an optimizer whose name says which decay a script has. Raises UsageError or UnknownName."""
    found = Optimizer.parse(name)
    if found.rule is DecayRule.INDEPENDENT and str(found.rule) not in name.lower().split(":"):
        scaled, paper = (
            explicit_name(replace(found, rule=rule)) for rule in (DecayRule.LR_SCALED, DecayRule.INDEPENDENT)
        )
        raise UsageError(
            f"{arg('optimizer', name)}: does your script multiply the decay by the learning rate, as "
            f"torch.optim.AdamW does ({scaled}), or not, as in the paper ({paper})? give one of these names"
        )
    return found


def explicit_name(optimizer: Optimizer) -> str:
    """Return a name that `foreign_optimizer` takes.

    >>> explicit_name(Optimizer.parse("adamw:independent")), explicit_name(Optimizer.parse("adam"))
    ('adamw:independent', 'adam')
    """
    name = str(optimizer)
    plain = name.removesuffix(f":{NORMALIZED}").removesuffix(f":{CAUTIOUS}")
    named = optimizer.rule is not DecayRule.INDEPENDENT or ":" in plain
    return name if named else name.replace("w", f"w:{DecayRule.INDEPENDENT}", 1)


def command_of(options: RunOptions, place: int, optimizer: Optimizer, epochs: int | None) -> Command:
    """Return the command of the optimizer at a place, with `{optimizer}` and `{epochs}` filled in.

    Raises UsageError or UnknownName. The digest of its code is that of now.
    """
    name = str(optimizer).partition(":")[0]
    rest: dict[str, Any] = {
        "read": options.read,
        "take": options.take,
        "jobs": options.jobs,
        "timeout": seconds(options.timeout) if options.timeout else None,
        "diverged_above": options.diverged_above,
        "keep_out": options.keep_out,
    }
    if options.objective:
        return _function(options.objective[min(place, len(options.objective) - 1)], name, rest)
    text = options.run[min(place, len(options.run) - 1)]
    if not text.isprintable():
        raise UsageError(f"{arg('run', text)} holds characters that cannot be printed; write one line")
    try:
        words = [text] if options.shell else shlex.split(text)
    except ValueError as error:
        raise UsageError(f"{arg('run', text)} cannot be split into words: {error}") from None
    if not words or not words[0].strip():
        raise UsageError(f"{arg('run', text)} is empty; write for example {example()}")
    used = {found for word in words for found in placeholders(word, "run")}
    if epochs is None and "epochs" in used:
        raise UsageError(f"{arg('run', text)} has {{epochs}}; add {arg('epochs', 10)}")
    if epochs is not None and "epochs" not in used:
        raise UsageError(f"{arg('epochs', epochs)} has no effect: {arg('run')} has no {{epochs}}")
    early, quote = {"optimizer": name, "epochs": epochs}, shlex.quote if options.shell else str
    found = Command(tuple(fill_early(word, early, quote) for word in words), shell=options.shell, **rest)
    return replace(found, code=found.current_code())


def seconds(text: str) -> float:
    """Read a time such as 90, 90s, 30m or 2h. Raises UsageError.

    >>> seconds("1.5h")
    5400.0
    """
    found = _TIME.fullmatch(text.strip().lower())
    if found is None or not 0 < float(found[1]) < math.inf:
        raise UsageError(f"{arg('timeout', text)} is not a time; write 90s, 30m or 2h")
    return float(found[1]) * _SECONDS[found[2]]


def function_code(objective: Callable[..., Any]) -> tuple[str, str]:
    """Return the name of a function, and the digest of its file and imports, or of its own source.

    A function of a script is known by its own source: the script also holds the call that sweeps it.
    """
    module = getattr(objective, "__module__", "") or ""
    name = getattr(objective, "__qualname__", type(objective).__qualname__)
    try:
        original = inspect.unwrap(objective)
        path = inspect.getsourcefile(original) or ""
        if module == "__main__" or not os.path.isfile(path):
            sources = [Source(name, "", inspect.getsource(original).encode())]
        else:
            sources = list(with_imports(Source(module, path, Path(path).read_bytes())))
    except (TypeError, OSError):  # built in, an object, or typed at a prompt
        code = getattr(objective, "__code__", None)
        sources = [Source(name, "", repr(code and (code.co_code, code.co_consts)).encode())]
    digest = hashlib.sha256(repr(sorted((each.name, each.text) for each in sources)).encode()).hexdigest()
    return name if module == "__main__" else f"{module}:{name}", digest[:DIGITS]


def _function(objective: Callable[..., Any], optimizer: str, rest: Mapping[str, Any]) -> Command:
    """Return the command of a function. Raises UsageError."""
    label, digest = function_code(objective)
    name = label.rpartition(":")[2]
    takes_optimizer = False
    try:
        takes_optimizer = "optimizer" in (signature := inspect.signature(objective)).parameters
        signature.bind(0.1, 0.1, 0, **{"optimizer": optimizer} if takes_optimizer else {})
    except ValueError:  # built in, without a signature
        pass
    except TypeError:
        raise UsageError(
            f"{arg('objective', objective)} takes other arguments; write f(lr, weight_decay, seed)"
        ) from None
    return Command(
        function=label if is_user_code(label) else re.sub(r"[^\w.]", "", name) or "objective",
        optimizer=optimizer if takes_optimizer else "",
        code=digest,
        call=objective,
        **rest,
    )
