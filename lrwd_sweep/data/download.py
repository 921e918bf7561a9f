"""Downloading a published file: resumed where it broke off, checked before it has its name."""

from __future__ import annotations

import hashlib
import http.client
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from lrwd_sweep import __version__
from lrwd_sweep.errors import DataError

OnBytes = Callable[[str, int, int], None]  # file name, bytes so far, bytes in all (0 where nobody said)

_BLOCK = 1 << 20
_SECONDS = 30.0  # of silence before it counts as broken off
_NOTHING_LEFT = 416  # HTTP: the range begins where the file ends


@dataclass(frozen=True, slots=True)
class Published:
    """A file as its authors publish it."""

    path: str  # below the data folder
    url: str
    sha256: str


def unseen(name: str, done: int, total: int) -> None:
    """Nobody looks on."""


def download(published: Published, to: Path, on_bytes: OnBytes = unseen) -> None:
    """Put the file at `to`, where nothing ever is but the whole of it.

    What came before a break stays beside it as `.part` and is not fetched again. Raises DataError.
    """
    part = to.with_name(f"{to.name}.part")
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        _transfer(published.url, part, lambda done, total: on_bytes(to.name, done, total))
    except (OSError, http.client.HTTPException) as error:
        raise DataError(
            f"cannot download {published.url}: {_reason(error)}; run the same command again to go on, or put "
            f"{to.name} in {to.parent}"
        ) from None
    with part.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != published.sha256:
        part.unlink()
        raise DataError(
            f"{published.url} gave another file than the published one (SHA-256 {digest}); it was removed: "
            f"run the same command again, or put {to.name} in {to.parent}"
        )
    part.replace(to)


def _transfer(url: str, part: Path, on_bytes: Callable[[int, int], None]) -> None:
    have = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": f"lrwd-sweep/{__version__}"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        answer = urlopen(Request(url, headers=headers), timeout=_SECONDS)  # addresses are constants
    except HTTPError as error:
        error.close()
        if have and error.code == _NOTHING_LEFT:
            return
        raise
    with answer:
        resumed = answer.status == http.client.PARTIAL_CONTENT
        done = have if resumed else 0
        total = done + answer.length if answer.length else 0
        with part.open("ab" if resumed else "wb") as file:
            while block := answer.read(_BLOCK):
                file.write(block)
                done += len(block)
                on_bytes(done, total)
    if done < total:
        raise ConnectionError(f"it broke off after {done:,} of {total:,} bytes")


def _reason(error: Exception) -> str:
    """Why, in the words of whoever knows."""
    if isinstance(error, HTTPError):
        return f"the server answered {error.code} {error.reason}"
    cause = error.reason if isinstance(error, URLError) else error
    return (isinstance(cause, OSError) and cause.strerror) or str(cause) or type(error).__name__
