"""What is read is what was written: damage is told in one line, and can be mended."""

from __future__ import annotations

import random
import sqlite3
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lrwd_sweep.errors import LrwdError, NothingToReport, StoreError, UnknownName
from lrwd_sweep.science.lattice import Cell
from lrwd_sweep.science.trial import Status, Trial
from lrwd_sweep.spec.study import Kind, StudySpec
from lrwd_sweep.store import Store, open_store
from lrwd_sweep.store.schema import Damaged
from tests.store.damage import execute, flip
from tests.store.sample import complete, lattice_trials, spec

PAGE = 4096
CELL = Cell(0.1, 0.001)

READS: list[Callable[[Store], object]] = [
    lambda store: [store.get_study(name) for name in ("a", "b")],
    lambda store: [store.trials(name) for name in ("a", "b")],
    lambda store: [store.trials(name, curves=True) for name in ("a", "b")],
    lambda store: [store.finished(name) for name in ("a", "b")],
    lambda store: store.studies(),
    lambda store: store.latest(),
]


def fill(path: Path) -> None:
    with open_store(str(path), write=True) as store:
        for name, optimizer in (("a", "adam"), ("b", "adamw")):
            store.begin_study(name, spec(optimizer, seeds=4))
            lanes = lattice_trials(spec(optimizer, seeds=4))
            for first in range(0, len(lanes), 5):
                store.add_trials(name, lanes[first : first + 5])
        store.record_comparison(["a", "b"])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "a.db"
    fill(path)
    return path


@pytest.fixture
def opened(path: Path) -> Iterator[Store]:
    with open_store(str(path), write=True) as store:
        yield store


def all_read(path: Path) -> list[object]:
    """What every way to read the store gives; None where it was refused in one line."""
    found: list[object] = []
    try:
        with open_store(str(path), write=False) as store:
            found += [one_read(store, read) for read in READS]
    except (StoreError, NothingToReport) as refusal:
        found += [one_line(refusal)] * len(READS)
    return found


def one_read(store: Store, read: Callable[[Store], object]) -> object:
    try:
        return read(store)
    except (StoreError, UnknownName) as refusal:
        return one_line(refusal)


def one_line(refusal: LrwdError) -> object:
    assert "\n" not in str(refusal)
    return None


def agrees(found: list[object], expected: list[object]) -> bool:
    """Whether everything that was read is what was stored, or is told as what is damaged."""
    return all(mine in (theirs, None) or _is_told(mine) for mine, theirs in zip(found, expected, strict=True))


def _is_told(listed: object) -> bool:
    return isinstance(listed, list) and any(getattr(summary, "damaged", False) for summary in listed)


def test_a_flipped_bit_is_never_another_value(path: Path, tmp_path: Path) -> None:
    expected, whole, copy = all_read(path), path.read_bytes(), tmp_path / "copy.db"
    draw = random.Random(0)
    used = [k for k, byte in enumerate(whole) if byte]
    told = 0
    for _ in range(100):
        copy.write_bytes(whole)
        flip(copy, bit := 8 * draw.choice(used) + draw.randrange(8))
        found = all_read(copy)
        assert agrees(found, expected), f"bit {bit % 8} of byte {bit // 8}"
        told += found != expected
    assert told > 50


def test_an_overwritten_page_is_never_another_value(path: Path, tmp_path: Path) -> None:
    expected, whole, copy = all_read(path), path.read_bytes(), tmp_path / "copy.db"
    draw = random.Random(0)
    told = 0
    pages = [whole[start : start + PAGE] for start in range(0, len(whole), PAGE)]
    for k in range(len(pages)):
        others = [bytes(PAGE), draw.randbytes(PAGE), *draw.sample(pages, 3)]
        for n, other in enumerate(others):
            copy.write_bytes(b"".join([*pages[:k], other, *pages[k + 1 :]]))
            found = all_read(copy)
            assert agrees(found, expected), f"page {k + 1} as overwritten by {n}"
            told += found != expected
    assert told > 2 * len(pages)


@pytest.mark.parametrize(
    "change",
    [
        "lr = 0.2",
        "weight_decay = 0.002",
        "seed = 9",
        "study_id = 9",
        "status = 'diverged'",
        "metrics = replace(metrics, '1', '2')",
        "metrics = '{'",
        "metrics = x'ff'",
        "detail = 'x'",
        "snapshots = '{\"4\": {}}'",
        "id = 99",
        "curves_checksum = 1",
        "checksum = 1",
    ],
)
def test_every_column_of_a_lane_is_verified(path: Path, change: str) -> None:
    damage = (
        f"UPDATE trials SET {change} WHERE study_id = 1 AND lr = 0.1 AND weight_decay = 0.001 AND seed = 3"
    )
    execute(path, damage)
    with open_store(str(path), write=False) as store:
        for read in (store.trials, store.finished):
            with pytest.raises(
                Damaged, match=r"study 'a' is damaged: .*--retrain-damaged.* study delete 'a'"
            ):
                read("a")


