"""Who takes part in a race, told without loading any of them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec

from lrwd_sweep.errors import UnknownName, UsageError

ENGINE = "lrwd-sweep"


@dataclass(frozen=True, slots=True)
class Entry:
    """A way to train the lanes."""

    name: str
    about: str
    module: str  # below lrwd_sweep.lab.bench; its `run` is a task.Contender
    only: str = ""  # the kind of device that it is for; empty where it is for any

    @property
    def missing(self) -> str:
        """What this machine lacks for it, and the remedy; empty where nothing."""
        return {"compiled": _no_compiler, "ray": _no_ray}.get(self.name, str)()


ENTRIES = (
    Entry(ENGINE, "as grid runs it", "ours"),
    Entry("plain", "Optuna + torch, eager", "plain"),
    Entry("compiled", "torch.compile, fused", "compiled"),
    Entry("graphs", "CUDA graphs, fused", "graphed", only="cuda"),
    Entry("processes", "Optuna, one per core", "processes", only="cpu"),
    Entry("ray", "Tune, a trial per core", "ray_tune", only="cpu"),
    Entry("vmap", "by hand, in stacks", "stacked"),
)


def entries(names: Sequence[str] | None = None, kind: str = "cpu") -> list[Entry]:
    """The engine, and the contenders of these names on that kind of device; None: all that are for it.

    Raises UnknownName or UsageError.
    """
    if names is None:
        return [entry for entry in ENTRIES if entry.only in ("", kind)]
    known = {entry.name: entry for entry in ENTRIES}
    for name in names:
        if name not in known:
            raise UnknownName("contender", name, list(known))
        only = known[name].only
        if only not in ("", kind):
            raise UsageError(f"--contenders {name} races on {only} alone, not on {kind}; leave it out")
        if names.count(name) > 1:
            raise UsageError(f"--contenders names {name} twice; leave one out")
    return [entry for entry in ENTRIES if entry.name in (ENGINE, *names)]


def _no_compiler() -> str:
    compiler = os.environ.get("CXX", "g++")
    return "" if shutil.which(compiler) else f"no C++ compiler ({compiler}); install one, or set CXX"


def _no_ray() -> str:
    return "" if find_spec("ray") else "Ray is not installed; pip install 'lrwd-sweep[ray]'"
