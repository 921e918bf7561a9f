"""The check for numba runs once; code that cannot be cached on disk is compiled again."""

import errno
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from lrwd_sweep.optim import jit
from tests.cli.conftest import TINY, ended, process, trials


@pytest.fixture(autouse=True)
def _undecided(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(jit, "_told", set())
    jit._compiles.cache_clear()
    yield
    jit._compiles.cache_clear()


def test_threads_train_without_a_working_numba(tmp_path: Path) -> None:
    (tmp_path / "numba.py").write_text("raise ImportError('no numba')")
    path = str(tmp_path / "a.db")
    command = ("grid", *TINY, "--max-lanes", "1", "--storage", path)
    found = ended(process(*command, PYTHONPATH=str(tmp_path)))
    assert found.code == 0, found.err
    slower = "perceptrons and updates run as torch's operators, which is slower: numba cannot be used"
    assert found.err.splitlines()[1] == f"{slower} (ImportError: no numba)"
    assert len(trials(path)) == 9


def test_threads_get_one_answer(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    all_ask = threading.Barrier(4)

    def ask(_: int) -> bool:
        all_ask.wait()
        return jit.usable()

    tries = Mock(side_effect=jit.compiled)
    monkeypatch.setattr("numba.config.DISABLE_JIT", 1)
    monkeypatch.setattr(jit, "compiled", tries)
    with caplog.at_level("INFO", "lrwd_sweep"), ThreadPoolExecutor(4) as threads:
        assert list(threads.map(ask, range(4))) == [False] * 4
    assert tries.call_count == 1
    (message,) = caplog.messages
    assert "numba cannot be used (RuntimeError: NUMBA_DISABLE_JIT is set)" in message


FAULTS = (
    ("written (No space left on device)", "save_overload", OSError(errno.ENOSPC, "No space left on device")),
    ("read (Permission denied)", "load_overload", OSError(errno.EACCES, "Permission denied")),
    ("read (EOFError: Ran out of input)", "load_overload", EOFError("Ran out of input")),
)


def test_failing_cache_is_skipped_and_reported_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "lrwd_sweep")
    for fault, method, error in FAULTS:
        jit._told.clear()
        caplog.clear()
        for _ in range(2):
            dispatcher = jit.compiled(jit._twice)
            files = Mock(cache_path=str(tmp_path), load_overload=Mock(return_value=None))
            getattr(files, method).side_effect = error
            dispatcher._cache.files = files
            assert dispatcher(2.0) == 4.0
        compiling, failing = sorted(caplog.messages)
        assert compiling == "compiling the training loops for this machine"
        again = "the training loops are compiled in every run; NUMBA_CACHE_DIR names another folder"
        assert failing == f"numba's cache {str(tmp_path)!r} cannot be {fault}; {again}"


def test_missing_cache_folder_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    folder = str(tmp_path / "file" / "cache")
    monkeypatch.setenv("NUMBA_CACHE_DIR", folder)
    found: dict[str, Any] = {}
    exec(compile("def half(x):\n    return x / 2", "<from nowhere>", "exec"), found)
    with caplog.at_level("INFO", "lrwd_sweep"):
        assert jit.compiled(found["half"])(3.0) == 1.5
    assert f"numba's cache {folder!r} cannot be written ({os.strerror(errno.ENOTDIR)}); the" in caplog.text
