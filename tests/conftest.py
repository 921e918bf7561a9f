"""No test leaves anything in the user's cache, nor finds anything there."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")  # as the engine trains; read when torch is loaded

settings.register_profile("any machine", deadline=None, max_examples=20)  # a slow machine fails no test
settings.load_profile("any machine")


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def without_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    """All that trains is torch's operators, as where there is no numba, and on a GPU."""
    monkeypatch.setattr("lrwd_sweep.optim.jit.usable", lambda: False)
