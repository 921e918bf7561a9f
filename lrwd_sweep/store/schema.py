"""The tables, made by migrations, and the checksums by which a damaged row is noticed.

The first n migrations make schema version n. A released migration or checksum never changes: later versions
read the stores that hold it.
"""

import itertools
import struct
from collections.abc import Callable, Iterable
from hashlib import blake2b
from itertools import groupby

from sqlalchemy import Connection, inspect

from lrwd_sweep.errors import StoreError, arg

_DAMAGED = f"is damaged; restore it from a copy, or choose another file with {arg('storage')}"
_WRAP = 1 << 64
_SIGNED = struct.Struct("<q")
_TRIAL = struct.Struct("<4q2q2d2q")  # lengths of the texts, then the numbers


class Unreadable(StoreError):
    """A study that this version cannot interpret; other studies can be read."""


class Damaged(StoreError):
    """A stored value that differs from what was written; the text names it and the remedy."""


def study_checksum(key: int, lanes: int, lanes_checksum: int, *texts: bytes) -> int:
    """Return the checksum of a row of `studies`; the texts are name, spec, created and version."""
    return _checksum(struct.pack("<3q", key, lanes, lanes_checksum), *texts)


def trial_checksum(
    key: int,
    study: int,
    lr: float,
    weight_decay: float,
    seed: int,
    curves: int,
    status: bytes,
    metrics: bytes,
    detail: bytes,
    snapshots: bytes,
) -> int:
    """Return the checksum of a row of `trials`: `_checksum`, written out for stores of many lanes."""
    lengths = len(status), len(metrics), len(detail), len(snapshots)
    numbers = _TRIAL.pack(*lengths, key, study, lr, weight_decay, seed, curves)
    whole = numbers + status + metrics + detail + snapshots
    found: int = _SIGNED.unpack(blake2b(whole, digest_size=8).digest())[0]
    return found


def curves_checksum(curves: Iterable[tuple[bytes, bytes]]) -> int:
    """Return the checksum of a trial's curves, each a name and its values, in the order of their names."""
    return _checksum(b"", *itertools.chain.from_iterable(sorted(curves)))


def comparison_checksum(key: int, names: bytes) -> int:
    """Return the checksum of a row of `comparisons`."""
    return _checksum(struct.pack("<q", key), names)


