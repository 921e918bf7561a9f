"""A published pickle is read to the bit; one that wants to run anything is refused before it does."""

from __future__ import annotations

import contextlib
import copyreg
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from lrwd_sweep.data.pickled import read_pickle
from lrwd_sweep.errors import DataError
from tests.data.formats import python2_pickle

MARK = "ran"
EXTENSION = 0xF1F2
numbers = arrays.arrays(
    st.sampled_from(["u1", "i4", "<i8", ">i2", "f4", "f8"]),
    arrays.array_shapes(max_dims=3, max_side=5),
    elements=st.integers(0, 100),
)
values = numbers | st.lists(st.integers(-(2**70), 2**70) | st.text() | st.binary(min_size=1), max_size=5)
tables = st.dictionaries(st.text(max_size=8), values, max_size=5)


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "data_batch_1"


def _same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    def alike(x: Any, y: Any) -> bool:
        if isinstance(x, np.ndarray):
            orders = [array.dtype.newbyteorder("=") for array in (x, y)]  # numpy itself may swap the bytes
            return orders[0] == orders[1] and np.array_equal(x, y)
        return bool(x == y)

    return a.keys() == b.keys() and all(alike(a[key], b[key]) for key in a)


@given(table=tables, protocol=st.integers(2, pickle.HIGHEST_PROTOCOL))
@settings(max_examples=60, deadline=None)
def test_tables_of_arrays_and_lists_are_read_as_python_reads_them(
    tmp_path_factory: pytest.TempPathFactory, table: dict[str, Any], protocol: int
) -> None:
    path = tmp_path_factory.mktemp("pickles") / "file"
    path.write_bytes(pickle.dumps(table, protocol))
    assert _same(read_pickle(path), pickle.loads(path.read_bytes()))


def test_fortran_order_is_kept(file: Path) -> None:
    array = np.asfortranarray(np.arange(24).reshape(2, 3, 4))
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        file.write_bytes(pickle.dumps({"data": array}, protocol))
        assert np.array_equal(read_pickle(file)["data"], array)


def test_python_2s_pickle_is_read_as_python_reads_it(file: Path) -> None:
    table = {"data": np.arange(256, dtype=np.uint8).reshape(2, 128), "labels": [0, 9], "filenames": ["a.png"]}
    file.write_bytes(python2_pickle(table))
    assert _same(read_pickle(file), pickle.loads(file.read_bytes(), encoding="latin1"))
    assert _same(read_pickle(file), table)