def test_damaged_lane_is_named(path: Path) -> None:
    execute(path, "UPDATE trials SET metrics = '{}' WHERE study_id = 2 AND seed = 3 AND lr = 0.1")
    with open_store(str(path), write=False) as store:
        with pytest.raises(
            Damaged, match=r"lane lr 0\.1, weight_decay 0\.0, seed 3, and 1 more, are not what"
        ):
            store.trials("b")
        assert store.trials("a") == without_curves(lattice_trials(spec("adam", seeds=4)))
        first, second = store.studies()
    assert not first.unreadable
    assert second.damaged


def without_curves(trials: list[Trial]) -> list[Trial]:
    return [Trial(trial.cell, trial.seed, trial.status, trial.metrics) for trial in trials]


@pytest.mark.parametrize("where", ["id = 7", "study_id = 1"])
def test_lost_lanes_are_noticed(path: Path, where: str) -> None:
    execute(path, f"DELETE FROM trials WHERE {where}")
    with open_store(str(path), write=False) as store:
        with pytest.raises(Damaged, match=r"study 'a' is damaged: 16 lanes were stored, (15|0) are there"):
            store.finished("a")
        assert len(store.trials("b")) == 16


@pytest.mark.parametrize(
    "damage",
    [
        'UPDATE curves SET "values" = zeroblob(24) WHERE trial_id = 3',
        "UPDATE curves SET name = 'loss' WHERE trial_id = 3 AND name = 'val_loss'",
        "DELETE FROM curves WHERE trial_id = 3 AND name = 'val_loss'",
        "UPDATE curves SET trial_id = 99 WHERE trial_id = 3",
    ],
)
def test_curves_are_verified_where_they_are_read(path: Path, damage: str) -> None:
    execute(path, damage)
    with open_store(str(path), write=False) as store:
        assert len(store.trials("a")) == 16
        with pytest.raises(Damaged, match="study 'a' is damaged: lane"):
            store.trials("a", curves=True)


@pytest.mark.parametrize(
    "change",
    [
        "spec = replace(spec, '60', '61')",
        "spec = 'x'",
        "created = '2020'",
        "version = '9'",
        "id = 5",
        "lanes = 17",
        "lanes_checksum = 0",
    ],
)
def test_every_column_of_a_study_is_verified(path: Path, change: str) -> None:
    execute(path, f"UPDATE studies SET {change} WHERE name = 'b'")
    with open_store(str(path), write=False) as store:
        with pytest.raises(Damaged, match=r"study 'b' is damaged: its specification .* study delete 'b'"):
            store.get_study("b")
        assert store.get_study("a").spec == spec("adam", seeds=4)
        assert [summary.damaged for summary in store.studies()] == [False, True]


def test_a_study_whose_name_is_damaged_is_not_taken_for_deleted(path: Path) -> None:
    execute(path, "UPDATE studies SET name = 'c' WHERE name = 'b'")
    with open_store(str(path), write=False) as store:
        for read in (lambda: store.find_study("b"), store.latest):
            with pytest.raises(Damaged, match="study 'c' is damaged"):
                read()


@pytest.mark.parametrize("damage", ["UPDATE comparisons SET names = '[\"b\"]'", "DELETE FROM comparisons"])
def test_damage_to_what_was_looked_at_last_asks_for_a_name(path: Path, damage: str) -> None:
    execute(path, damage)
    with open_store(str(path), write=False) as store:
        with pytest.raises(Damaged, match="name a study of study list, as in report STUDY"):
            store.latest()
        assert len(store.trials("a")) == 16


