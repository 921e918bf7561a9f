"""The SQLite file: find it, open it, and explain its errors."""

import itertools
import logging
import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote, unquote

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.pool import ConnectionPoolEntry, StaticPool

from lrwd_sweep.errors import NothingToReport, StoreError, arg, brief
from lrwd_sweep.spec.job import Shard
from lrwd_sweep.store.schema import MIGRATIONS, Damaged, Unreadable, migrate, schema_version

DEFAULT_FILE = "lrwd-sweep.db"
VARIABLE = "LRWD_STORAGE"
BUSY_SECONDS = 30.0

IMMEDIATE = {"begin": "BEGIN IMMEDIATE"}  # execution option of a write: take the lock before reading

_log = logging.getLogger(__name__)

_WRITE = "write sqlite:///FILE.db (three slashes) or a path such as runs/a.db"
_SCHEME = re.compile(r"\s*(?P<name>[A-Za-z][A-Za-z0-9+.-]+):/")  # one letter is a Windows drive
# Matches user and password in a URL that lost its scheme or slashes, or in connection settings.
_SECRET = re.compile(
    r"^[\s'\"/]*(?:[^/]*:[^/]*(?:@|:/)|[^/]*@[^/]*:\d)|:/+[^/]*@"
    r"|//[^/]*:[^/]*@|/[^/]*@[^/]*:\d"
    r"|(?:^|[?&;,\s])(?:user(?:name)?|pass(?:word|wd)?|pwd|token|secret)\s*="
    r"|[?&;][^=&;]*(?:key|auth|token|pass|secret)[^=&;]*=",
    re.IGNORECASE,
)
_ANOTHER = f"choose another file with {arg('storage')}"
_RESTORE = f"restore it from a copy, or {_ANOTHER}"
_NETWORK = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "lustre", "gpfs", "beegfs", "ceph", "glusterfs", "afs", "9p"}
    | {"sshfs", "s3fs", "rclone", "gcsfuse", "davfs"}
)
_OCTAL = re.compile(r"\\(\d{3})")  # a space in a mount point is \040
_SMALL_TABLES = ("lrwd_sweep_schema", "studies", "comparisons")  # checked page by page when opened

MOVED = (
    "was deleted, renamed or replaced while it was open; move it back, or repeat the command to begin anew"
)

_MEANING = {  # by the beginning of SQLite's error name
    "SQLITE_BUSY": "is locked by another process; wait until that one has finished, then repeat the command",
    "SQLITE_NOTADB": f"is not an SQLite database; {_ANOTHER}",
    "SQLITE_CORRUPT": f"is damaged; {_RESTORE}",
    "SQLITE_READONLY_ROLLBACK": "holds an interrupted write; open it once where it can be written",
    "SQLITE_READONLY_DBMOVED": MOVED,
    "SQLITE_READONLY": f"cannot be written; make it writable, or {_ANOTHER}",
    "SQLITE_CANTOPEN": f"cannot be opened; check its permissions, or {_ANOTHER}",
    "SQLITE_IOERR": f"met a disk I/O error; check the disk, or {_ANOTHER}",
    "SQLITE_FULL": "cannot grow: the disk is full; free space, then repeat the command to continue",
}


def locate(url: str | None) -> Path:
    """Return the file named by `storage`, else LRWD_STORAGE, else the default: a path or `sqlite:///PATH`.

    Raises StoreError for another scheme, or if no file is named. Text that may hold a password is not shown.
    """
    text = (os.environ.get(VARIABLE) or DEFAULT_FILE) if url is None else url
    given = VARIABLE if url is None else arg("storage")
    plain = unquote(unquote(text))  # it may be percent-encoded
    path = text
    if scheme := _SCHEME.match(plain):
        if scheme["name"].lower() not in ("sqlite", "sqlite+pysqlite"):
            raise StoreError(f"storage scheme {scheme['name']!r} is not known; {_WRITE}")
        path = _path_of(text, given)
    elif not text.strip() or text == ":memory:":
        raise StoreError(f"{given} {text!r} names no file; {_WRITE}")
    elif "://" in plain:
        raise StoreError(f"{given} names no file; {_WRITE}")
    if _SECRET.search(unquote(unquote(path))):
        raise StoreError(f"{given} holds a user or a password and names no file; {_WRITE}")
    return Path(path).expanduser()


def shard_file(shard: Shard) -> str:
    """Return the default file with the shard in its name, as in `lrwd-sweep-3of8.db`. Raises StoreError."""
    path = locate(None)
    return str(path.with_name(f"{path.stem}-{shard.part}of{shard.parts}{path.suffix}"))


