"""Damaged and foreign content is told in one line, never read as another, and hides no other study."""

import os
import random
import sqlite3
import struct
import sys
from collections.abc import Callable
from contextlib import closing
from itertools import product
from pathlib import Path
from unittest.mock import Mock

import pytest

from lrwd_sweep.errors import NothingToReport, StoreError, UnknownName
from lrwd_sweep.report.result import read_results
from lrwd_sweep.report.view import Format, render, text_of
from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.science.trial import Trial
from lrwd_sweep.store import Store, open_store
from lrwd_sweep.store.schema import Damaged, Unreadable
from tests.refusal import assert_raises
from tests.store.sample import complete, execute, filled, lattice_trials, rewrite_spec, spec

PAGE = 4096
A, B = spec("adam", seeds=4), spec("adamw", seeds=4)
LANE = "study_id = 1 AND lr = 0.1 AND weight_decay = 0.001 AND seed = 3"


def read_curves(store: Store, name: str) -> list[Trial]:
    return store.trials(name, curves=True)


READS: list[Callable[[Store], object]] = [
    lambda store: [store.get_study(name) for name in "ab"],
    lambda store: [store.trials(name) for name in "ab"],
    lambda store: [store.trials(name, curves=True) for name in "ab"],
    lambda store: [store.finished(name) for name in "ab"],
    *(Store.studies, Store.latest),
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The file of a store with two studies of 16 lanes."""
    path = tmp_path_factory.mktemp("whole") / "a.db"
    with open_store(str(path), write=True) as store:
        for name, of in (("a", A), ("b", B)):
            store.begin_study(name, of)
            for first in range(0, 16, 5):
                store.add_trials(name, lattice_trials(of)[first : first + 5])
        store.record_comparison(["a", "b"])
    return path.read_bytes()


def damaged(path: Path, whole: bytes, *statements: str) -> Path:
    path.write_bytes(whole)
    execute(path, *statements)
    return path


def read_all(path: Path) -> list[object]:
    """Read a store in every way; None stands for a refusal in one line."""
    found: list[object] = []
    for read in READS:
        try:
            with open_store(str(path), write=False) as store:
                found.append(read(store))
        except (StoreError, NothingToReport, UnknownName) as refusal:
            found.append(refusal if "\n" in str(refusal) else None)
    return found


def agrees(found: list[object], expected: list[object]) -> bool:
    """Return whether each value is right, refused, or a list with a study that is marked as damaged."""
    marks = [isinstance(each, list) and any(getattr(one, "damaged", False) for one in each) for each in found]
    compared = zip(found, expected, marks, strict=True)
    return all(mine in (right, None) or mark for mine, right, mark in compared)


@pytest.mark.parametrize("draws", [40, pytest.param(280, marks=pytest.mark.slow)])
def test_damaged_bytes_are_never_read_as_other_values(whole: bytes, tmp_path: Path, draws: int) -> None:
    path = tmp_path / "copy.db"
    path.write_bytes(whole)
    expected, draw = read_all(path), random.Random(0)
    used = [k for k, byte in enumerate(whole) if byte]
    pages = [whole[start : start + PAGE] for start in range(0, len(whole), PAGE)]
    damages = {
        f"page {k + 1} as overwritten by {n}": b"".join([*pages[:k], other, *pages[k + 1 :]])
        for k in range(len(pages))
        for n, other in enumerate([bytes(PAGE), draw.choice(pages)])
    }
    for _ in range(draws):
        byte, bit = draw.choice(used), draw.randrange(8)
        flipped = bytes([whole[byte] ^ 1 << bit])
        damages[f"bit {bit} of byte {byte}"] = whole[:byte] + flipped + whole[byte + 1 :]
    lengths = [0, 50, PAGE, len(whole) // 2, len(whole) - PAGE]
    for length in [*lengths, *(draw.randrange(len(whole)) for _ in range(draws - 40))]:
        damages[f"truncated to {length} bytes"] = whole[:length]
    noticed = 0
    for damage, content in damages.items():
        path.write_bytes(content)
        found = read_all(path)
        assert agrees(found, expected), damage
        assert path.read_bytes() == content, "reading writes nothing"
        assert None in found or len(content) not in lengths, damage
        noticed += damage.startswith("bit") and found != expected
    assert noticed > draws // 2


def test_every_column_is_verified_and_damage_is_mended_or_deleted(whole: bytes, tmp_path: Path) -> None:
    trials = ["lr = 0.2", "weight_decay = 0.002", "seed = 9", "study_id = 9", "status = 'diverged'"]
    trials += ["metrics = '{'", "metrics = x'ff'", "detail = 'x'", "snapshots = '{\"4\": {}}'"]
    trials += ["curves_checksum = 1", "checksum = 1", "id = 99"]
    studies = ["spec = replace(spec, '60', '61')", "spec = 'x'", "created = '2020'", "version = '9'"]
    studies += ["id = 5", "lanes = 17", "lanes_checksum = 0"]
    lanes = {(trial.cell, trial.seed): trial for trial in lattice_trials(A)}
    two = r"lane lr 0\.1, weight_decay 0\.0, seed 3, and 1 more, are not what was stored"
    for damage, read, text in (
        *((f"UPDATE trials SET {one} WHERE {LANE}", Store.finished, "--retrain-damaged") for one in trials),
        *((f"UPDATE studies SET {one} WHERE id = 1", Store.get_study, "its spec") for one in studies),
        ('UPDATE curves SET "values" = zeroblob(24) WHERE trial_id = 3', read_curves, "lane"),
        ("UPDATE curves SET name = 'x' WHERE trial_id = 3 AND name = 'val_loss'", read_curves, "lane"),
        ("DELETE FROM curves WHERE trial_id = 3 AND name = 'val_loss'", read_curves, "lane"),
        ("UPDATE curves SET trial_id = 99 WHERE trial_id = 3", read_curves, "lane"),
        ("UPDATE trials SET metrics = '{}' WHERE study_id = 1 AND seed = 3 AND lr = 0.1", read_curves, two),
        ("DELETE FROM trials WHERE id = 7", Store.finished, "16 lanes were stored, 15 are there"),
    ):
        path = damaged(tmp_path / "a.db", whole, damage)
        line = f"study 'a' is damaged: .*{text}.* study delete 'a'"
        with open_store(str(path), write=False) as store:
            assert_raises(line, read, store, "a", error=Damaged)
            in_curves = "curves SET" in damage or "FROM curves" in damage
            listed = {one.name: one.damaged for one in store.studies()}
            assert listed == {"a": not in_curves, "b": False}, damage
            assert len(store.trials("ab"[not in_curves])) == 16
        with open_store(str(path), write=True) as store:
            if read is Store.get_study:
                assert_raises(line, store.add_trials, "a", [complete(Cell(1.0, 1.0))], error=Damaged)
                assert_raises(line, store.begin_study, "a", A, error=Damaged)
            store.delete_study("a")
            assert [summary.name for summary in store.studies()] == ["b"], damage
            assert read_curves(store, "b") == lattice_trials(B)
        assert is_sound(path), damage
        if read is Store.get_study:
            continue
        with open_store(str(damaged(path, whole, damage)), write=True) as store:
            assert store.drop_damaged("a") == 1 + (text is two), damage
            missing = lanes.keys() - store.finished("a")
            assert len(missing) == 1 + (text is two), damage
            assert store.add_trials("a", [lanes[lane] for lane in missing]) == []
            assert {(one.cell, one.seed): one for one in read_curves(store, "a")} == lanes
            assert (store.drop_damaged("a"), read_curves(store, "b")) == (0, lattice_trials(B))
        assert is_sound(path), damage


def test_damage_is_not_taken_for_deletion(whole: bytes, tmp_path: Path) -> None:
    renamed, lost = "UPDATE studies SET name = 'c' WHERE name = 'b'", "name a study of study list"
    for damage, read, names, text in (
        (renamed, "find_study", ["b"], "study 'c' is damaged"),
        (renamed, "latest", [], "study 'c' is damaged"),
        ("UPDATE comparisons SET names = '[\"b\"]'", "latest", [], lost),
        ("DELETE FROM comparisons", "latest", [], lost),
    ):
        with open_store(str(damaged(tmp_path / "a.db", whole, damage)), write=False) as store:
            assert_raises(text, getattr(store, read), *names, error=Damaged)
            assert len(store.trials("a")) == 16, damage


def test_lane_that_disagrees_with_its_index_is_dropped(whole: bytes, tmp_path: Path) -> None:
    b = "DELETE FROM studies WHERE id = 2", "DELETE FROM trials WHERE study_id = 2"
    path = damaged(tmp_path / "a.db", whole, *b, "VACUUM")
    content = path.read_bytes()
    row = content.index(b'{"val_loss"')  # in a page of `trials`, not of its index
    at = content.index(struct.pack(">d", 0.1), row - row % PAGE)
    assert at < row - row % PAGE + PAGE
    path.write_bytes(content[:at] + struct.pack(">d", 0.01) + content[at + 8 :])  # the lr of another lane
    assert not is_sound(path)
    with open_store(str(path), write=True) as store:
        assert store.drop_damaged("a") == 1
        assert len(store.trials("a")) == 15
    assert is_sound(path)


def is_sound(path: Path) -> bool:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


MARK = "folder-of-a-stranger"
EVENTS = ("open", "os.", "import", "glob.", "pathlib.", "shutil.")
SIZES = {"train": 4, "validation": 2, "test": 2, "classes": 2, "shape": [3, 32, 32]}

_seen: list[str] = []  # how paths with MARK in them are opened, listed or queried


def _audit(event: str, arguments: tuple[object, ...]) -> None:
    if event.startswith(EVENTS) and MARK in repr(arguments):
        _seen.append(f"{event} {arguments!r}")


sys.addaudithook(_audit)


def test_reading_opens_no_path_of_a_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, here = filled(tmp_path / "a.db", "good", "odd"), tmp_path / MARK
    content = path.read_bytes()
    for folder in product(("train", "validation", "test"), "ab"):  # data and code that exist
        (image := Path(here, *folder, "1.png")).parent.mkdir(parents=True)
        image.touch()
    (here / "code.py").write_text("raise SystemExit")
    code, images, sized = f"{here}/code.py", f"folder:{here}", {"sizes": SIZES, "batch_size": 2}
    spies = {name: Mock(wraps=getattr(os, name)) for name in ("stat", "lstat", "access", "readlink")}
    for name, spy in spies.items():  # these raise no audit events
        monkeypatch.setattr(os, name, spy)
    _seen.clear()
    for task, readable in (
        *(({"data": f"{images}@16"}, False), ({"data": images, "sizes": {}}, False)),
        *(({"data": images, **sized}, True), ({"data": f"{code}:data", **sized}, True)),
        *(({"net": f"{code}:Net", "code": {"--net": "0123"}}, True), ({"data": f"{code}:data"}, False)),
        *(({"loss": f"{code}:loss"}, True), ({"net": f"torchvision:{here}"}, True)),
        *(({"net": str(here)}, False), ({"data": [str(here)]}, False), ({"data_dir": str(here)}, False)),
    ):
        path.write_bytes(content)
        rewrite_spec(path, "odd", lambda found, task=task: found["training"].update(task))  # type: ignore[misc]
        with open_store(str(path), write=False) as store:
            good, odd = store.studies()
            assert store.latest() == ["odd"]
            assert len(read_results(store, ["good"])[0]) == 1
            if readable:
                for form in (Format.HTML, Format.JSON):
                    assert text_of(render(*read_results(store, ["odd"], curves=True), form, [])), task
            else:
                line = r"study 'odd' has a specification .* delete 'odd'"
                assert_raises(line, store.get_study, "odd", error=Unreadable)
        assert (_seen, MARK in repr([spy.mock_calls for spy in spies.values()])) == ([], False)
        assert (good.unreadable, good.counts["cells"]) == ("", 4)
        assert (odd.name, bool(odd.unreadable), odd.damaged) == ("odd", not readable, False), task


def test_foreign_specifications_are_refused_and_hide_no_other_study(tmp_path: Path) -> None:
    path = filled(tmp_path / "a.db", "good", "odd")
    content = path.read_bytes()
    for text in ("[]", "3", "{}", "[[[", '{"kind": "grid"}', "[" * 100_000):
        path.write_bytes(content)
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