class Runs:
    """A pickle of this runs a function when it is loaded."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.made = function, arguments

    def __reduce__(self) -> Any:
        return self.made


TOUCH = f"open({MARK!r}, 'w').close()"


def _raw_array_of(constructor: bytes) -> bytes:
    """An array whose dtype is what a call gives."""
    dtype = constructor + b"(U" + bytes([len(TOUCH)]) + TOUCH.encode() + b"tR"
    return (
        b"\x80\x02}U\x04datacnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85"
        + dtype
        + b"\x87Rs."
    )


def _extension() -> bytes:
    copyreg.add_extension("posix", "system", EXTENSION)
    return b"\x80\x02}U\x04data\x83" + EXTENSION.to_bytes(2, "little") + b"U\x09touch ran\x85Rs."


@pytest.fixture
def _no_extensions() -> Iterator[None]:
    yield
    if ("posix", "system") in copyreg._extension_registry:  # type: ignore[attr-defined]
        copyreg.remove_extension("posix", "system", EXTENSION)
    copyreg._extension_cache.clear()  # type: ignore[attr-defined]


def _live() -> dict[str, bytes]:
    """Pickles that run something when Python loads them."""
    nested = {"data": [({"a": [Runs(os.system, f"touch {MARK}")]},)]}
    return {
        "os.system, protocol 0": pickle.dumps({"data": Runs(os.system, f"touch {MARK}")}, 0),
        "os.system, protocol 2": pickle.dumps({"data": Runs(os.system, f"touch {MARK}")}, 2),
        "a name from the stack": pickle.dumps({"data": Runs(os.system, f"touch {MARK}")}, 4),
        "builtins.eval": pickle.dumps({"data": Runs(eval, TOUCH)}, 5),
        "nested": pickle.dumps(nested, 4),
        "an array of objects": pickle.dumps({"data": np.array([Runs(eval, TOUCH)], dtype=object)}, 4),
        "a dtype that is a call": _raw_array_of(b"cbuiltins\neval\n"),
        "INST": b"(U" + bytes([len(TOUCH)]) + TOUCH.encode() + b"ibuiltins\neval\n.",
        "OBJ": b"(cbuiltins\neval\nU" + bytes([len(TOUCH)]) + TOUCH.encode() + b"o.",
        "after the data": pickle.dumps([{"data": np.zeros(3, np.uint8)}, Runs(eval, TOUCH)], 4),
        "an extension code": _extension(),
    }


@pytest.mark.parametrize("kind", list(_live()))
@pytest.mark.usefixtures("_no_extensions")
def test_a_malicious_pickle_is_refused_and_nothing_runs(file: Path, kind: str) -> None:
    mark = file.with_name(MARK)
    file.write_bytes(_live()[kind])
    with pytest.raises(DataError, match="data_batch_1 is no data: its pickle holds") as error:
        read_pickle(file)
    assert not mark.exists()
    assert "\n" not in str(error.value)
    with contextlib.suppress(TypeError, ValueError):  # numpy complains of what the call gave, after the call
        pickle.loads(file.read_bytes())
    assert mark.exists()  # it was a live one


@pytest.mark.usefixtures("_no_extensions")
def test_an_extension_code_that_python_remembers_is_refused_too(file: Path) -> None:
    file.write_bytes(_extension())
    pickle.loads(file.read_bytes())
    assert EXTENSION in copyreg._extension_cache  # type: ignore[attr-defined]
    file.with_name(MARK).unlink()
    with pytest.raises(DataError, match="EXT2"):
        read_pickle(file)
    assert not file.with_name(MARK).exists()


DEEP = b"\x80\x02}" + b"N" + b"\x85" * 100_000 + b"K\x00s."
STRANGE = {
    "a codec": pickle.dumps({"data": np.zeros(2, np.uint8)}, 2).replace(b"latin1", b"rot-13"),
    "a persistent name": b"\x80\x02}U\x04dataPname\ns.",
    "state for a dictionary": b"\x80\x02}U\x04data}}b" + b"s.",
    "a key that overflows the stack": DEEP,
    "a name that is no text": b"\x80\x04" + DEEP[3:-3] + b"\x8c\x01x\x93.",
    "items for a number": b"\x80\x02}U\x04dataK\x01K\x02as.",
    "a call of a number": b"\x80\x02}U\x04dataK\x01)Rs.",
    "ndarray called": b"\x80\x02}U\x04datacnumpy\nndarray\n)Rs.",
    "an object dtype": pickle.dumps({"data": np.array([None])}, 4),
    "a shape without its bytes": python2_pickle({"data": np.zeros((2, 3), np.uint8)}).replace(
        b"J\x03\x00\x00\x00", b"J\xff\xff\xff\x7f"
    ),
    "a long name of many lines": b"\x80\x04\x8c\xc8" + b"a\n" * 100 + b"\x8c\x01x\x93.",
    "a list": pickle.dumps([1, 2]),
    "nothing": b"",
    "text": b"<!DOCTYPE html><html>",
    "no stop": pickle.dumps({"labels": [1]})[:-1],
    "a memo that is not there": b"\x80\x02}U\x04datah\x07s.",
    "an unfilled stack": b"\x80\x02s.",
}


@pytest.mark.parametrize("kind", STRANGE)
def test_what_is_no_table_of_arrays_is_refused_in_one_line(file: Path, kind: str) -> None:
    file.write_bytes(STRANGE[kind])
    with pytest.raises(DataError, match="get it again") as error:
        read_pickle(file)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500
    assert str(file) in str(error.value)


def test_every_truncated_pickle_is_refused(file: Path) -> None:
    whole = python2_pickle({"labels": [1, 2], "data": np.arange(12, dtype=np.uint8).reshape(2, 6)})
    for length in range(len(whole)):
        file.write_bytes(whole[:length])
        with pytest.raises(DataError):
            read_pickle(file)


@given(st.binary(max_size=200))
@example(b"\x8d\x00\x00\x00\x00\x00\x00\x00")  # text of 2⁶¹ bytes, it says
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("pickles") / "file"
    path.write_bytes(b"\x80\x02}" + content + b".")
    with contextlib.suppress(DataError):
        assert isinstance(read_pickle(path), dict)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Is a directory"):
        read_pickle(tmp_path)