def _path_of(url: str, given: str) -> str:
    """Return the file of an SQLite URL. Raises StoreError."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise StoreError(f"{given} is not the URL of a file; {_WRITE}") from None
    beside = (parsed.host, parsed.username, parsed.password, parsed.query)
    if parsed.database in (None, "", ":memory:") or any(beside):
        raise StoreError(f"{given} names more than a file; {_WRITE}")
    return str(parsed.database)


class Inaccessible(StoreError):
    """A store whose file cannot be read or written now; what was to be stored is not."""


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn database errors into a one-line StoreError that names the file and the remedy."""
    try:
        yield
    except (Damaged, Unreadable) as error:
        raise type(error)(f"store {str(path)!r}: {error.text}") from None
    except UnicodeDecodeError as error:  # SQLite quotes what is damaged
        raise StoreError(f"store {str(path)!r} {_MEANING['SQLITE_CORRUPT']}") from error
    except (DBAPIError, sqlite3.Error) as error:
        cause = _first(error)
        name = getattr(cause, "sqlite_errorname", "")
        meaning = next((text for start, text in _MEANING.items() if name.startswith(start)), None)
        text = meaning or f"failed: {brief(cause)}; {_RESTORE}"
        raise Inaccessible(f"store {str(path)!r} {text}") from error


def _first(error: BaseException) -> BaseException:
    """Return the first error of a chain: if SQLite rolls a write back itself, our rollback fails too."""
    while isinstance(error.__context__, DBAPIError | sqlite3.Error):
        error = error.__context__
    return error


def check_writable(url: str | None) -> Path:
    """Return the file that `open_database` would write. Raises StoreError if it could not; writes nothing."""
    path = locate(url)
    _check_place(path, url, write=True)
    return path


def open_database(url: str | None, *, write: bool) -> tuple[Path, Engine]:
    """Return the file and an engine on it at the newest schema; only `write` creates the file.

    Raises StoreError if it cannot be opened (or written, if asked), and NothingToReport if it is to be read
    but the default file does not exist, or the file is empty.
    """
    path = locate(url)
    _check_place(path, url, write=write)
    if write and (network := network_file_system(path)):
        _log.warning(
            "store %r lies on %s, where locks of SQLite may fail; use it from one machine at a time, or put "
            "it on a local disk",
            *(str(path), network),
        )
    engine = _engine(path, write=write)
    current = None
    try:
        with explained(path):
            current = _at_newest_schema(path, engine, write=write)
    finally:
        if current is not engine:
            engine.dispose()
    return path, current


def _check_place(path: Path, url: str | None, *, write: bool) -> None:
    directory = path.parent
    try:
        path.resolve()
    except (OSError, RuntimeError):
        raise StoreError(f"store {str(path)!r} is a link to itself; choose another file") from None
    if not directory.is_dir():
        raise StoreError(f"store {str(path)!r}: there is no directory {str(directory)!r}; create it first")
    if path.is_dir():
        raise StoreError(f"store {str(path)!r} is a directory; name a file in it, such as {DEFAULT_FILE}")
    # SQLite would notice only when the first pack is stored; its journal is created beside the file.
    if write and path.exists() and not os.access(path, os.W_OK):
        raise StoreError(f"store {str(path)!r} {_MEANING['SQLITE_READONLY']}")
    if write and not os.access(directory, os.W_OK):
        raise StoreError(f"store {str(path)!r}: its directory cannot be written; {_ANOTHER}")
    if not write and not path.exists():
        if url is None and not os.environ.get(VARIABLE):
            raise NothingToReport(
                f"there is no {DEFAULT_FILE} here yet; run lrwd-sweep compare, or name a store with "
                f"{arg('storage')}"
            )
        raise StoreError(f"store {str(path)!r} does not exist; check {arg('storage')} and {VARIABLE}")


def _place(path: Path) -> str:
    return f"file:{quote(str(path.resolve()))}"


