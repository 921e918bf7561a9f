"""`report --watch`: follow studies that another process trains."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lrwd_sweep.errors import NothingToReport, UsageError, arg
from lrwd_sweep.report.view import consoles
from lrwd_sweep.runner.signals import on_suspension

if TYPE_CHECKING:
    from lrwd_sweep.science.trial import Trial
    from lrwd_sweep.spec.study import StudySpec

SECONDS_BETWEEN_LOOKS = 1.0
LOOKS_IDLE = 10  # without a process that trains, after which a line says so: one begins after the other

_Found = dict[str, tuple["StudySpec", list["Trial"]]]  # by study


def watch(names: Sequence[str] | None, storage: str | None) -> list[str]:
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
