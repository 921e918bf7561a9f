"""The survey of a streamed split: one pass over its items, which finds what a split in memory would tell."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from lrwd_sweep.data.splits import EVAL_BATCH, StreamedSplit, center_of, counts_of
from lrwd_sweep.data.user_items import MapStyle

_CHUNK = 2**25  # bytes hashed at a time
_THREADS = 4  # that hash
_PROBED = 8  # items that another process compares


Check = Callable[[Sequence[Tensor], int], tuple[tuple[Tensor, ...], Tensor]]  # columns, number of the first


@dataclass(slots=True)
class Hashes:
    """Digests of a tensor (n, …) that is given in parts: of its type, its shape and its rows in chunks."""

    dtype: torch.dtype
    shape: tuple[int, ...]  # of a row
    rows: int = 0
    chunks: list[bytes] = field(default_factory=list)
    _open: hashlib._Hash = field(default_factory=hashlib.sha256)

    @classmethod
    def of(cls, values: Tensor) -> Hashes:
        """Hash a whole tensor, in threads."""
        found = cls(values.dtype, tuple(values.shape[1:]), len(values))
        with ThreadPoolExecutor(_THREADS) as threads:
            found.chunks = [*threads.map(_hash, torch.split(values, found.rows_of_chunk))]
        return found

    @property
    def rows_of_chunk(self) -> int:
        """The rows of a chunk."""
        row = torch.empty(self.shape, dtype=self.dtype, device="meta").nbytes
        return max(1, _CHUNK // max(1, row))

    @property
    def header(self) -> bytes:
        """Type and shape as bytes."""
        return f"{self.dtype} {(self.rows, *self.shape)};".encode()

    def add(self, values: Tensor) -> None:
        """Add rows."""
        left = self.rows_of_chunk - self.rows % self.rows_of_chunk
        for part in (values[:left], *torch.split(values[left:], self.rows_of_chunk)):
            if len(part):
                self._open.update(_bytes(part))
                self.rows += len(part)
                if self.rows % self.rows_of_chunk == 0:
                    self._close()

    def finish(self) -> None:
        """Close the last chunk, unless it is empty."""
        if self.rows % self.rows_of_chunk:
            self._close()

    def _close(self) -> None:
        self.chunks.append(self._open.digest())
        self._open = hashlib.sha256()


def _hash(values: Tensor) -> bytes:
    return hashlib.sha256(_bytes(values)).digest()


def _bytes(values: Tensor) -> memoryview:
    if not values.is_contiguous() or values.numel() < 2 or len(values) < 2:
        # A clone, as `contiguous` leaves the strides of empty tensors and of single rows as they are.
        values = values.clone(memory_format=torch.contiguous_format)
    return values.view(-1).view(torch.uint8).numpy().data


def survey(part: MapStyle, check: Check) -> tuple[StreamedSplit, Sequence[Hashes]]:
    """Read all items once, as for evaluation; return the split, and digests of every input and the targets.

    Its rows are the first; of whole numbers the smallest and the largest; of targets every class, or numbers
    that tell their kind. Raises DataError if `check` does.
    """
    few = StreamedSplit(*(torch.empty(0),) * 2, read=part.read, count=len(part))
    rows: list[Tensor] = []
    hashes: list[Hashes] = []
    counts = torch.zeros(1, dtype=torch.int64)

    def targets() -> Iterator[Tensor]:
        nonlocal counts
        for begin in range(0, few.count, EVAL_BATCH):
            index = range(begin, min(begin + EVAL_BATCH, few.count))
            xs, y = check(few.columns(index), begin)
            if not hashes:
                hashes.extend(Hashes(one.dtype, tuple(one.shape[1:])) for one in (*xs, y))
            for one, values in zip(hashes, (*xs, y), strict=True):
                one.add(values)
            found = [*map(_extremes, xs), _kinds(y)]
            if rows:
                *inputs, labels = (torch.cat(both) for both in zip(rows, found, strict=True))
                found = [*map(_extremes, inputs), _kinds(labels)]
            rows[:] = found
            if len(xs) == 1 and xs[0].dtype == torch.uint8 and xs[0].dim() == 4:
                counts = counts + counts_of(xs[0])
            yield y.float() if y.is_floating_point() else y

    mean = center_of(targets())
    for one in hashes:
        one.finish()
    x, *more, y = rows
    numbers = mean if y.is_floating_point() else None
    made = replace(few, x=x, y=y, more=tuple(more), mean=numbers, probe=probe(few))
    return (replace(made, counts=counts) if counts.dim() > 1 else made), hashes


def probe(split: StreamedSplit) -> Tensor:
    """Hash some items, read as for evaluation, to compare the data sets of two processes."""
    few = min(_PROBED, split.count)
    columns = split.columns([k * split.count // few for k in range(few)])
    whole = b"".join(_hash(one) for one in columns)
    return torch.frombuffer(bytearray(hashlib.sha256(whole).digest()), dtype=torch.uint8)


def _extremes(x: Tensor) -> Tensor:
    """Return a row of real numbers, or of whole ones two rows of the least and the largest."""
    if x.is_floating_point():
        return x[:1].clone()
    return torch.stack([torch.full_like(x[0], int(most)) for most in (x.min(), x.max())])


def _kinds(y: Tensor) -> Tensor:
    """Return rows with every class, or of numbers the first, one that differs and one that is not 0 or 1."""
    if not y.is_floating_point():
        found: Tensor = torch.unique(y)
        return found.view(-1, *[1] * (y.dim() - 1)).expand(-1, *y.shape[1:]).clone()
    rows = y.flatten(1) if y.dim() > 1 else y.unsqueeze(1)
    differs, other = (rows != rows[:1]).any(1), ((rows != 0) & (rows != 1)).any(1)
    picked = {0, *(int(k) for which in (differs, other) for k in which.nonzero()[:1])}
    return y[sorted(picked)]