def _engine(path: Path, *, write: bool) -> Engine:
    mode = "rwc" if write else "rw"  # SQLite opens a write-protected file under "rw" too, for reading
    url = URL.create("sqlite", database=_place(path), query={"mode": mode, "uri": "true"})
    engine = create_engine(url, connect_args={"timeout": BUSY_SECONDS})

    @event.listens_for(engine, "connect")
    def _set_up(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
        connection.isolation_level = None  # else the driver begins transactions by its own rules
        pragmas = ["foreign_keys = ON"]
        pragmas += ["journal_mode = DELETE", "synchronous = EXTRA"] if write else ["query_only = ON"]
        for pragma in pragmas:
            connection.cursor().execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql(connection.get_execution_options().get("begin", "BEGIN"))

    return engine


def _at_newest_schema(path: Path, engine: Engine, *, write: bool) -> Engine:
    """Return `engine`, migrated if it may write; to read an old schema, one on a migrated copy in memory."""
    try:
        if write:
            with engine.execution_options(**IMMEDIATE).begin() as connection:
                version = schema_version(connection)
                _check_small_tables(connection, version)
                if 0 < version < len(MIGRATIONS):
                    _keep_copy(path, connection, version)
                migrate(connection)
            return engine
        with engine.connect() as connection:
            version = schema_version(connection)
            if version == 0:
                raise NothingToReport(f"store {str(path)!r} is empty; run lrwd-sweep compare first")
            _check_small_tables(connection, version)
            return engine if version == len(MIGRATIONS) else _migrated_copy(connection)
    except StoreError as error:
        raise StoreError(f"store {str(path)!r} {error.text}") from None


def _check_small_tables(connection: Connection, version: int) -> None:
    """Raise StoreError if a small table has lost rows, which row checksums do not show."""
    for table in _SMALL_TABLES if version else ():
        found = connection.exec_driver_sql(f"PRAGMA quick_check({table})").scalars().all()
        if found != ["ok"]:
            raise StoreError(_MEANING["SQLITE_CORRUPT"])


def _keep_copy(path: Path, connection: Connection, version: int) -> None:
    """Back up the store beside itself before it is migrated. The caller holds the write lock."""
    if connection.exec_driver_sql("PRAGMA quick_check").scalars().all() != ["ok"]:
        raise StoreError(_MEANING["SQLITE_CORRUPT"])  # migration would give checksums to damaged rows
    stem = f"{path.resolve()}.schema{version}.backup"
    names = itertools.chain([stem], (f"{stem}{n}" for n in itertools.count(2)))
    kept = next(Path(name) for name in names if not os.path.lexists(name))
    draft = Path(f"{stem}.part")  # an interrupted copy must not look complete
    draft.unlink(missing_ok=True)
    try:
        # A separate connection, because one in a write transaction cannot be copied from.
        with (
            closing(sqlite3.connect(f"{_place(path)}?mode=ro", uri=True)) as source,
            closing(sqlite3.connect(draft)) as copy,
        ):
            source.backup(copy)
        draft.rename(kept)
    finally:
        draft.unlink(missing_ok=True)
    _log.warning(
        "store %r is migrated from schema %d to %d; a backup of the old one is %r",
        *(str(path), version, len(MIGRATIONS), str(kept)),
    )


def _migrated_copy(source: Connection) -> Engine:
    copy = create_engine("sqlite://", poolclass=StaticPool)
    with copy.begin() as target:
        original, memory = source.connection.driver_connection, target.connection.driver_connection
        assert isinstance(original, sqlite3.Connection)
        assert isinstance(memory, sqlite3.Connection)
        original.backup(memory)
        migrate(target)
    return copy


def identity(path: Path) -> tuple[int, int] | None:
    """Return what tells a file from another of the same name; None without one."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def check_same(path: Path, known: tuple[int, int] | None) -> None:
    """Raise Inaccessible if a path names another file by now; a new connection would create one."""
    if identity(path) != known:
        raise Inaccessible(f"store {str(path)!r} {MOVED}")


def copy_to(path: Path, engine: Engine) -> None:
    """Copy a database by an open connection, which reads its file even if that was deleted."""
    with closing(sqlite3.connect(path)) as copy, engine.connect() as connection:
        opened = connection.connection.driver_connection
        assert isinstance(opened, sqlite3.Connection)
        opened.backup(copy)


def network_file_system(path: Path, mounts: Path = Path("/proc/self/mountinfo")) -> str:
    """Return the type of the file system that holds a path if other machines share it, else nothing."""
    try:
        lines = os.fsdecode(mounts.read_bytes()).splitlines()
    except OSError:  # another system
        return ""
    place, deepest, kind = path.resolve(), 0, ""
    for line in lines:
        fields, _, rest = line.partition(" - ")
        point = _OCTAL.sub(lambda code: chr(int(code[1], 8)), fields.split()[4])
        if place.is_relative_to(point) and len(Path(point).parts) >= deepest:  # the last covers others
            deepest, kind = len(Path(point).parts), rest.split()[0]
    return kind if kind.removeprefix("fuse.") in _NETWORK else ""
