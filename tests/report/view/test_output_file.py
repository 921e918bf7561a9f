"""A file is whole or not there, and nothing is left beside it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lrwd_sweep.errors import UsageError
from lrwd_sweep.report.view.output_file import replaced, write_file


def test_text_is_written_as_utf_8_with_its_own_line_ends(tmp_path: Path) -> None:
    write_file(tmp_path / "a", "λ\r\n\n")
    assert (tmp_path / "a").read_bytes() == "λ\r\n\n".encode()


def test_a_failure_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail() -> None:
        with replaced(path) as temporary:
            assert temporary.name == "a.txt"
            temporary.write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_old_file_is_there_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("old")
    with replaced(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_new_file_has_the_permissions_that_the_umask_gives(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_file(tmp_path / "a", "x")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


def test_an_unwritable_path_is_one_line_that_names_the_option(tmp_path: Path) -> None:
    for name in ("no/such/file", "."):
        with pytest.raises(UsageError, match=r"^--figure .*; name a file that can be written$"):
            write_file(tmp_path / name, "x", "--figure")


def test_a_device_stays_a_device() -> None:
    write_file(Path(os.devnull), "x")
    assert Path(os.devnull).is_char_device()
