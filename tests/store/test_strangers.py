"""A store may be a stranger's: nothing that it names is looked at, and one odd study hides no other."""

from __future__ import annotations

import json
import os
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lrwd_sweep.errors import StoreError
from lrwd_sweep.report.result import read_results
from lrwd_sweep.report.view.report import Format, render, text_of
from lrwd_sweep.store import open_store
from lrwd_sweep.store import studies as rows
from lrwd_sweep.store.checksums import Unreadable
from tests.store.damage import rewrite_spec
from tests.store.sample import lattice_trials, spec

MARK = "somewhere-of-a-stranger"

_watching: list[list[str]] = []


def _audit(event: str, arguments: tuple[object, ...]) -> None:
    for seen in _watching:
        if event.startswith(("open", "os.", "import", "glob.", "pathlib.", "shutil.")) and MARK in repr(
            arguments
        ):
            seen.append(f"{event} {arguments!r}")


sys.addaudithook(_audit)


@contextmanager
def nothing_looked_at(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail when a path with MARK in it is opened, listed or asked about."""
    seen: list[str] = []
    with monkeypatch.context() as patch:
        for name in ("stat", "lstat", "access", "readlink"):
            patch.setattr(f"os.{name}", _noting(name, seen))
        _watching.append(seen)
        try:
            yield
        finally:
            _watching.remove(seen)
    assert not seen


def _noting(name: str, seen: list[str]) -> Any:
    original = getattr(os, name)

    def noting(path: Any, *rest: Any, **options: Any) -> Any:
        if MARK in str(path):
            seen.append(f"{name} {path!r}")
        return original(path, *rest, **options)

    return noting


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store of two studies; beside it an image folder and a file of code that exist."""
    for split in ("train", "validation", "test"):
        for label in ("a", "b"):
            folder = tmp_path / MARK / split / label
            folder.mkdir(parents=True)
            (folder / "1.png").touch()
    (tmp_path / MARK / "code.py").write_text("raise SystemExit")
    path = tmp_path / "a.db"
    with open_store(str(path), write=True) as store:
        for name in ("good", "odd"):
            store.begin_study(name, spec())
            store.add_trials(name, lattice_trials(spec()))
    return path


SIZES = {"train": 4, "validation": 2, "test": 2, "classes": 2, "shape": [3, 32, 32]}


@pytest.mark.parametrize(
    ("task", "readable"),
    [
        ({"data": "folder:{here}"}, False),
        ({"data": "folder:{here}@16"}, False),
        ({"data": "folder:{here}", "sizes": None}, False),
        ({"data": "folder:{here}", "sizes": {}}, False),
        ({"data": "folder:{here}", "batch_size": 2, "sizes": SIZES}, True),
        ({"data": "{here}/code.py:data"}, False),
        ({"data": "{here}/code.py:data", "batch_size": 2, "sizes": SIZES}, True),
        ({"net": "{here}/code.py:Net"}, True),
        ({"net": "{here}/code.py:Net", "code": {"--net": "0123"}}, True),
        ({"loss": "{here}/code.py:loss"}, True),
        ({"net": "torchvision:{here}"}, True),
        ({"net": "{here}"}, False),
        ({"data": "{here}"}, False),
        ({"data": ["{here}"]}, False),
        ({"data_dir": "{here}"}, False),
    ],
)
def test_reading_looks_at_no_path_that_a_study_names(
    path: Path, task: dict[str, Any], readable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = str(path.parent / MARK)
    named = json.loads(json.dumps(task).replace("{here}", here))
    rewrite_spec(path, "odd", lambda found: found["training"].update(named))
    with nothing_looked_at(monkeypatch), open_store(str(path), write=False) as store:
        good, odd = store.studies()
        assert store.latest() == ["odd"]
        assert len(read_results(store, ["good"])[0]) == 1
        if readable:
            for form in Format:
                assert text_of(render(*read_results(store, ["odd"], curves=True), form, []))
        else:
            with pytest.raises(Unreadable, match=r"study 'odd' has a specification .* study delete 'odd'"):
                store.get_study("odd")
    assert (good.unreadable, good.counts["cells"]) == ("", 4)
    assert (odd.name, bool(odd.unreadable), odd.damaged) == ("odd", not readable, False)


@pytest.mark.parametrize("text", ["[]", "3", "{}", "[[[", '{"kind": "grid"}', "[" * 100_000])
def test_any_specification_is_told_in_one_line(path: Path, text: str) -> None:
    with open_store(str(path), write=True) as store, store._writing() as session:
        rows.update_study(session, replace(rows.get_row(session, "odd"), spec=text.encode()))
    with open_store(str(path), write=False) as store:
        with pytest.raises(StoreError) as refusal:
            store.get_study("odd")
        assert "\n" not in str(refusal.value)
        assert len(str(refusal.value)) < 600
        assert [bool(summary.unreadable) for summary in store.studies()] == [False, True]


def test_seeds_that_are_no_numbers_make_a_study_unreadable(path: Path) -> None:
    rewrite_spec(path, "odd", lambda found: found.update(seeds=["a"]))
    with open_store(str(path), write=False) as store:
        with pytest.raises(Unreadable, match=r"seed 'a' is not a whole number"):
            read_results(store, ["odd"])
        assert [bool(summary.unreadable) for summary in store.studies()] == [False, True]


def test_study_that_another_program_wrote_is_listed_as_unreadable(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute(
        "INSERT INTO studies (name, spec, created) SELECT 'x', spec, created FROM studies LIMIT 1"
    )
    connection.commit()
    connection.close()
    with open_store(str(path), write=True) as store:
        assert [(summary.name, bool(summary.unreadable)) for summary in store.studies()] == [
            ("good", False),
            ("odd", False),
            ("x", True),
        ]
        assert store.latest() == ["odd"]
        store.begin_study("new", spec())
        with pytest.raises(Unreadable, match="study 'x' has no checksum"):
            store.get_study("x")
        store.delete_study("x")
        assert [summary.name for summary in store.studies()] == ["good", "odd", "new"]