class TestMending:
    """Damaged lanes, and no others, become missing ones; a study can always be removed."""

    LANES = spec("adam", seeds=4)

    def trained_again(self, store: Store, dropped: int) -> None:
        """Drop what is damaged and store what is missing."""
        lanes = lattice_trials(self.LANES)
        assert store.drop_damaged("a") == dropped
        kept = store.finished("a")
        missing = [trial for trial in lanes if (trial.cell, trial.seed) not in kept]
        assert len(missing) == dropped
        assert store.add_trials("a", missing) == []
        assert {(t.cell, t.seed): t for t in store.trials("a", curves=True)} == {
            (t.cell, t.seed): t for t in lanes
        }
        assert store.trials("b", curves=True) == lattice_trials(spec("adamw", seeds=4))

    @pytest.mark.parametrize(
        ("damage", "dropped"),
        [
            ("UPDATE trials SET metrics = '{}' WHERE id IN (3, 4)", 2),
            ('UPDATE curves SET "values" = zeroblob(24) WHERE trial_id = 3', 1),
            ("DELETE FROM trials WHERE id = 3", 1),
            ("UPDATE trials SET lr = 7 WHERE id = 3", 1),
            ("UPDATE curves SET trial_id = 99 WHERE trial_id = 3", 1),
            ("SELECT 1", 0),
        ],
    )
    def test_only_damaged_lanes_are_dropped(self, path: Path, damage: str, dropped: int) -> None:
        execute(path, damage)
        with open_store(str(path), write=True) as store:
            self.trained_again(store, dropped)
        assert is_sound(path)

    def test_lane_that_its_index_has_elsewhere_is_dropped(self, path: Path) -> None:
        execute(path, "DELETE FROM studies WHERE id = 2", "DELETE FROM trials WHERE study_id = 2", "VACUUM")
        change_in_rows(path, 0.1, 0.01)  # which is another lane's
        assert not is_sound(path)
        with open_store(str(path), write=True) as store:
            assert store.drop_damaged("a") == 1
            assert len(store.trials("a")) == 15
        assert is_sound(path)

    @pytest.mark.parametrize(
        "damage",
        [
            ["UPDATE trials SET metrics = '{' WHERE study_id = 1"],
            ["UPDATE studies SET spec = 'x' WHERE id = 1"],
            ["UPDATE studies SET checksum = 0 WHERE id = 1"],
            ["UPDATE trials SET study_id = 9 WHERE id = 3"],
        ],
    )
    def test_damaged_study_can_be_deleted(self, path: Path, damage: list[str]) -> None:
        execute(path, *damage)
        with open_store(str(path), write=True) as store:
            store.delete_study("a")
            execute(path, "DELETE FROM trials WHERE study_id = 9")
            assert [summary.name for summary in store.studies()] == ["b"]
            assert store.trials("b", curves=True) == lattice_trials(spec("adamw", seeds=4))
        assert is_sound(path)


def change_in_rows(path: Path, old: float, new: float) -> None:
    """Change the first number of that value in the rows of `trials`, not in their index."""
    content = path.read_bytes()
    row = content.index(b'{"val_loss"')
    start = row - row % PAGE
    at = content.index(struct.pack(">d", old), start, start + PAGE)
    path.write_bytes(content[:at] + struct.pack(">d", new) + content[at + 8 :])


def is_sound(path: Path) -> bool:
    connection = sqlite3.connect(path)
    found = connection.execute("PRAGMA integrity_check").fetchall()
    connection.close()
    return found == [("ok",)]


def test_failed_lanes_that_are_tried_again_leave_a_whole_study(opened: Store) -> None:
    opened.begin_study("c", spec(seeds=1))
    opened.add_trials("c", [Trial(CELL, 0, Status.FAILED, detail="no memory"), complete(Cell(0.01, 0.0))])
    opened.add_trials("c", [complete(CELL)])
    assert opened.finished("c") == {(CELL, 0), (Cell(0.01, 0.0), 0)}


def test_adding_to_a_damaged_study_does_not_seal_the_damage(path: Path) -> None:
    execute(path, "UPDATE studies SET spec = replace(spec, '60', '61') WHERE name = 'a'")
    with open_store(str(path), write=True) as store:
        for write in (
            lambda: store.add_trials("a", [complete(Cell(1.0, 1.0))]),
            lambda: store.begin_study("a", spec("adam", epochs=61)),
        ):
            with pytest.raises(Damaged):
                write()


def test_a_search_is_verified_as_a_lattice_is(opened: Store, path: Path) -> None:
    searched = StudySpec(Kind.TPE, spec().optimizer, spec().lattice, (0,), "val_loss", spec().task)
    opened.begin_study("c", searched)
    opened.add_trials("c", [complete(Cell(0.05, 0.0005))])
    execute(path, "UPDATE trials SET lr = 0.06 WHERE id = (SELECT max(id) FROM trials)")
    with pytest.raises(Damaged, match="study 'c' is damaged"):
        opened.trials("c")
