"""A pickled data set is read exactly; one that calls anything else is refused before the call."""

from __future__ import annotations

import contextlib
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from lrwd_sweep.data.images import read_pickle
from lrwd_sweep.errors import DataError
from tests.data.formats import python2_pickle

MARK = "ran"
TOUCH = f"open({MARK!r}, 'w').close()"
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


def _assert_same(a: dict[str, Any], b: dict[str, Any]) -> None:
    assert a.keys() == b.keys()
    for key, value in a.items():
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(value, b[key])
            assert value.dtype.newbyteorder("=") == b[key].dtype.newbyteorder("=")
        else:
            assert value == b[key]


@given(table=tables, protocol=st.integers(2, pickle.HIGHEST_PROTOCOL))
def test_tables_of_arrays_and_lists_are_read_as_pickle_reads_them(
    tmp_path_factory: pytest.TempPathFactory, table: dict[str, Any], protocol: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "pickled"
    path.write_bytes(pickle.dumps(table | {"columns": np.asfortranarray(np.eye(2, 3))}, protocol))
    _assert_same(read_pickle(path), pickle.loads(path.read_bytes()))


def test_pickles_of_python_2_and_of_either_numpy_are_read(file: Path) -> None:
    table = {"data": np.arange(256, dtype=np.uint8).reshape(2, 128), "labels": [0, 9], "filenames": ["a.png"]}
    file.write_bytes(python2_pickle(table))
    _assert_same(read_pickle(file), table)
    for protocol in (2, 3):  # the names of modules end in a newline there
        text = pickle.dumps(table, protocol)
        for core in (b"numpy.core", b"numpy._core"):
            file.write_bytes(
                text.replace(b"cnumpy._core.", b"cnumpy.core.").replace(b"cnumpy.core", b"c" + core)
            )
            _assert_same(read_pickle(file), table)


class Runs:
    """An object whose pickle calls a function when it is loaded."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.made = function, arguments

    def __reduce__(self) -> Any:
        return self.made


def _dtype_by_a_call() -> bytes:
    """Pickle an array whose dtype is what a call gives."""
    call = b"cbuiltins\neval\n(U" + bytes([len(TOUCH)]) + TOUCH.encode() + b"tR"
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85"
    return b"\x80\x02}U\x04data" + array + call + b"\x87Rs."


LIVE = {
    "os.system, protocol 0": pickle.dumps({"data": Runs(os.system, f"touch {MARK}")}, 0),
    "os.system, protocol 4": pickle.dumps({"data": Runs(os.system, f"touch {MARK}")}, 4),
    "builtins.eval": pickle.dumps({"data": Runs(eval, TOUCH)}, 5),
    "nested": pickle.dumps({"data": [({"a": [Runs(os.system, f"touch {MARK}")]},)]}, 4),
    "an array of objects": pickle.dumps({"data": np.array([Runs(eval, TOUCH)], dtype=object)}, 4),
    "a dtype that is a call": _dtype_by_a_call(),
    "INST": b"(U" + bytes([len(TOUCH)]) + TOUCH.encode() + b"ibuiltins\neval\n.",
    "OBJ": b"(cbuiltins\neval\nU" + bytes([len(TOUCH)]) + TOUCH.encode() + b"o.",
}


def test_a_malicious_pickle_is_refused_and_nothing_runs(file: Path) -> None:
    mark = file.with_name(MARK)
    for kind, content in LIVE.items():
        file.write_bytes(content)
        with pytest.raises(DataError, match=r"data_batch_1 is not a pickled data set \(it asks for") as error:
            read_pickle(file)
        assert not mark.exists(), kind
        assert "\n" not in str(error.value), kind
        with contextlib.suppress(TypeError, ValueError):  # numpy refuses the result of the call, after it
            pickle.loads(content)
        assert mark.exists(), kind  # it was a live one
        mark.unlink()


STRANGE = {
    "a persistent name": b"\x80\x02}U\x04dataPname\ns.",
    "ndarray called": b"\x80\x02}U\x04datacnumpy\nndarray\n)Rs.",
    "a shape without its bytes": python2_pickle({"data": np.zeros((2, 3), np.uint8)}).replace(
        b"J\x03\x00\x00\x00", b"J\xff\xff\xff\x7f"
    ),
    "a long name of many lines": b"\x80\x04\x8c\xc8" + b"a\n" * 100 + b"\x8c\x01x\x93.",
    "a text of 2⁶¹ bytes": b"\x80\x04\x8d\x00\x00\x00\x00\x00\x00\x00\x20.",
    "a list": pickle.dumps([1, 2]),
    "text": b"<!DOCTYPE html><html>",
    "a memo that is not there": b"\x80\x02}U\x04datah\x07s.",
    "an unfilled stack": b"\x80\x02s.",
}


def test_other_content_and_every_truncation_is_refused_in_one_line(file: Path) -> None:
    whole = python2_pickle({"labels": [1, 2], "data": np.arange(12, dtype=np.uint8).reshape(2, 6)})
    cut = {f"the first {n} bytes": whole[:n] for n in range(len(whole))}
    for kind, content in (STRANGE | cut).items():
        file.write_bytes(content)
        with pytest.raises(DataError, match=f"{file} .*get it again") as error:
            read_pickle(file)
        assert "\n" not in str(error.value), kind
        assert len(str(error.value)) < 500, kind
    with pytest.raises(DataError, match="Is a directory"):
        read_pickle(file.parent)
