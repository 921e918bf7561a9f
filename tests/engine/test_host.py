"""A process in a container knows what it may take: on made trees of both versions, and in a real group."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from lrwd_sweep.engine import host

GIB = 1 << 30
UNLIMITED = "9223372036854771712"  # what version 1 says for no limit
HERE = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A system of 16 GiB, 12 of them available, that has no control groups yet."""
    (tmp_path / "meminfo").write_text(f"MemTotal: {16 << 20} kB\nMemAvailable: {12 << 20} kB\n")
    (tmp_path / "fs").mkdir()
    for name, path in (("MEMORY", "meminfo"), ("GROUPS", "cgroup"), ("MOUNTED", "fs")):
        monkeypatch.setattr(host, name, str(tmp_path / path))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(64), raising=False)
    return tmp_path


def make(root: Path, group: str, **files: object) -> None:
    """A control group: a dot of a file's name is written __."""
    folder = root / group
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(f"{text}\n")


def test_without_control_groups_the_machine_is_ours(system: Path) -> None:
    assert host.free_bytes() == 12 * GIB
    assert host.cores() == 64


def test_a_group_of_version_2_is_left_what_it_does_not_use(system: Path) -> None:
    (system / "cgroup").write_text("0::/\n")
    stat = f"anon 1\ninactive_file {GIB // 2}\nactive_file 7"
    make(
        system / "fs",
        ".",
        memory__max=4 * GIB,
        memory__current=GIB,
        memory__stat=stat,
        cpu__max="250000 100000",
    )
    assert host.free_bytes() == 3 * GIB + GIB // 2
    assert host.cores() == 3


def test_the_tightest_of_the_groups_around_counts(system: Path) -> None:
    (system / "cgroup").write_text("0::/pods/job\n")
    stat = "inactive_file 0"
    make(
        system / "fs",
        "pods",
        memory__max=3 * GIB,
        memory__current=GIB,
        memory__stat=stat,
        cpu__max="200000 100000",
    )
    make(
        system / "fs",
        "pods/job",
        memory__max="max",
        memory__current=GIB,
        memory__stat=stat,
        cpu__max="max 100000",
    )
    assert host.free_bytes() == 2 * GIB
    assert host.cores() == 2


def test_a_container_of_version_1_shows_its_limits_at_the_root(system: Path) -> None:
    (system / "cgroup").write_text(
        "5:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc\n1:name=systemd:/x\n0::/\n"
    )
    make(
        system / "fs", "memory",
        memory__limit_in_bytes=2 * GIB, memory__usage_in_bytes=GIB, memory__stat="total_inactive_file 4096",
    )  # fmt: skip
    make(system / "fs", "cpu", cpu__cfs_quota_us=50000, cpu__cfs_period_us=100000)
    assert host.free_bytes() == GIB + 4096
    assert host.cores() == 1


def test_no_limit_is_none(system: Path) -> None:
    (system / "cgroup").write_text("5:cpu,cpuacct:/\n4:memory:/\n")
    make(
        system / "fs", "memory",
        memory__limit_in_bytes=UNLIMITED, memory__usage_in_bytes=GIB, memory__stat="total_inactive_file 0",
    )  # fmt: skip
    make(system / "fs", "cpu", cpu__cfs_quota_us=-1, cpu__cfs_period_us=100000)
    assert host.free_bytes() == 12 * GIB
    assert host.cores() == 64


def test_a_group_over_its_limit_has_nothing_left(system: Path) -> None:
    (system / "cgroup").write_text("0::/\n")
    make(system / "fs", ".", memory__max=GIB, memory__current=GIB + 8192, memory__stat="inactive_file 4096")
    assert host.free_bytes() == 0


@pytest.mark.parametrize(
    "files",
    [
        {"memory__max": "much", "memory__current": 1, "memory__stat": "inactive_file 0", "cpu__max": "1 2 3"},
        {"memory__max": 1, "memory__current": 1, "memory__stat": "anon 0", "cpu__max": "fast 100000"},
        {"memory__max": 1, "cpu__max": ""},
    ],
)
def test_what_cannot_be_read_limits_nothing(system: Path, files: dict[str, object]) -> None:
    (system / "cgroup").write_text("nonsense\n0::/../..\n")
    make(system / "fs", ".", **files)
    (system / "cgroup").write_text("0::/\nnonsense\n")
    assert host.free_bytes() == 12 * GIB
    assert host.cores() == 64


@pytest.fixture
def group() -> Iterator[Path]:
    """A real group of version 1 or 2 that holds 64 MiB, where one can be made."""
    memory = Path(host.MOUNTED, "memory")
    folder = (memory if memory.is_dir() else Path(host.MOUNTED)) / f"lrwd-sweep-test-{os.getpid()}"
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error}")
    try:
        name = "memory.limit_in_bytes" if memory.is_dir() else "memory.max"
        try:
            (folder / name).write_text(str(64 << 20))
        except OSError as error:
            pytest.skip(f"a control group made here takes no limit: {error}")
        yield folder
    finally:
        with suppress(OSError):
            folder.rmdir()


def test_a_process_in_a_real_group_sees_its_limit(group: Path) -> None:
    code = (
        f"import os; open({str(group / 'cgroup.procs')!r}, 'w').write(str(os.getpid()))\n"
        f"import runpy; print(runpy.run_path({host.__file__!r})['free_bytes']())"  # torch would not fit
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 0 < int(found.stdout) <= 64 << 20
    assert host.free_bytes() > 64 << 20
