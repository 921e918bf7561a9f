"""No test leaves anything in the user's cache, nor finds anything there; shared fixtures."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")  # as the engine trains; read when torch is loaded
OURS = ("LRWD_STORAGE", "LRWD_DATA", "LRWD_DEBUG")
TERMINAL = ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "TERM", "COLORTERM")

# The slow run searches; the usual one tries the same examples each time, and a slow machine fails no test.
settings.register_profile("usual", deadline=None, max_examples=20, derandomize=True)
settings.register_profile("slow", deadline=None, max_examples=100)


def pytest_configure(config: pytest.Config) -> None:
    settings.load_profile("slow" if config.option.markexpr == "slow" else "usual")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Count property tests as slow ones too if only these are asked for."""
    for item in items if config.option.markexpr == "slow" else ():
        if getattr(getattr(item, "obj", None), "is_hypothesis_test", False):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def store(tmp_path: Path) -> Iterator[object]:
    from lrwd_sweep.store import open_store

    with open_store(str(tmp_path / "a.db"), write=True) as opened:
        yield opened


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, in which no variable names another store or describes a terminal."""
    monkeypatch.chdir(tmp_path)
    for name in OURS + TERMINAL:
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def without_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    """All that trains is torch's operators, as where there is no numba, and on a GPU."""
    monkeypatch.setattr("lrwd_sweep.optim.jit.usable", lambda: False)
