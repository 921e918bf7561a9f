"""Clusters before Ray is loaded: the address of a head, and a spool of finished packs that machines share.

A file of the spool holds the trials of one pack as JSON, with its SHA-256 and the key of its study: digests
of its name and of all on which its results depend. It is written under another name, synced and renamed. The
driver stores and deletes it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import socket
from collections.abc import Sequence
from dataclasses import asdict, astuple
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from lrwd_sweep.errors import HostError, UsageError, arg
from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.science.trial import Status, Trial
from lrwd_sweep.spec.job import Pack, delete_files, short_digest
from lrwd_sweep.spec.study import StudySpec

if TYPE_CHECKING:
    from lrwd_sweep.store import Store

CONNECT = 3.0  # seconds to reach a head
FORMAT = 1  # of a file of the spool
_PREFIX = "done-"

_log = logging.getLogger(__name__)


def is_reachable(address: str, seconds: float) -> bool:
    """Tell whether something listens at HOST:PORT."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), seconds).close()
    except (OSError, ValueError, OverflowError):
        return False
    return True


def refuse_unreachable(option: str, address: str) -> None:
    """Raise UsageError for an address that is not HOST:PORT, HostError if no head answers there."""
    host, _, port = address.rpartition(":")
    if "://" in address or not host or not port.isdecimal():
        raise UsageError(f"{arg(option, address)} is not of the form HOST:PORT; write for example node1:6379")
    if not is_reachable(address, CONNECT):
        raise HostError(
            f"{arg(option, address)}: no head of a Ray cluster answers there; start one on that machine: "
            f"ray start --head --port {port}"
        )


def prepare_ray(*given: object) -> None:
    """Set what Ray reads when it starts: no reports to its makers.

    Raises HostError if it is not installed; `given` is the argument that asks for it.
    """
    if find_spec("ray") is None:
        raise HostError(f"{arg(*given)} needs Ray: pip install 'lrwd-sweep[ray]'")  # type: ignore[arg-type]
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else it warns


def show_token() -> None:
    """Let this process show the token of a cluster, if it has one; before Ray is imported."""
    named = {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys()
    if named or Path("~/.ray/auth_token").expanduser().exists():
        os.environ.setdefault("RAY_AUTH_MODE", "token")


def address_of(given: str | None) -> str:
    """Return the address that is given, else that of $RAY_ADDRESS, else local: a Ray for this command."""
    return given or os.environ.get("RAY_ADDRESS") or "local"


def refuse_elsewhere(device: str, address: str | None) -> None:
    """Raise UsageError for a device that no cluster has, and what `refuse_unreachable` raises."""
    if device not in ("auto", "cpu", "cuda"):
        raise UsageError(f"{arg('device', device)} has no effect on a cluster; give auto, cpu or cuda")
    if (found := address_of(address)) not in ("local", "auto"):
        refuse_unreachable("ray_address", found)
    if found != "local":
        show_token()


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
    """Store the packs of a study that are missing; delete all its files; return how many lanes that were.

    A damaged file is reported and not used.
    """
    before, key = len(store.finished(name)), study_key(name, spec)
    for file in sorted(Path(folder).glob(f"{_PREFIX}{key}-*.json")):
        try:
            trials = _parsed(file.read_text(encoding="utf-8"), key)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            _log.warning("the finished pack %s is damaged (%s) and not used", file.name, error)
        except OSError:  # another driver took it
            continue
        else:
            store.add_trials(name, trials, spec)
        delete_files(file)
    return len(store.finished(name)) - before


def write_pack(folder: str, key: str, pack: Pack, trials: Sequence[Trial]) -> None:
    """Write the trials of a finished pack. Raises OSError."""
    records = [
        {**asdict(trial), "cell": astuple(trial.cell), "status": trial.status.value} for trial in trials
    ]
    body = json.dumps({"study": key, "seed": pack.seed, "trials": records})
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


def _parsed(text: str, key: str) -> list[Trial]:
    """Return the trials of a file's text. Raises ValueError, KeyError or TypeError if it is damaged."""
    outer = json.loads(text)
    if outer["format"] != FORMAT or hashlib.sha256(outer["body"].encode()).hexdigest() != outer["sha256"]:
        raise ValueError("the file is not what was written")
    body = json.loads(outer["body"])
    if body["study"] != key:
        raise ValueError("it belongs to another study")
    return [
        Trial(
            Cell(*map(float, record["cell"])),
            int(body["seed"]),
            Status(record["status"]),
            dict(record["metrics"]),
            {name: tuple(values) for name, values in record["curves"].items()},
            record["detail"],
            {int(epoch): values for epoch, values in record["snapshots"].items()},
        )
        for record in body["trials"]
    ]
