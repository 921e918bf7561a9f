"""Command: a training script or Python function of the user that trains one lane per call.

Its words have placeholders: `{lr}`, with a factor `{lr*0.1}` or a format `{lr:.3e}`; `{{` is a brace.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from lrwd_sweep.errors import UnknownName, UsageError, arg, shown
from lrwd_sweep.science.lattice import Cell, canonical
from lrwd_sweep.spec.user_code import Source, file_of, imports_of, short

KINDS = ("json", "jsonl", "csv", "tb", "stdout")  # of `read`
AUTO = "auto"
STEPS = ("step", "global_step", "iteration", "iter", "epoch")  # the first that a record has is its step
_CODE = {
    ".py",
    ".sh",
    ".bash",
    ".yaml",
    ".yml",
    ".toml",
    ".cfg",
    ".ini",
    ".gin",
}  # hashed if a word names one
_LARGEST = 10 << 20  # bytes of a file that is hashed
DIGITS = 12  # of a digest
PLACEHOLDERS = ("lr", "weight_decay", "seed", "out", "epochs", "optimizer")
_EXAMPLES: Mapping[str, float | int] = {"lr": 1e-3, "weight_decay": 1e-3, "seed": 1, "epochs": 1}  # numbers
_PLACEHOLDER = re.compile(
    r"\{\{|\}\}|\{(?P<name>\w+)(?:\*(?P<factor>[^{}:]*))?(?::(?P<format>[^{}]*))?\}|\{[^{}]*\}?"
)
_BRACES = ("{{", "}}")

Write = Callable[[float], str]


@dataclass(frozen=True)
class Command:
    """A command or function that trains one lane, and how its value is read.

    Template, shell, reader, take and code are its identity. Raises UsageError for a bad template or reader.
    """

    template: tuple[str, ...] = ()  # words with placeholders; one text with `shell`; empty for a function
    function: str = ""  # its name, for a function of Python
    optimizer: str = ""  # passed to a function that takes it
    shell: bool = False
    read: str = ""  # as --read writes it; "" reads the file $LRWD_RESULT
    take: str = "last"
    code: str = ""  # digest of the script and the local files that it imports
    jobs: int | None = field(default=None, compare=False)
    timeout: float | None = field(default=None, compare=False)  # seconds
    diverged_above: float | None = field(default=None, compare=False)
    keep_out: bool = field(default=False, compare=False)  # `{out}` is that of the attempt before
    call: Callable[..., Any] | None = field(default=None, compare=False, repr=False)  # `function` itself

    def __post_init__(self) -> None:
        if self.function:
            return
        if not self.template:
            raise UsageError(f"{arg('run', '')} is empty; write for example {example()}")
        missing = [name for name in ("lr", "weight_decay") if not self.takes(name)]
        if missing:
            raise UsageError(
                f"{arg('run', self.text)} has no {{{missing[0]}}}: every run would be the same; write for "
                f"example {example()}"
            )
        _ = self.source

    @property
    def option(self) -> str:
        """The argument that gave it, for messages."""
        return "objective" if self.function else "run"

    @property
    def text(self) -> str:
        """The template as the user wrote it, or the function's name."""
        if self.function:
            return self.function
        return self.template[0] if self.shell else _joined(self.template)

    @property
    def stem(self) -> str:
        """A short name: of the script without its folder, or of the function."""
        if self.function:
            return short(self.function)
        words = self._words
        scripts = [Path(word).stem for word in words if word.endswith((".py", ".sh"))]
        modules = [words[k + 1] for k, word in enumerate(words[:-1]) if word == "-m"]
        return [*scripts, *modules, Path(words[0]).stem][0]

    @property
    def marks(self) -> str:
        """Hex digits that tell commands of the same script apart; empty for a function."""
        if self.function:
            return ""
        values = (self.template, self.shell, self.read, self.take)
        return hashlib.sha256(repr(values).encode()).hexdigest()[:6]

    @property
    def _words(self) -> list[str]:
        """The words of the command, of a shell's as far as it splits like one."""
        if not self.shell:
            return list(self.template)
        try:
            return shlex.split(self.template[0], comments=True) or [""]
        except ValueError:
            return self.template[0].split() or [""]

    @cached_property
    def source(self) -> tuple[str, str, str]:
        """The kind, the path or glob, and the key of `read`; a regular expression is a key.

        Raises UsageError, or UnknownName for the kind.
        """
        kind, colon, rest = self.read.partition(":")
        if self.read in ("", AUTO):
            return self.read, "", ""
        if kind not in KINDS:
            raise UnknownName("source to read", kind, [AUTO, *(f"{name}:" for name in KINDS)])
        if kind == "stdout":
            return kind, "", _checked_regex(rest)
        path, colon, key = rest.rpartition(":")
        if not (colon and path and key):
            raise UsageError(f"{arg('read', self.read)} lacks a path or a key; write {kind}:PATH:KEY")
        placeholders(path, "read")
        return kind, path, key

    @property
    def key(self) -> str:
        """The last part of the key that names the value; empty if the source does not name it."""
        kind, _, key = self.source
        return "" if kind in ("", AUTO, "stdout") else re.split(r"[.\]]", key)[-1]

    def takes(self, name: str) -> bool:
        """Check if the command receives a value, by a placeholder or, in a shell, by its variable."""
        if self.function:
            return True
        by_name = any(found == name for word in self.template for found in placeholders(word, "run"))
        return by_name or (self.shell and f"LRWD_{name.upper()}" in self.template[0])

    def refuse_copies(self, seeds: Sequence[int]) -> None:
        """Raise UsageError for several seeds of a command that takes none."""
        if len(seeds) > 1 and not self.takes("seed"):
            raise UsageError(
                f"{arg('seeds', len(seeds))}: {arg('run')} has no {{seed}}, so that the seeds of a cell are "
                f"copies; add {{seed}}, or give {arg('seeds', 1)}"
            )

    def filled(self, cell: Cell, seed: int, out: str) -> list[str]:
        """Return the words of one run; a float is written as its repr, which has a point or an exponent."""
        values = _values(cell, seed, out)
        if self.shell:
            return ["/bin/sh", "-c", fill(self.template[0], values, shlex.quote)]
        return [fill(word, values) for word in self.template]

    def path(self, cell: Cell, seed: int, out: str) -> str:
        """Return the path or glob of `read` for one run."""
        return fill(self.source[1], _values(cell, seed, out))

    def pasted(self, cell: Cell, seed: int, write: Callable[[float], str] = repr) -> tuple[str, ...]:
        """Return the words of a shell command that trains a cell, in the user's own flags.

        Empty for a function. `{out}` is the folder `out`.
        """
        values = _values(cell, seed, "out")
        quote = shlex.quote if self.shell else str
        words = [fill(word, values, quote, write) for word in self.template]
        return tuple(words if self.shell else map(shlex.quote, words))

    def current_code(self) -> str:
        """Return the digest of the script as it is now, and of the local files that it imports."""
        if self.function:
            return self.code
        whole = hashlib.sha256()
        for label, text in sorted({(one.name, one.text) for one in self._sources()}):
            whole.update(hashlib.sha256(label.encode()).digest())
            whole.update(hashlib.sha256(text).digest())
        return whole.hexdigest()[:DIGITS]

    def _sources(self) -> Iterator[Source]:
        words = self._words
        for k, word in enumerate(words):
            if k and words[k - 1] == "-m":
                for name in (word, f"{word}.__main__"):
                    if path := file_of(name, os.getcwd()):
                        yield from with_imports(Source(name, path, Path(path).read_bytes()))
            for text in dict.fromkeys((word, word.partition("=")[2])):
                path = os.path.abspath(os.path.expanduser(text))
                if text and _is_code(path, first=k == 0) and text != self.source[1]:
                    yield from with_imports(Source(Path(path).stem, path, Path(path).read_bytes()))

    def identity(self) -> dict[str, Any]:
        """Return what a study name fixes, flat; values at their defaults are left out."""
        named: dict[str, Any] = {"function" if self.function else "command": self.text}
        rest = {"shell": self.shell, "read": self.read, "take": self.take if self.take != "last" else ""}
        return named | {k: v for k, v in rest.items() if v} | {f"code of {self.stem}": self.code}

    def to_dict(self) -> dict[str, Any]:
        """Return it JSON-ready, without values at their defaults."""
        usual = {one.name: one.default for one in fields(self) if one.name != "call"}
        found = {name: getattr(self, name) for name in usual if getattr(self, name) != usual[name]}
        return found | ({"template": list(self.template)} if self.template else {})

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Return the command that `to_dict` wrote. Raises UsageError."""
        return cls(**{**values, "template": tuple(values.get("template", ()))})


def _values(cell: Cell, seed: int, out: str) -> dict[str, Any]:
    return {"lr": cell.lr, "weight_decay": cell.weight_decay, "seed": seed, "out": out}


def example() -> str:
    """Return a command line to show in an error."""
    return "'python train.py --lr {lr} --weight-decay {weight_decay} --seed {seed}'"


def _joined(words: Sequence[str]) -> str:
    """Join words for a shell, in double quotes where those do, so that a text in single ones can hold it."""

    def quoted(word: str) -> str:
        if re.fullmatch(r"[\w@%+=:,./^{}-]+", word):
            return word
        return shlex.quote(word) if set(word) & set("\"$`!\\'") or not word else f'"{word}"'

    return " ".join(map(quoted, words))


def _checked_regex(text: str) -> str:
    try:
        groups = re.compile(text).groupindex
    except (re.error, RecursionError, OverflowError) as error:
        raise UsageError(f"{arg('read', f'stdout:{text}')} is not a regular expression: {error}") from None
    if "value" not in groups:
        raise UsageError(
            f"{arg('read', f'stdout:{text}')} has no group named value; write for example "
            r"'stdout:step (?P<step>\d+).*val loss (?P<value>\S+)'"
        )
    return text


def _is_code(path: str, *, first: bool) -> bool:
    """Check if a word is the script, or a file of settings that it reads."""
    try:
        if not os.path.isfile(path) or os.path.getsize(path) > _LARGEST:
            return False
        if Path(path).suffix.lower() in _CODE:
            return True
        with open(path, "rb") as file:
            return first and file.read(2) == b"#!"
    except (OSError, ValueError):
        return False


def with_imports(source: Source) -> Iterator[Source]:
    """Yield a source, and of Python the local modules that it imports, directly or not."""
    yield source
    if source.path.endswith(".py"):
        yield from imports_of(source)


def placeholders(text: str, option: str) -> list[str]:
    """Return the names of a text's placeholders.

    Raises UsageError that names the option, for an unknown one and a factor or format that does not fit.

    >>> placeholders("--lr={lr:.3e} --min={lr*0.1} {{}}", "run")
    ['lr', 'lr']
    """
    found = []
    for match in _PLACEHOLDER.finditer(text):
        if match[0] in _BRACES:
            continue
        name, factor = match["name"], match["factor"]
        if name not in PLACEHOLDERS:
            known = ", ".join(f"{{{each}}}" for each in PLACEHOLDERS)
            raise UsageError(
                f"{arg(option)}: unknown placeholder {shown(match[0])}; known: {known}; a brace is {{{{"
            )
        try:
            fits = factor is None or 0 < float(factor) < math.inf
            if factor is not None or match["format"] is not None:
                _written(match, _EXAMPLES[name], repr)
        except (KeyError, TypeError, ValueError, OverflowError):
            fits = False
        if not fits:
            raise UsageError(
                f"{arg(option)}: {shown(match[0])} has a factor or format that does not fit; write for "
                "example {lr*0.1} or {lr:.3e}"
            )
        found.append(name)
    return found


def fill(text: str, values: Mapping[str, Any], quote: Callable[[str], str] = str, write: Write = repr) -> str:
    """Fill in every placeholder that has a value; doubled braces become single.

    >>> fill("--lr={lr} --seed={seed} {{}}", {"lr": 0.001, "seed": 3})
    '--lr=0.001 --seed=3 {}'
    """

    def each(match: re.Match[str]) -> str:
        if match[0] in _BRACES:
            return match[0][0]
        return quote(_written(match, values[match["name"]], write))

    return _PLACEHOLDER.sub(each, text)


def fill_early(text: str, values: Mapping[str, Any], quote: Callable[[str], str] = str) -> str:
    """Fill in the placeholders of `values` only; all others, and doubled braces, stay.

    >>> fill_early("{optimizer} {lr} {{}}", {"optimizer": "adamw"})
    'adamw {lr} {{}}'
    """

    def each(match: re.Match[str]) -> str:
        if values.get(match["name"]) is None:
            return match[0]
        return quote(_written(match, values[match["name"]], repr))

    return _PLACEHOLDER.sub(each, text)


def _written(match: re.Match[str], value: Any, write: Write) -> str:
    if match["factor"] is not None:
        value = canonical(value * float(match["factor"]))
    if match["format"] is not None:
        return format(value, match["format"])
    return write(value) if isinstance(value, float) else str(value)
