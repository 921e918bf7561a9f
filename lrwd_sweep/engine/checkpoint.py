"""Checkpoints: the state of a pack in training, in files beside the store.

A checkpoint is two files, the tensors (safetensors) and a description (JSON) with their SHA-256. Each is
written under another name, synced and renamed, the description last: without it the tensors do not count.
"""

import hashlib
import json
import logging
import os
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

import lrwd_sweep
from lrwd_sweep.engine.device import cpu_name
from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.spec.job import CheckpointPlace, Pack, delete_files, short_digest

SHARE = 0.02  # of the time of training, that writing may take
LONGEST = 3600.0  # seconds between two: a process that Ctrl-Z stopped seems to have written for long
KEPT = 2  # checkpoints of a pack
FORMAT = 1
_TENSORS, _DESCRIPTION = ".safetensors", ".json"
_LANES, _SHARED = "lanes/", "shared/"  # beginnings of the tensors' names

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class State:
    """A pack between two steps: all that decides the rest of its training."""

    lanes: Mapping[str, Tensor]  # (L, …)
    shared: Mapping[str, Tensor]
    values: Mapping[str, Any]  # JSON; every list of numbers has one for each lane

    def of_lanes(self, index: Sequence[int]) -> Self:
        """Return the state of some of the lanes: they do not depend on the others."""
        picked = {name: value[list(index)] for name, value in self.lanes.items()}
        return type(self)(picked, self.shared, _picked(self.values, index))


def _picked(values: Any, index: Sequence[int]) -> Any:
    if isinstance(values, Mapping):
        return {key: _picked(value, index) for key, value in values.items()}
    if isinstance(values, list) and values:
        inner = isinstance(values[0], list)
        return [_picked(value, index) for value in values] if inner else [values[k] for k in index]
    return values


@dataclass(frozen=True, slots=True)
class Found:
    """The description of a checkpoint."""

    file: Path  # of the description
    pack: Pack
    step: int
    sha256: str
    machine: str

    @property
    def tensors(self) -> Path:
        """The file of the tensors."""
        return self.file.with_suffix(_TENSORS)

    def delete(self) -> None:
        """Delete both files, the description first."""
        delete_files(self.file, self.tensors)

    def check(self) -> None:
        """Raise OSError or ValueError if it is damaged."""
        if _sha256(self.tensors) != self.sha256:
            raise ValueError("the file is not what was written")

    def load(self) -> State:
        """Read the state of all its lanes. Raises OSError or ValueError if it is damaged."""
        self.check()
        try:
            found = load_file(self.tensors)
        except SafetensorError as error:
            raise ValueError(str(error)) from None
        values = json.loads(found.pop("values").numpy().tobytes())
        lanes, shared = (
            {name.removeprefix(kind): value for name, value in found.items() if name.startswith(kind)}
            for kind in (_LANES, _SHARED)
        )
        return State(lanes, shared, values)


@dataclass(slots=True)
class Checkpoints:
    """The checkpoints of one pack: writes its state now and then, and finds where it left off."""

    place: CheckpointPlace
    pack: Pack
    _next: float = field(init=False)  # time of the next one
    _written: list[Found] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self._next = time.monotonic() + self.place.every

    @property
    def is_due(self) -> bool:
        """True if it is time for a checkpoint."""
        return time.monotonic() >= self._next

    def newest(self) -> State | None:
        """Return the last sound state of these lanes, also from a pack with more lanes, or None."""
        for found in find(self.place):
            if found.pack.seed != self.pack.seed or not set(self.pack.cells) <= set(found.pack.cells):
                continue
            if found.machine != machine():
                continue
            try:
                state = found.load()
            except (OSError, ValueError) as error:
                _drop(found, error)
                continue
            return state.of_lanes([found.pack.cells.index(cell) for cell in self.pack.cells])
        return None

    def write(self, state: State, step: int) -> None:
        """Write a checkpoint and delete all but the last of this pack; report an error of the disk once."""
        begun = time.monotonic()
        try:
            self._written.append(self._write(state, step))
        except OSError as error:
            _log.warning(
                "checkpoints cannot be written to %s (%s)", self.place.folder, error.strerror or error
            )
            self._next = float("inf")
            return
        while len(self._written) > KEPT:
            self._written.pop(0).delete()
        now = time.monotonic()
        self._next = now + max(self.place.every, min((now - begun) / SHARE, LONGEST))

    def _write(self, state: State, step: int) -> Found:
        folder = Path(self.place.folder)
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"{self.place.study}-{short_digest(repr(self.pack))}-{step:09d}{_DESCRIPTION}"
        found = Found(file, self.pack, step, "", machine())
        tensors = {f"{_LANES}{name}": value for name, value in state.lanes.items()}
        tensors |= {f"{_SHARED}{name}": value for name, value in state.shared.items()}
        values = bytearray(json.dumps(state.values).encode())
        tensors["values"] = torch.frombuffer(values, dtype=torch.uint8)
        try:
            with _replacing(found.tensors) as new:
                save_file({name: value.contiguous().cpu() for name, value in tensors.items()}, new)
                digest = _sha256(new)
        except SafetensorError as error:
            raise OSError(str(error)) from None
        description = {
            "format": FORMAT,
            "study": self.place.name,
            "cells": [[cell.lr, cell.weight_decay] for cell in self.pack.cells],
            "seed": self.pack.seed,
            "step": step,
            "sha256": digest,
            "machine": machine(),
        }
        with _replacing(file) as new:
            new.write_text(json.dumps(description), encoding="utf-8")
        _sync(folder)
        return found


