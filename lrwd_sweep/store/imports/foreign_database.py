"""A database of another program, opened for reading only: a file of SQLite, or a URL of SQLAlchemy."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import Connection, Engine, create_engine, inspect, make_url, text
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from lrwd_sweep.errors import UsageError, brief

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_MAGIC = b"SQLite format 3\0"

Rows = Callable[[str], list[Any]]  # an SQL query → its rows


def is_url(name: str) -> bool:
    """Return whether a source is a URL, of a database or another."""
    return _URL.match(name) is not None


def is_sqlite(path: Path) -> bool:
    """Return whether a file is a database of SQLite."""
    try:
        with path.open("rb") as file:
            return file.read(len(_MAGIC)) == _MAGIC
    except OSError:
        return False


def tables_of(name: str) -> set[str]:
    """Return the names of a database's tables. Raises UsageError."""
    with _connected(name) as connection:
        return set(inspect(connection).get_table_names())


@contextmanager
def queries(name: str) -> Iterator[Rows]:
    """Yield a function that runs queries on a database. Raises UsageError."""
    with _connected(name) as connection:
        yield lambda query: list(connection.execute(text(query)).all())


def shown_name(name: str) -> str:
    """Return a source's name without its password."""
    try:
        return make_url(name).render_as_string(hide_password=True) if is_url(name) else name
    except ArgumentError:
        return name.partition("://")[0] + "://…"


@contextmanager
def _connected(name: str) -> Iterator[Connection]:
    path = _path_of(name)
    try:
        engine = _of_file(path) if path is not None else create_engine(name, poolclass=NullPool)
        with engine.connect() as connection:
            yield connection
    except ArgumentError:
        raise UsageError(
            f"{shown_name(name)!r} is not the URL of a database; write sqlite:///FILE.db or a path"
        ) from None
    except ModuleNotFoundError as error:
        raise UsageError(f"{shown_name(name)}: {error}; install the driver of this database") from None
    except (SQLAlchemyError, sqlite3.Error) as error:
        reason = brief(getattr(error, "orig", None) or error)
        raise UsageError(f"{shown_name(name)} cannot be read: {reason}; check the database") from None


def _path_of(name: str) -> Path | None:
    """Return the file of an SQLite database; None for one of a server."""
    if not is_url(name):
        return Path(name)
    url = make_url(name)
    if not url.drivername.startswith("sqlite"):
        return None
    if not url.database or url.database == ":memory:":
        raise UsageError(f"{name!r} names no file; write sqlite:///FILE.db (three slashes)")
    return Path(url.database)


def _of_file(path: Path) -> Engine:
    if not path.is_file():
        raise UsageError(f"{path}: there is no such file; name a database that exists")
    if not is_sqlite(path):
        raise UsageError(f"{path} is not a database of SQLite; name another file")
    uri = f"file:{quote(str(path.absolute()))}?mode=ro"
    return create_engine("sqlite://", creator=lambda: sqlite3.connect(uri, uri=True), poolclass=NullPool)