def checksum_sum(checksums: Iterable[int]) -> int:
    """Add a study's trial checksums modulo 2⁶⁴, so that their order does not matter."""
    return (sum(checksums) + _WRAP // 2) % _WRAP - _WRAP // 2


def _checksum(numbers: bytes, *texts: bytes) -> int:
    """Return 64 bits of BLAKE2b over packed numbers and texts, each with its length, as a signed integer."""
    whole = b"".join((struct.pack(f"<{len(texts)}q", *map(len, texts)), numbers, *texts))
    return int.from_bytes(blake2b(whole, digest_size=8).digest(), "little", signed=True)


def m001_initial(connection: Connection) -> None:
    """Create studies, trials, curves and comparisons.

    α and λ are canonical doubles, which SQLite keeps and compares bit by bit; ids ascend in the order of
    storing; a curve is float64, little-endian, one per epoch. A comparison holds the studies that one command
    worked on together.
    """
    for statement in (
        """CREATE TABLE studies (
            id INTEGER NOT NULL PRIMARY KEY,
            name VARCHAR NOT NULL UNIQUE,
            spec JSON NOT NULL,
            created VARCHAR NOT NULL
        )""",
        """CREATE TABLE trials (
            id INTEGER NOT NULL PRIMARY KEY,
            study_id INTEGER NOT NULL,
            lr DOUBLE NOT NULL,
            weight_decay DOUBLE NOT NULL,
            seed INTEGER NOT NULL,
            status VARCHAR NOT NULL,
            metrics JSON NOT NULL,
            detail VARCHAR NOT NULL,
            FOREIGN KEY (study_id) REFERENCES studies (id) ON DELETE CASCADE,
            CONSTRAINT one_trial_per_lane UNIQUE (study_id, lr, weight_decay, seed),
            CONSTRAINT positive_lr CHECK (lr > 0),
            CONSTRAINT no_negative_weight_decay CHECK (weight_decay >= 0),
            CONSTRAINT known_status CHECK (status IN ('complete', 'diverged', 'failed'))
        )""",
        """CREATE TABLE curves (
            trial_id INTEGER NOT NULL,
            name VARCHAR NOT NULL,
            "values" BLOB NOT NULL,
            PRIMARY KEY (trial_id, name),
            FOREIGN KEY (trial_id) REFERENCES trials (id) ON DELETE CASCADE
        )""",
        """CREATE TABLE comparisons (
            id INTEGER NOT NULL PRIMARY KEY,
            names JSON NOT NULL
        )""",
    ):
        connection.exec_driver_sql(statement)


def m002_snapshots(connection: Connection) -> None:
    """Add the metrics at every warm restart, by epoch."""
    connection.exec_driver_sql("ALTER TABLE trials ADD COLUMN snapshots JSON NOT NULL DEFAULT '{}'")


def m003_checksums(connection: Connection) -> None:
    """Add a checksum for every stored value, and the version that created a study."""
    for table, column in (
        ("studies", "version VARCHAR NOT NULL DEFAULT ''"),
        ("studies", "lanes INTEGER NOT NULL DEFAULT 0"),
        ("studies", "lanes_checksum BIGINT NOT NULL DEFAULT 0"),
        ("studies", "checksum BIGINT NOT NULL DEFAULT 0"),
        ("trials", "curves_checksum BIGINT NOT NULL DEFAULT 0"),
        ("trials", "checksum BIGINT NOT NULL DEFAULT 0"),
        ("comparisons", "checksum BIGINT NOT NULL DEFAULT 0"),
    ):
        connection.exec_driver_sql(f"ALTER TABLE {table} ADD COLUMN {column}")
    try:
        _add_checksums(connection)
    except (TypeError, struct.error):  # a value has the wrong type for its column
        raise StoreError(_DAMAGED) from None


def _add_checksums(connection: Connection) -> None:
    read = connection.exec_driver_sql
    curves = read('SELECT trial_id, CAST(name AS BLOB), CAST("values" AS BLOB) FROM curves ORDER BY trial_id')
    by_trial = {
        trial: curves_checksum((name, values) for _, name, values in found)
        for trial, found in groupby(curves, key=lambda row: row[0])
    }
    without = curves_checksum([])
    lanes: dict[int, list[int]] = {}
    trials = []
    for key, study, lr, weight_decay, seed, *texts in read(
        """SELECT id, study_id, lr, weight_decay, seed, CAST(status AS BLOB), CAST(metrics AS BLOB),
            CAST(detail AS BLOB), CAST(snapshots AS BLOB) FROM trials ORDER BY id"""
    ):
        curve = by_trial.get(key, without)
        trials.append((curve, trial_checksum(key, study, lr, weight_decay, seed, curve, *texts), key))
        lanes.setdefault(study, []).append(trials[-1][1])
    studies = []
    for key, *texts in read(
        "SELECT id, CAST(name AS BLOB), CAST(spec AS BLOB), CAST(created AS BLOB) FROM studies"
    ):
        mine = lanes.get(key, [])
        whole = checksum_sum(mine)
        studies.append((len(mine), whole, study_checksum(key, len(mine), whole, *texts, b""), key))
    comparisons = [
        (comparison_checksum(key, names), key)
        for key, names in read("SELECT id, CAST(names AS BLOB) FROM comparisons")
    ]
    for statement, rows in (
        ("UPDATE trials SET curves_checksum = ?, checksum = ? WHERE id = ?", trials),
        ("UPDATE studies SET lanes = ?, lanes_checksum = ?, checksum = ? WHERE id = ?", studies),
        ("UPDATE comparisons SET checksum = ? WHERE id = ?", comparisons),
    ):
        if rows:
            connection.exec_driver_sql(statement, rows)


def m004_drivers(connection: Connection) -> None:
    """Add the process that trains or last trained a study, and the time that its training took.

    Neither has a checksum, as no result depends on it.
    """
    connection.exec_driver_sql("ALTER TABLE studies ADD COLUMN seconds DOUBLE NOT NULL DEFAULT 0")
    connection.exec_driver_sql(
        """CREATE TABLE drivers (
            study_id INTEGER NOT NULL PRIMARY KEY,
            host VARCHAR NOT NULL,
            pid INTEGER NOT NULL,
            boot VARCHAR NOT NULL,
            started BIGINT NOT NULL,
            since VARCHAR NOT NULL,
            seen DOUBLE NOT NULL,
            FOREIGN KEY (study_id) REFERENCES studies (id) ON DELETE CASCADE
        )"""
    )


MIGRATIONS: list[Callable[[Connection], None]] = [m001_initial, m002_snapshots, m003_checksums, m004_drivers]


def schema_version(connection: Connection) -> int:
    """Return the number of migrations that were applied to the database; 0 if it is empty.

    Raises StoreError if another program or a newer version of this one made it.
    """
    tables = inspect(connection).get_table_names()
    if not tables:
        return 0
    if "lrwd_sweep_schema" not in tables:
        raise StoreError(f"is the database of another program; choose another file with {arg('storage')}")
    version = connection.exec_driver_sql("SELECT max(version) FROM lrwd_sweep_schema").scalar_one()
    if not isinstance(version, int):
        raise StoreError(_DAMAGED)
    if version > len(MIGRATIONS):
        raise StoreError(
            f"has schema version {version} of a newer lrwd-sweep; this version knows {len(MIGRATIONS)}; "
            f"upgrade lrwd-sweep, or choose another file with {arg('storage')}"
        )
    return version


def migrate(connection: Connection) -> None:
    """Migrate the database to the newest schema within the caller's transaction."""
    version = schema_version(connection)
    if version == 0:
        connection.exec_driver_sql("CREATE TABLE lrwd_sweep_schema (version INTEGER NOT NULL PRIMARY KEY)")
    for number, step in enumerate(MIGRATIONS[version:], start=version + 1):
        step(connection)
        connection.exec_driver_sql("INSERT INTO lrwd_sweep_schema VALUES (?)", (number,))
