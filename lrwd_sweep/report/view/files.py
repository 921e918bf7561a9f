"""Files that are written: whole, or not there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from lrwd_sweep.errors import UsageError

_SQLITE = b"SQLite format 3\0"  # how its files begin


@contextmanager
def replaced(path: Path, option: str = "--output") -> Iterator[Path]:
    """A file of the same name in a folder beside `path`, which becomes `path` when the block ends well.

    What is there and no ordinary file (a pipe, /dev/null) is written as it is. Raises UsageError, naming the
    option, where nothing can be written, but BrokenPipeError where nobody reads any more.
    """
    try:
        if path.exists() and not path.is_file():
            yield path
            return
        target = path.resolve()  # a link stays a link
        if _is_database(target):
            raise UsageError(f"{option} {path} is a database, perhaps a store; name another file")
        with TemporaryDirectory(dir=target.parent, prefix=".lrwd-sweep-") as folder:
            temporary = Path(folder) / target.name
            yield temporary
            temporary.replace(target)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise UsageError(f"{option} {path}: {error.strerror}; name a file that can be written") from None


def _is_database(path: Path) -> bool:
    """Whether a file that is there would be the loss of somebody's trials."""
    if not path.exists():
        return False
    with path.open("rb") as file:
        return file.read(len(_SQLITE)) == _SQLITE


def write_file(path: Path, text: str, option: str = "--output") -> None:
    """Write text as UTF-8. Raises UsageError where it cannot be written."""
    with replaced(path, option) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")
