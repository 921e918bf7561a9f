"""Ways to damage a store, and to make one look as another program would have written it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from lrwd_sweep.store import Store, open_store
from lrwd_sweep.store import studies as rows


def execute(path: Path, *statements: str) -> None:
    """Change a store behind its back."""
    connection = sqlite3.connect(path, isolation_level=None)
    for statement in statements:
        connection.execute(statement)
    connection.close()


def flip(path: Path, bit: int) -> None:
    """Turn one bit of a file around."""
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << (bit % 8)
    path.write_bytes(content)


def rewrite_spec(path: Path, name: str, change: Callable[[dict[str, Any]], object]) -> None:
    """Give a study another specification, whatever it says, and the checksum that belongs to it."""
    with open_store(str(path), write=True) as store:
        rewrite_spec_in(store, name, change)


def rewrite_spec_in(store: Store, name: str, change: Callable[[dict[str, Any]], object]) -> None:
    """The same in an open store."""
    with store._writing() as session:
        row = rows.get_row(session, name)
        spec = json.loads(row.spec)
        change(spec)
        rows.update_study(session, replace(row, spec=json.dumps(spec).encode()))
