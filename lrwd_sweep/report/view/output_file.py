"""Output files: the formats of a report by name, and writing a file whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryDirectory

from lrwd_sweep.errors import UsageError

_SQLITE = b"SQLite format 3\0"  # first bytes of a database file


class Format(StrEnum):
    """The formats of a report; all but the table are text for a file or another program."""

    TABLE = "table"
    MARKDOWN = "markdown"
    JSON = "json"
    CSV = "csv"
    JUNIT = "junit"
    HTML = "html"


@contextmanager
def replaced(path: Path, option: str = "--output") -> Iterator[Path]:
    """Yield a temporary file beside `path` that replaces it when the block succeeds.

    A path that is not a regular file (a pipe, /dev/null) is written directly. Raises UsageError, naming the
    option, if the path cannot be written, but BrokenPipeError if a pipe's reader has gone.
    """
    try:
        if path.exists() and not path.is_file():
            yield path
            return
        target = path.resolve()  # keeps a symbolic link
        if target.exists():
            with target.open("rb") as file:
                if file.read(len(_SQLITE)) == _SQLITE:
                    raise UsageError(f"{option} {path} is a database, perhaps a store; name another file")
        with TemporaryDirectory(dir=target.parent, prefix=".lrwd-sweep-") as folder:
            temporary = Path(folder) / target.name
            yield temporary
            temporary.replace(target)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise UsageError(f"{option} {path}: {error.strerror}; name a file that can be written") from None


def write_file(path: Path, text: str, option: str = "--output") -> None:
    """Write text as UTF-8. Raises UsageError if the path cannot be written."""
    with replaced(path, option) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")
