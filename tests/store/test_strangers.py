"""A store may come from a stranger: no path in it is opened, and an unreadable study hides no other."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from lrwd_sweep.report.result import read_results
from lrwd_sweep.report.view import Format, render, text_of
from lrwd_sweep.store import open_store
from lrwd_sweep.store.schema import Unreadable
from tests.refusal import assert_raises
from tests.store.sample import execute, filled, rewrite_spec, spec

MARK = "folder-of-a-stranger"
EVENTS = ("open", "os.", "import", "glob.", "pathlib.", "shutil.")
SIZES = {"train": 4, "validation": 2, "test": 2, "classes": 2, "shape": [3, 32, 32]}

_seen: list[str] = []


def _audit(event: str, arguments: tuple[object, ...]) -> None:
    if event.startswith(EVENTS) and MARK in repr(arguments):
        _seen.append(f"{event} {arguments!r}")


sys.addaudithook(_audit)


@contextmanager
def no_access(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail if a path with MARK in it is opened, listed or queried."""

    def recording(original: Any) -> Any:
        def record(path: Any, *rest: Any, **options: Any) -> Any:
            _audit(f"os.{original.__name__}", (path,))
            return original(path, *rest, **options)

        return record

    with monkeypatch.context() as patch:
        for name in ("stat", "lstat", "access", "readlink"):  # these raise no audit events
            patch.setattr(f"os.{name}", recording(getattr(os, name)))
        _seen.clear()
        yield
        assert not _seen


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store of two studies; next to it a data folder and a Python file that exist."""
    for folder in product(("train", "validation", "test"), "ab"):
        (image := Path(tmp_path, MARK, *folder, "1.png")).parent.mkdir(parents=True)
        image.touch()
    (tmp_path / MARK / "code.py").write_text("raise SystemExit")
    return filled(tmp_path / "a.db", "good", "odd")


def test_reading_opens_no_path_of_a_study(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, here = path.read_bytes(), path.parent / MARK
    code, folder = f"{here}/code.py", f"folder:{here}"
    for task, readable in (
        *(({"data": f"{folder}@16"}, False), ({"data": folder, "sizes": {}}, False)),
        ({"data": folder, "batch_size": 2, "sizes": SIZES}, True),
        ({"data": f"{code}:data", "batch_size": 2, "sizes": SIZES}, True),
        *(({"net": f"{code}:Net", "code": {"--net": "0123"}}, True), ({"data": f"{code}:data"}, False)),
        *(({"loss": f"{code}:loss"}, True), ({"net": f"torchvision:{here}"}, True)),
        *(({"net": str(here)}, False), ({"data": [str(here)]}, False), ({"data_dir": str(here)}, False)),
    ):
        path.write_bytes(whole)
        rewrite_spec(path, "odd", lambda found, task=task: found["training"].update(task))  # type: ignore[misc]
        with no_access(monkeypatch), open_store(str(path), write=False) as store:
            good, odd = store.studies()
            assert store.latest() == ["odd"]
            assert len(read_results(store, ["good"])[0]) == 1
            if readable:
                for form in (Format.HTML, Format.JSON):
                    assert text_of(render(*read_results(store, ["odd"], curves=True), form, [])), task
            else:
                line = r"study 'odd' has a specification .* delete 'odd'"
                assert_raises(line, store.get_study, "odd", error=Unreadable)
        assert (good.unreadable, good.counts["cells"]) == ("", 4)
        assert (odd.name, bool(odd.unreadable), odd.damaged) == ("odd", not readable, False), task


def test_foreign_specifications_are_refused_and_hide_no_other_study(path: Path) -> None:
    whole = path.read_bytes()
    for text in ("[]", "3", "{}", "[[[", '{"kind": "grid"}', "[" * 100_000):
        path.write_bytes(whole)
        rewrite_spec(path, "odd", text.encode())
        with open_store(str(path), write=False) as store:
            assert_raises("^.{1,599}$", store.get_study, "odd", error=Unreadable)
            assert [bool(summary.unreadable) for summary in store.studies()] == [False, True]
    execute(path, "INSERT INTO studies (name, spec, created) SELECT 'x', spec, created FROM studies LIMIT 1")
    with open_store(str(path), write=True) as store:
        listed = {one.name: bool(one.unreadable) for one in store.studies()}
        assert listed == {"good": False, "odd": True, "x": True}
        store.begin_study("new", spec())
        assert_raises("study 'x' has no checksum", store.get_study, "x", error=Unreadable)
        store.delete_study("x")
        assert [summary.name for summary in store.studies()] == ["good", "odd", "new"]
