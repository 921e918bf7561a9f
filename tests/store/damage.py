"""Damage a store, or make it look as if another program wrote it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from lrwd_sweep.store import Store, open_store
from lrwd_sweep.store import studies as rows


def execute(path: Path, *statements: str) -> None:
    """Run SQL on a store's file."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


def rewrite_spec(path: Path, name: str, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the specification of a study, with the checksum that belongs to it."""
    with open_store(str(path), write=True) as store:
        rewrite_spec_in(store, name, change)


def rewrite_spec_in(store: Store, name: str, change: Callable[[dict[str, Any]], object]) -> None:
    """Do the same in an open store."""
    with store._writing() as session:
        row = rows.get_row(session, name)
        spec = json.loads(row.spec)
        change(spec)
        rows.update_study(session, replace(row, spec=json.dumps(spec).encode()))
