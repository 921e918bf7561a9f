"""The schema as numbered steps: version n is what the first n make. A released step never changes."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Connection, inspect

from lrwd_sweep.errors import StoreError

Migration = Callable[[Connection], None]

MIGRATIONS: list[Migration] = []


def migration(step: Migration) -> Migration:
    """Append `step` to MIGRATIONS."""
    MIGRATIONS.append(step)
    return step


@migration
def m001_initial(connection: Connection) -> None:
    """Studies, trials, curves, comparisons."""
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


@migration
def m002_snapshots(connection: Connection) -> None:
    """Metrics at every warm restart, by epoch."""
    connection.exec_driver_sql("ALTER TABLE trials ADD COLUMN snapshots JSON NOT NULL DEFAULT '{}'")


def schema_version(connection: Connection) -> int:
    """How many migrations this database has seen; 0 for an empty one.

    Raises StoreError when it belongs to another program or to a newer version of this one.
    """
    tables = inspect(connection).get_table_names()
    if not tables:
        return 0
    if "lrwd_sweep_schema" not in tables:
        raise StoreError("is the database of another program; choose another file with --storage")
    version = connection.exec_driver_sql("SELECT max(version) FROM lrwd_sweep_schema").scalar_one()
    if not isinstance(version, int):
        raise StoreError("is damaged; restore it from a copy, or choose another file with --storage")
    if version > len(MIGRATIONS):
        raise StoreError(
            f"has schema version {version} of a newer lrwd-sweep, this one knows {len(MIGRATIONS)}; "
            "upgrade lrwd-sweep, or choose another file with --storage"
        )
    return version


def migrate(connection: Connection) -> None:
    """Bring the database to the newest schema, inside the caller's transaction."""
    version = schema_version(connection)
    if version == 0:
        connection.exec_driver_sql("CREATE TABLE lrwd_sweep_schema (version INTEGER NOT NULL PRIMARY KEY)")
    for number, step in enumerate(MIGRATIONS[version:], start=version + 1):
        step(connection)
        connection.exec_driver_sql("INSERT INTO lrwd_sweep_schema VALUES (?)", (number,))
