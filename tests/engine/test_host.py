"""Limits of a container are respected: on made trees of both versions of control groups."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from lrwd_sweep.engine import host

GIB = 1 << 30
UNLIMITED = "9223372036854771712"  # of version 1


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a system of 16 GiB, 12 of them available, without control groups."""
    (tmp_path / "meminfo").write_text(f"MemTotal: {16 << 20} kB\nMemAvailable: {12 << 20} kB\n")
    (tmp_path / "fs").mkdir()
    for name, path in (("MEMORY", "meminfo"), ("GROUPS", "cgroup"), ("MOUNTED", "fs")):
        monkeypatch.setattr(host, name, str(tmp_path / path))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(64), raising=False)
    return tmp_path


def make(root: Path, group: str, **files: object) -> None:
    """Make a control group: a dot of a file's name is written __."""
    folder = root / group
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(f"{text}\n")


def test_limits_are_read_from_control_groups_of_both_versions(system: Path) -> None:
    stat = "inactive_file 0"
    v1: dict[str, object] = {"memory__usage_in_bytes": GIB, "memory__stat": "total_inactive_file 4096"}
    half: dict[str, object] = {"cpu__cfs_quota_us": 50000, "cpu__cfs_period_us": 100000}
    cases: tuple[tuple[str, str | None, dict[str, dict[str, object]], int, int], ...] = (
        ("no groups", None, {}, 12 * GIB, 64),
        (
            "version 2: cached files are free",
            "0::/\n",
            {
                ".": {
                    "memory__max": 4 * GIB,
                    "memory__current": GIB,
                    "memory__stat": f"anon 1\ninactive_file {GIB // 2}\nactive_file 7",
                    "cpu__max": "250000 100000",
                }
            },
            3 * GIB + GIB // 2,
            3,
        ),
        (
            "the tightest of the surrounding groups",
            "0::/pods/job\n",
            {
                "pods": _v2(3 * GIB, GIB, stat) | {"cpu__max": "200000 100000"},
                "pods/job": _v2("max", GIB, stat) | {"cpu__max": "max 100000"},
            },
            2 * GIB,
            2,
        ),
        (
            "version 1 in a container, at the root",
            "5:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc\n1:name=systemd:/x\n0::/\n",
            {"memory": v1 | {"memory__limit_in_bytes": 2 * GIB}, "cpu": half},
            GIB + 4096,
            1,
        ),
        (
            "version 1 without limits",
            "5:cpu,cpuacct:/\n4:memory:/\n",
            {"memory": v1 | {"memory__limit_in_bytes": UNLIMITED}, "cpu": half | {"cpu__cfs_quota_us": -1}},
            12 * GIB,
            64,
        ),
        ("over the limit", "0::/\n", {".": _v2(GIB, GIB + 8192, "inactive_file 4096")}, 0, 64),
        ("unreadable", "nonsense\n0::/../..\n", {}, 12 * GIB, 64),
        ("words", "0::/\nnonsense\n", {".": _v2("much", 1, stat) | {"cpu__max": "1 2 3"}}, 12 * GIB, 64),
        ("no statistics", "0::/\n", {".": _v2(1, 1, "anon 0") | {"cpu__max": "fast 100000"}}, 12 * GIB, 64),
        ("no use", "0::/\n", {".": {"memory__max": 1, "cpu__max": ""}}, 12 * GIB, 64),
    )
    for case, groups, made, free, cores in cases:
        shutil.rmtree(system / "fs")
        for group, files in {".": {}, **made}.items():
            make(system / "fs", group, **files)
        if groups is not None:
            (system / "cgroup").write_text(groups)
        assert (host.free_bytes(), host.cores()) == (free, cores), case


def _v2(limit: object, used: int, stat: str) -> dict[str, object]:
    return {"memory__max": limit, "memory__current": used, "memory__stat": stat}