@contextmanager
def _replacing(file: Path) -> Iterator[Path]:
    """Give the place of a new file; move it to its own once it is on the disk.

    In a folder: safetensors writes a file of any name first, which a kill would leave.
    """
    folder = file.with_name(f"{file.name}.{os.getpid()}.new")
    try:
        folder.mkdir(exist_ok=True)
        yield folder / file.name
        _sync(folder / file.name)
        (folder / file.name).replace(file)
    finally:
        delete_files(folder)


def find(place: CheckpointPlace) -> list[Found]:
    """Return the study's checkpoints, the latest step first, widest packs first among equals."""
    found = list(_descriptions(place))
    return sorted(found, key=lambda one: (-one.step, -len(one.pack.cells), one.file.name))


def _descriptions(place: CheckpointPlace) -> Iterator[Found]:
    for file in Path(place.folder).glob(f"{place.study}-*{_DESCRIPTION}"):
        try:
            text = json.loads(file.read_text(encoding="utf-8"))
            if text["format"] != FORMAT:
                continue
            pack = Pack(tuple(Cell(*map(float, cell)) for cell in text["cells"]), int(text["seed"]))
            yield Found(file, pack, int(text["step"]), str(text["sha256"]), str(text["machine"]))
        except FileNotFoundError:  # a pack that is training has just deleted it
            continue
        except (OSError, ValueError, KeyError, TypeError) as error:
            _log.warning("the checkpoint %s is damaged (%s) and not used", file.name, type(error).__name__)
            delete_files(file, file.with_suffix(_TENSORS))


def delete_of(place: CheckpointPlace, pack: Pack) -> None:
    """Delete the checkpoints of a pack, and the folder if it is empty."""
    delete_files(*Path(place.folder).glob(f"{place.study}-{short_digest(repr(pack))}-*"))
    with suppress(OSError):
        Path(place.folder).rmdir()


def delete_finished(place: CheckpointPlace, unfinished: Mapping[int, Sequence[Cell]]) -> None:
    """Delete the study's checkpoints of which no lane is unfinished, and what a kill left of others."""
    kept = set()
    for found in find(place):
        if set(found.pack.cells) & set(unfinished.get(found.pack.seed, ())):
            kept |= {found.file, found.tensors}
    delete_files(*set(Path(place.folder).glob(f"{place.study}-*")) - kept)
    with suppress(OSError):
        Path(place.folder).rmdir()


def begun_packs(place: CheckpointPlace, unfinished: Mapping[int, Sequence[Cell]]) -> list[Pack]:
    """Return the packs that have a sound checkpoint of this machine; no lane is finished or in two of them.

    A damaged checkpoint, and those of other machines, are told here: an executor's processes are silent.
    """
    packs: list[Pack] = []
    foreign: set[Pack] = set()
    for found in find(place):
        cells = set(found.pack.cells)
        taken = {cell for pack in packs if pack.seed == found.pack.seed for cell in pack.cells}
        if not cells <= set(unfinished.get(found.pack.seed, ())) - taken:
            continue
        if found.machine != machine() and not place.shared:
            foreign.add(found.pack)
            continue
        try:
            found.check()
        except (OSError, ValueError) as error:
            _drop(found, error)
            continue
        packs.append(found.pack)
    if foreign:
        _log.info("checkpoints of another machine or version are not used; their lanes begin again")
    return packs


def _drop(found: Found, error: Exception) -> None:
    _log.warning("the checkpoint %s is damaged (%s) and not used", found.file.name, error)
    found.delete()


@cache
def machine() -> str:
    """Describe what rounding depends on: processor, its instructions, versions."""
    gpus = [torch.cuda.get_device_name(k) for k in range(torch.cuda.device_count())]
    words = [platform.machine(), cpu_name(), torch.backends.cpu.get_cpu_capability(), *gpus]
    return "; ".join([*words, f"torch {torch.__version__}", f"lrwd-sweep {lrwd_sweep.__version__}"])


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
