"""Cores and memory of this process: a container has less than the machine reports.

Linux limits processes by control groups, of version 2 or 1 (cgroups(7)); every group is within its parent's
limits. On other systems, or if a file cannot be read, nothing is limited.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

MEMORY = "/proc/meminfo"
GROUPS = "/proc/self/cgroup"  # a line per hierarchy: number, its controllers, this process's group
MOUNTED = "/sys/fs/cgroup"  # version 2 itself; in version 1 a folder per controller


def cores() -> int:
    """Return the number of cores that this process can use at a time, at least one."""
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([here, *(math.ceil(quota) for quota in _limits("cpu", _quota))]))


def free_bytes() -> int:
    """Return the bytes that an allocation could have now."""
    return max(0, min([_free_here(), *(int(room) for room in _limits("memory", _room))]))


def _free_here() -> int:
    """Return the free bytes of the whole machine."""
    try:
        with open(MEMORY, encoding="ascii") as lines:
            table = dict(line.split(":", 1) for line in lines)
        return int(table["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):
        known = hasattr(os, "sysconf")
        return (os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if known else 4 << 30) // 2


@dataclass(frozen=True, slots=True)
class _Group:
    """A control group."""

    folder: Path
    version: int

    def number(self, name: str, key: str = "") -> float:
        """Read the number in a file, or after a key. Raises OSError, ValueError or KeyError."""
        text = (self.folder / name).read_text(encoding="ascii")
        if key:
            text = dict(line.split() for line in text.splitlines())[key]
        return math.inf if text.strip() == "max" else float(text)


def _limits(controller: str, limit: Callable[[_Group], float]) -> Iterator[float]:
    """Yield the limits of this process's group and of all groups around it."""
    for group in _groups(controller):
        with suppress(OSError, ValueError, KeyError):
            if math.isfinite(found := limit(group)):
                yield found


def _groups(controller: str) -> Iterator[_Group]:
    """Yield the groups from the process's own to the root; a container may hide some folders."""
    with suppress(OSError, ValueError), open(GROUPS, encoding="utf-8") as lines:
        for line in lines:
            _, controllers, path = line.rstrip("\n").split(":", 2)
            if controllers and controller not in controllers.split(","):
                continue
            version = 1 if controllers else 2
            root = Path(MOUNTED, controller) if controllers else Path(MOUNTED)
            inner = root / path.lstrip("/")
            for folder in (inner, *inner.parents):
                yield _Group(folder, version)
                if folder == root:
                    break


def _quota(group: _Group) -> float:
    """Return seconds of computing per second."""
    if group.version == 2:
        quota, period = (group.folder / "cpu.max").read_text(encoding="ascii").split()
        return math.inf if quota == "max" else float(quota) / float(period)
    quota_us = group.number("cpu.cfs_quota_us")
    return math.inf if quota_us < 0 else quota_us / group.number("cpu.cfs_period_us")


def _room(group: _Group) -> float:
    """Return the bytes up to the limit; cached files count as free, since they yield to allocations."""
    if group.version == 2:
        limit, used, kept = "memory.max", "memory.current", "inactive_file"
    else:
        limit, used, kept = "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
    return group.number(limit) - group.number(used) + group.number("memory.stat", kept)
