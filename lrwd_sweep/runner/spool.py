"""Finished packs in a folder that the machines of a cluster share, until the driver has stored them.

A file holds the trials of one pack as JSON, with its SHA-256 and the key of its study: digests of its name
and of all on which its results depend. It is written under another name, synced and renamed.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lrwd_sweep.errors import HostError, arg
from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.science.trial import Status, Trial
from lrwd_sweep.spec.job import Pack, short_digest
from lrwd_sweep.spec.study import StudySpec

if TYPE_CHECKING:
    from lrwd_sweep.store import Store

FORMAT = 1
_PREFIX = "done-"

_log = logging.getLogger(__name__)


def check_folder(folder: str) -> None:
    """Make the folder if it is not there. Raises HostError if it cannot be written."""
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        probe = Path(folder, f".{os.getpid()}.new")
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise HostError(
            f"{arg('spool', folder)} cannot be written ({error.strerror or error}); name a folder that all "
            "nodes share"
        ) from None


def study_key(name: str, spec: StudySpec) -> str:
    """Return digests of a study's name and of all on which its results depend, but for rounding."""
    what = spec.task.to_dict() if spec.task is not None else spec.command.identity() if spec.command else {}
    identity = {key: value for key, value in what.items() if key not in ("tensors", "engine")}
    values = [name, str(spec.optimizer), spec.metric, identity]
    return f"{short_digest(name)}-{short_digest(json.dumps(values, sort_keys=True, default=str))}"


def store_packs(store: Store, name: str, spec: StudySpec, folder: str) -> int:
    """Store the packs of a study that are missing; delete all its files; return how many lanes that were."""
    before = len(store.finished(name))
    for file, trials in read_packs(folder, study_key(name, spec)):
        store.add_trials(name, trials, spec)
        with suppress(OSError):
            file.unlink()
    return len(store.finished(name)) - before


def write_pack(folder: str, key: str, pack: Pack, trials: Sequence[Trial]) -> None:
    """Write the trials of a finished pack. Raises OSError."""
    body = json.dumps({"study": key, "seed": pack.seed, "trials": [_record(trial) for trial in trials]})
    text = json.dumps({"format": FORMAT, "sha256": hashlib.sha256(body.encode()).hexdigest(), "body": body})
    file = Path(folder, f"{_PREFIX}{key}-{short_digest(repr(pack))}.json")
    new = file.with_name(f"{file.name}.{os.getpid()}.new")
    Path(folder).mkdir(parents=True, exist_ok=True)
    try:
        with new.open("w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        new.replace(file)
    finally:
        new.unlink(missing_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_packs(folder: str, key: str) -> Iterator[tuple[Path, list[Trial]]]:
    """Yield the files of a study and their trials; a damaged file is reported and deleted."""
    for file in sorted(Path(folder).glob(f"{_PREFIX}{key}-*.json")):
        try:
            trials = _parsed(file.read_text(encoding="utf-8"), key)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            _log.warning("the finished pack %s is damaged (%s) and not used", file.name, error)
            with suppress(OSError):
                file.unlink()
            continue
        except OSError:  # another driver took it
            continue
        yield file, trials


def _parsed(text: str, key: str) -> list[Trial]:
    """Return the trials of a file's text. Raises ValueError, KeyError or TypeError if it is damaged."""
    outer = json.loads(text)
    if outer["format"] != FORMAT or hashlib.sha256(outer["body"].encode()).hexdigest() != outer["sha256"]:
        raise ValueError("the file is not what was written")
    body = json.loads(outer["body"])
    if body["study"] != key:
        raise ValueError("it belongs to another study")
    return [_trial(record, int(body["seed"])) for record in body["trials"]]


def _record(trial: Trial) -> dict[str, Any]:
    found = asdict(trial)
    cell = found.pop("cell")
    del found["seed"]
    return {"cell": [cell["lr"], cell["weight_decay"]], **found, "status": trial.status.value}


def _trial(record: dict[str, Any], seed: int) -> Trial:
    lr, weight_decay = map(float, record["cell"])
    return Trial(
        Cell(lr, weight_decay),
        seed,
        Status(record["status"]),
        dict(record["metrics"]),
        {name: tuple(values) for name, values in record["curves"].items()},
        record["detail"],
        {int(epoch): values for epoch, values in record["snapshots"].items()},
    )
