"""Every call in an empty directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from lrwd_sweep import Study
from tests.api.sweeps import tiny


@pytest.fixture(autouse=True)
def _empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LRWD_STORAGE", raising=False)


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A tiny study, of a store that stays where it is."""
    return tiny(storage=tmp_path_factory.mktemp("swept") / "here.db")
